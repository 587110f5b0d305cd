"""Overhead of Prefect in a retrain: the flow against the same steps as plain calls, on the same services."""

import tempfile
from importlib.metadata import version
from pathlib import Path

from benchmarks.table import Row, overhead, side_by_side
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.vocabulary import ModelType
from clm_core.platform.prefect_server import load_flow, own_server, prepare_environment
from clm_core.retraining import jobs, pages, steps
from clm_core.services import Services, open_services
from clm_core.settings import Settings

REPEATS = 5
LARGEST_OVERHEAD = 10.0
"""Limit of the overhead, in percent."""
REQUEST = RetrainRequest(
    model_type=ModelType.LIGHTGBM,
    symbol="BTCUSD",
    dataset_span_days=840,
    # no early stop: every fold trains all rounds, so that a run takes about five seconds
    training_params={"early_stopping_rounds": 500, "rounds": 500},
    requested_by="benchmark",
    again=True,
)


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        home.chmod(0o755)  # started by root, PostgreSQL runs as a separate user
        prepare_environment(home)
        with (
            open_services(Settings(home=home)) as services,
            own_server(services.database, home / "prefect"),
        ):
            return [_flow_against_plain_calls(services)]


def _flow_against_plain_calls(services: Services) -> Row:
    """Flow and plain calls in turn, so that other load on the machine falls on both."""
    flow = load_flow("flows.retrain.retrain")
    ours, plain = side_by_side(lambda: flow(REQUEST), lambda: plain_calls(services), REPEATS)
    return overhead(
        "retrain of LightGBM on 20,111 bars as a Prefect flow",
        ours,
        f"the same steps as plain calls (Prefect {version('prefect')})",
        plain,
        LARGEST_OVERHEAD,
    )


def plain_calls(services: Services) -> None:
    job = jobs.open_job(services, REQUEST)
    with jobs.running(services, job) as lease:
        bars = steps.fetch_bars(services, job)
        trained = steps.train(services, job, bars)
        version = steps.register(services, lease, job, bars, trained)
        evaluation = steps.evaluate_out_of_sample(services, lease, job, bars, trained)
        verdict = steps.judge(services, lease, version, evaluation)
        report = steps.report(services, job, version, bars, trained, evaluation, verdict)
        pages.summary_page(services.page_addresses, version, verdict, report)
