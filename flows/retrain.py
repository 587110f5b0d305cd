"""Retrain flow: bars in, a judged version out."""

from uuid import UUID

from prefect import State, flow
from prefect.states import Completed

from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.triggers import Answer
from clm_core.platform.prefect_runs import RETRAIN_TAG
from clm_core.retraining import jobs
from clm_core.retraining.results import RetrainResult
from clm_core.services import services
from tasks.backtest import backtest
from tasks.fetch_bars import fetch_bars
from tasks.fetch_first import fetch_first
from tasks.judge import judge
from tasks.open_job import open_job
from tasks.promote_refresh import promote_refresh
from tasks.register import register
from tasks.report import report
from tasks.show import show
from tasks.tag_run import tag_run
from tasks.train import train


@flow(name="retrain", flow_run_name="{request.model_id} {request.trigger_reason.value}")
def retrain(request: RetrainRequest, job_id: UUID | None = None) -> State[RetrainResult] | State[Answer]:
    """Retrain a model on the newest bars, then backtest and judge the new version out of sample.

    Args:
        request: The model to retrain, the data and the parameters.
        job_id: Leave empty. Set by the intake: the job of an accepted request.
    """
    tag_run(RETRAIN_TAG, request.model_id, str(request.kind), request.trigger_reason.value)
    job = open_job(request, job_id)
    if isinstance(job, Answer):
        return Completed(message=job.sentence, data=job)
    with jobs.running(services(), job) as lease:
        if not job.data_snapshot:
            job = fetch_first(lease, job)
        bars = fetch_bars(job)
        trained = train(job, bars)
        version = register(lease, job, bars, trained)
        evaluation = backtest(lease, job, bars, trained)
        verdict = judge(lease, version, evaluation)
        files = report(job, version, bars, trained, evaluation, verdict)
        show(version, verdict, files)
    decision = promote_refresh(version)
    outcome = "" if decision is None else f": {decision.sentence}"
    return Completed(
        message=f"{verdict.headline}, {version.model_id} {version.version}{outcome}",
        data=RetrainResult(version, verdict, evaluation.metrics, files, decision),
    )
