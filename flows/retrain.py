"""Retrain flow: bars in, a judged version out."""

from uuid import UUID

from prefect import State, flow

from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.triggers import Answer
from clm_core.retraining.results import RetrainResult
from flows.sequences.retrain import retrain as sequence


@flow(name="retrain", flow_run_name="{request.model_id} {request.trigger_reason.value}")
def retrain(request: RetrainRequest, job_id: UUID | None = None) -> State[RetrainResult | Answer]:
    """Retrain a model on the newest bars, then backtest and judge the new version out of sample.

    Args:
        request: The model to retrain, the data and the parameters.
        job_id: Leave empty. Set by the intake: the job of an accepted request.
    """
    return sequence(request, job_id).state()
