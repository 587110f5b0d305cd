"""Retrain flow, from bars to a judged version, on real bars and real servers."""

import html
import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from importlib.metadata import version as installed_version
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import mlflow
import numpy as np
import promoting
import pytest
from jobs import end_all_jobs
from patience import PATIENT_SECONDS
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import StateType
from trace_receiver import Collector, collecting

from clm_core.backtest import chart_library
from clm_core.domain.actors import Actor
from clm_core.domain.errors import IllegalTransition, InvalidTrainingParams, UnknownSeries
from clm_core.domain.jobs import RetrainRequest, TrainingJob
from clm_core.domain.tracing_settings import TracingSettings
from clm_core.domain.triggers import Answer, Reply, TriggerRequest
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import JobStatus, ModelStatus, ModelType, Role
from clm_core.ledger.audit_log import entries
from clm_core.models.bundle import read_card
from clm_core.platform import tracing
from clm_core.platform.prefect_server import flow_calls, load_flow
from clm_core.retraining import jobs, pages, steps
from clm_core.retraining.identical import identical_version
from clm_core.retraining.results import RetrainResult
from clm_core.services import Services, open_ledger
from clm_core.triggers import intake
from flows.sequences.retrain import retrain

TREES = [ModelType.XGBOOST, ModelType.LIGHTGBM]


def request_for(model_type: ModelType = ModelType.XGBOOST, **changes: Any) -> RetrainRequest:
    values = {
        "model_type": model_type,
        "symbol": "BTCUSD",
        "dataset_span_days": 200,
        "training_params": {"rounds": 30},
        "requested_by": "tests",
    }
    return RetrainRequest.model_validate(values | changes)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module", params=TREES, ids=str)
def result(
    request: pytest.FixtureRequest, services: Services, prefect_url: str, collector: Collector
) -> RetrainResult:
    end_all_jobs(services)
    with tracing.exported(TracingSettings(endpoint=collector.url)):
        retrained: RetrainResult = load_flow("flows.retrain.retrain")(request_for(request.param))
    return retrained


@pytest.fixture(autouse=True)
def no_jobs_under_way(services: Services) -> None:
    end_all_jobs(services)


def test_an_identical_request_names_the_version_instead_of_another_trial(
    result: RetrainResult, services: Services
) -> None:
    version = result.version
    request = request_for(version.model_type)
    answer = intake.submit_and_claim(services, request, "tests", uuid.uuid4())
    assert isinstance(answer, Answer)
    assert (answer.reply, answer.job_id) == (Reply.COALESCED, version.training_job_id)
    assert f"trained {version.version} from the same bars, parameters, seed and code" in answer.because
    again = intake.submit_and_claim(
        services, request.model_copy(update={"again": True}), "tests", uuid.uuid4()
    )
    assert isinstance(again, TrainingJob)
    services.ledger.cancel_job(again.id, Actor(name="ada", role=Role.ADMIN), services.clock())
    for changes in ({"seed": 1}, {"dataset_span_days": 210}, {"training_params": {"rounds": 31}}):
        other = jobs.new_job(services, request_for(version.model_type, **changes))
        assert identical_version(services, other) is None
    costs = services.settings.costs.model_copy(update={"fee_bps": 7.0})
    dearer = services.settings.model_copy(update={"costs": costs})
    assert identical_version(replace(services, settings=dearer), jobs.new_job(services, request)) is None


def test_the_job_ends_completed_and_the_version_carries_the_verdict(
    result: RetrainResult, services: Services
) -> None:
    version = services.ledger.version(result.version.model_id, result.version.version)
    job = services.ledger.job(version.training_job_id)
    assert job.status is JobStatus.COMPLETED
    assert version.status is (ModelStatus.CANDIDATE if result.verdict.passed else ModelStatus.FAILED)
    evaluation, verdict = services.ledger.evaluation(version.model_id, version.version)
    # NaN, the margin of a profit factor without a loss, counts as equal to itself
    np.testing.assert_equal(verdict.model_dump(), result.verdict.model_dump())
    assert evaluation.sharpe_ratio == result.metrics.sharpe_ratio
    assert evaluation.trades == result.metrics.trades > 0


def test_the_steps_of_the_run_are_spans_in_the_trace_of_the_job(
    result: RetrainResult, collector: Collector
) -> None:
    version = result.version
    spans = [each for each in collector.spans if each.trace_id == version.training_job_id.hex]
    run = next(each for each in spans if each.name == "retrain")
    assert [each.name for each in spans if each.parent == run.span_id] == [
        *("accepted", "waiting for a run", "bars", "training", "registration"),
        *("backtest", "gate", "report", "decision on a refresh"),
    ]
    assert uuid.UUID(run.attributes["clm.run_id"])
    gate = next(each for each in spans if each.name == "gate")
    assert gate.attributes["clm.version"] == version.version
    assert gate.attributes["clm.decision"] == result.verdict.decision.value


def test_the_audit_has_an_entry_for_each_step_of_the_retrain(
    result: RetrainResult, services: Services
) -> None:
    version = result.version
    with open_ledger(services.database) as engine:
        log = entries(engine, version.model_id, limit=1000)[::-1]
    subjects = {str(version.training_job_id), version.version}
    assert [entry.action for entry in log if subjects & {entry.subject, entry.details.get("version")}] == [
        "job_created",
        "job_started",
        "version_registered",
        "version_judged",
        "version_status_changed",
        "job_completed",
    ]


def test_the_lineage_names_job_data_parameters_and_libraries_of_the_version(
    result: RetrainResult, services: Services
) -> None:
    version = result.version
    lineage = services.ledger.lineage(version.model_id, version.version)
    assert lineage.job == services.ledger.job(version.training_job_id)
    assert lineage.data_snapshot == lineage.job.data_snapshot
    assert lineage.params["rounds"] == 30
    assert lineage.params == read_params(services, version)
    library = str(version.model_type)
    assert {"Python", "numpy", "TA-Lib", library, "continuous-learning-manager"} <= lineage.environment.keys()
    assert lineage.environment[library] == installed_version(library)
    compared = {"parent_version", "data_hash", "code_version", "seed", "mlflow_run_id", "bundle_digest"}
    assert lineage.model_dump(include=compared) == version.model_dump(include=compared)


def read_params(services: Services, version: ModelVersion) -> dict[str, Any]:
    """Parameters on the card of the stored bundle."""
    with services.registry.fetched(version.model_path) as bundle:
        return read_card(bundle).params


def test_the_tear_sheet_is_beside_the_version_in_mlflow_and_its_files_are_stored_once(
    result: RetrainResult, services: Services, tmp_path: Path
) -> None:
    stored = services.registry.download(
        result.version.mlflow_run_id, f"report/{result.version.version}.html", tmp_path
    )
    assert stored.read_bytes() == result.report.html.read_bytes()
    files = list(result.report.html.parent.glob(f"{result.version.version}*"))
    assert {file.suffix for file in files} == {".html", ".png", ".json"}
    sizes = {file.suffix: file.stat().st_size for file in files}
    assert sum(sizes.values()) < 400_000, sizes
    assert {file.stat().st_nlink for file in files} == {2}
    assert (services.reports / chart_library.file_name()).is_file()


def test_the_run_page_shows_the_verdict_and_the_equity_curve(result: RetrainResult, prefect_url: str) -> None:
    key = result.version.model_id.replace("_", "-")
    artifact = httpx.get(f"{prefect_url}/artifacts/{key}-verdict/latest").json()
    assert result.verdict.decision.value.upper() in artifact["data"]
    assert "data:image/png;base64," in artifact["data"]
    runs = httpx.post(f"{prefect_url}/flow_runs/filter", json={}).json()
    run = next(run for run in runs if run["id"] == artifact["flow_run_id"])
    assert run["state_type"] == "COMPLETED"
    assert run["name"].endswith(f": {result.verdict.decision.value.upper()}")
    assert run["state"]["message"].startswith(result.verdict.headline)
    assert {"retrain", result.version.model_id, "manual"} <= set(run["tags"])
    assert str(result.report.html) not in artifact["data"], "a path of the server is no link"
    assert result.decision is None, "a first version refreshes nothing"


def test_the_verdict_says_that_the_bars_are_old(result: RetrainResult) -> None:
    sentence = "the newest bar of BTCUSD 1h closed at 2019-10-17 10:00 UTC, 7 years ago: "
    assert result.verdict.warnings[0].startswith(f"Old bars: {sentence}")
    assert "age at the training" in result.report.html.read_text()


def test_mlflow_the_run_page_and_the_tear_sheet_show_the_same_checks_in_the_same_order(
    result: RetrainResult, services: Services, prefect_url: str
) -> None:
    key = result.version.model_id.replace("_", "-")
    page = httpx.get(f"{prefect_url}/artifacts/{key}-verdict/latest").json()["data"]
    number = str(result.version.mlflow_version)
    client = mlflow.MlflowClient(services.database.url("mlflow"), services.database.url("mlflow"))
    stored = client.get_model_version(result.version.model_id, number)
    described = stored.description
    assert described.startswith(result.verdict.headline)
    assert described.splitlines()[-1].endswith(f" UTC, failed: {result.verdict.headline}")
    by = services.ledger.job(result.version.training_job_id).requested_by
    assert (stored.user_id, stored.tags["clm.requested_by"]) == (by, by)
    assert client.get_run(result.version.mlflow_run_id).data.tags["mlflow.user"] == by
    assert "`production` serves" in client.get_registered_model(result.version.model_id).description
    sheet = html.unescape(result.report.html.read_text())
    for text in (page, described, sheet):
        assert all(check.label in text and check.required in text for check in result.verdict.checks)
        assert result.verdict.count in text
        assert "nan" not in re.sub(r"data:image\S+|<script.*?</script>", "", text, flags=re.DOTALL).lower()
    checks = result.verdict.checks
    assert all(" | ".join(check.cells) in described for check in checks)
    # the page of a run has no room for the remarks on a value, which the reasons repeat
    rows = [
        f"| {check.outcome} | {check.label} | {check.measured.partition(', ')[0]} | {check.required} |"
        for check in checks
    ]
    assert [row for row in page.splitlines() if row in rows] == rows


TRADER = """
import json, sys, mlflow
from datetime import UTC, datetime
from pathlib import Path
from clm_core.market.sources import MarketData
bars = MarketData(Path(sys.argv[1])).bars("BTCUSD", "1h", days=120, closed_by=datetime.now(UTC))
for line in sys.stdin:
    served = mlflow.pyfunc.load_model(line.strip()).predict(bars.to_frame().reset_index())
    print(json.dumps([served["position"].tolist(), served["forecast"].dropna().tolist()]), flush=True)
"""


@pytest.fixture(scope="module")
def trader(services: Services) -> Iterator["subprocess.Popen[str]"]:
    """Process of a trader, which answers each line, the URI of a version, by positions and forecasts."""
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": services.database.url("mlflow", driver="psycopg"),
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    arguments = [sys.executable, "-c", TRADER, str(services.settings.home)]
    with subprocess.Popen(
        arguments, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.communicate(timeout=PATIENT_SECONDS)
    assert process.returncode == 0


def test_a_trader_loads_the_version_in_another_process_and_gets_the_same_positions(
    result: RetrainResult, services: Services, trader: "subprocess.Popen[str]"
) -> None:
    version = result.version
    bars = services.market.bars("BTCUSD", "1h", days=120, closed_by=services.clock())
    assert trader.stdin is not None
    assert trader.stdout is not None
    print(version.model_path, file=trader.stdin, flush=True)
    positions, forecast = json.loads(trader.stdout.readline())
    model = services.registry.load(version.model_path, version.bundle_digest)
    assert positions == model.positions(bars).tolist()
    expected = model.forecast(bars)
    assert forecast == expected[~np.isnan(expected)].tolist()


@pytest.mark.parametrize(
    ("module", "step"),
    [
        (steps, "fetch_bars"),
        (steps, "train"),
        (steps, "register"),
        (steps, "evaluate_out_of_sample"),
        (steps, "judge"),
        (steps, "report"),
        (pages, "summary_page"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_error_in_any_step_fails_the_job_with_the_error_as_cause_and_its_version(
    module: ModuleType, step: str, services: Services, prefect_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(f"disk full in {step}")

    monkeypatch.setattr(module, step, broken)
    before = {job.id for job in services.ledger.jobs(limit=1000)}
    # the page is of a run of the server
    retrained = load_flow("flows.retrain.retrain") if module is pages else retrain
    with pytest.raises(OSError, match="disk full"):
        retrained(request_for(training_params={"rounds": 2}))
    [job] = [job for job in services.ledger.jobs(limit=1000) if job.id not in before]
    assert job.status is JobStatus.FAILED
    assert job.failure_cause == f"OSError: disk full in {step}"
    assert {v.status for v in services.ledger.versions(training_job_id=job.id)} <= {ModelStatus.FAILED}
    assert not (services.work / str(job.id)).exists()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"training_params": {"max_dpeth": 5}}, InvalidTrainingParams),
        ({"training_params": {"max_depth": "deep"}}, InvalidTrainingParams),
        ({"symbol": "DOGEUSD"}, UnknownSeries),
    ],
    ids=["unknown parameter", "parameter out of range", "unknown market"],
)
def test_an_invalid_request_is_refused_before_a_job_exists(
    changes: dict[str, Any], error: type[Exception], services: Services
) -> None:
    before = services.ledger.jobs(limit=1000)
    with pytest.raises(error):
        jobs.open_job(services, request_for(**changes))
    assert services.ledger.jobs(limit=1000) == before


def test_a_version_names_the_production_version_of_its_training_as_parent(services: Services) -> None:
    request = request_for(ModelType.LIGHTGBM, symbol="EURUSD", training_params={"rounds": 2})
    served = services.ledger.promotions.champion("lightgbm_eurusd_1h")
    first = trained(request)
    admin = Actor(name="ada", role=Role.ADMIN)
    promoting.promote(
        services, first.model_id, first.version, admin, "a parent for the next", services.clock(), force=True
    )
    assert first.parent_version == served
    again = request.model_copy(update={"again": True})
    assert trained(again).parent_version == first.version


def trained(request: RetrainRequest) -> ModelVersion:
    """Version of a retrain without a Prefect server."""
    result = retrain(request).data
    assert isinstance(result, RetrainResult)
    return result.version


@pytest.mark.parametrize("by_server", [True, False], ids=["beside a server", "without a server"])
def test_a_command_is_a_run_of_the_prefect_server_that_is_up_and_plain_calls_without_one(
    by_server: bool, services: Services, prefect_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_url if by_server else "")
    symbol = f"NOSUCH{by_server}".upper()
    with flow_calls("retrain", services.settings.home) as flow, pytest.raises(UnknownSeries, match=symbol):
        flow(request_for(symbol=symbol))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(name=FlowRunFilterName(like_=symbol.lower()))
        )
    assert [run.state_type for run in runs] == ([StateType.FAILED] if by_server else [])


def submit(services: Services, **changes: Any) -> Answer:
    training = request_for(ModelType.LIGHTGBM, training_params={"rounds": 2}, again=True, **changes)
    actor = Actor(name="ada", role=Role.OPERATOR)
    return intake.submit(services, TriggerRequest(training=training, actor=actor, source="tests"))


def test_a_run_of_an_accepted_request_does_the_job_and_a_second_run_is_refused(
    services: Services, prefect_url: str
) -> None:
    retrain_flow = load_flow("flows.retrain.retrain")
    accepted = submit(services, symbol="EURUSD")
    version = retrain_flow(accepted.request.training, accepted.job_id).version
    assert version.training_job_id == accepted.job_id
    with pytest.raises(IllegalTransition, match="only a pending job can be started"):
        retrain_flow(accepted.request.training, accepted.job_id)


def test_a_run_without_a_granted_job_ends_completed_with_the_answer(
    services: Services, prefect_url: str
) -> None:
    under_way = submit(services, symbol="EURUSD").job_id
    assert under_way is not None
    lease = services.ledger.start_job(under_way, "tests", services.clock(), timedelta(minutes=1))
    request = request_for(ModelType.LIGHTGBM, symbol="EURUSD", training_params={"rounds": 2}, again=True)
    state = load_flow("flows.retrain.retrain")(request, return_state=True)
    assert state.is_completed()
    [answer] = services.ledger.triggers.answers(limit=1)
    assert state.message == (
        f"accepted as job {answer.job_id}: the job starts when job {under_way} of the same model has ended"
    )
    assert (answer.request.source, answer.request.actor.name) == ("terminal", "tests")
    services.ledger.complete_job(lease, services.clock())
