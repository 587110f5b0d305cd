// Requests and responses as a strict program reads and writes them, by the types of openapi-typescript.
import type {components, operations} from "./api";

type Schemas = components["schemas"];

// a request names what its caller wants, and nothing else
export const train: Schemas["TrainRequest"] = {model_type: "xgboost", symbol: "BTCUSD"};
export const tune: Schemas["TuneRequest"] = {model_type: "xgboost", symbol: "BTCUSD"};
export const promote: Schemas["PromoteRequest"] = {model_id: "xgboost_btcusd_1h", version: "v20251204_143022"};

// a response has every field
export function words(job: Schemas["TrainingJob"], problem: Schemas["ProblemDetails"]): string {
  const cause: string | null = job.failure_cause;
  const reasons: string[] = problem.reasons ?? [];
  const fields: string[] = (problem.errors ?? []).map((each) => each.field);
  return [job.requested_by, cause ?? "", ...reasons, ...fields].join(" ");
}

export type Listed = operations["list_jobs"]["responses"][200]["content"]["application/json"];
export const newest = (page: Listed): string | undefined => page.items[0]?.id;
