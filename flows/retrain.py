"""The main job: bars in, a judged version out."""

from uuid import UUID

from prefect import State, flow
from prefect.states import Completed

from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.triggers import Answer
from clm_core.retraining import steps
from clm_core.services import services
from tasks.backtest import backtest
from tasks.fetch_bars import fetch_bars
from tasks.judge import judge
from tasks.open_job import open_job
from tasks.register import register
from tasks.report import explain
from tasks.show import show
from tasks.tag_run import tag_run
from tasks.train import train


@flow(name="retrain", flow_run_name="{request.model_id} {request.trigger_reason.value}")
def retrain(request: RetrainRequest, job_id: UUID | None = None) -> steps.RetrainResult | State[Answer]:
    """Retrain a model on the newest bars, backtest it out of sample and judge it.

    Args:
        request: What is to be retrained.
        job_id: Leave it empty: the job that was made for an accepted request, which is to be run now.
    """
    tag_run(request)
    job = open_job(request, job_id)
    if isinstance(job, Answer):
        return Completed(message=job.sentence, data=job)
    with steps.running(services(), job) as lease:
        bars = fetch_bars(job)
        trained = train(job, bars)
        version = register(lease, job, bars, trained)
        tested = backtest(lease, job, bars, trained)
        verdict = judge(lease, version, tested)
        report = explain(job, version, bars, trained, tested, verdict)
        show(version, verdict, report)
    return steps.RetrainResult(version, verdict, tested.metrics, tested.buy_and_hold_metrics, report)
