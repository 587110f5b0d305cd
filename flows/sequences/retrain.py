"""A retrain, step by step: bars in, a judged version out."""

from uuid import UUID

from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.triggers import Answer
from clm_core.platform.prefect_runs import RETRAIN_TAG
from clm_core.retraining import jobs
from clm_core.retraining.results import RetrainResult
from clm_core.services import services
from flows.sequences.ended import Ended
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


def retrain(request: RetrainRequest, job_id: UUID | None = None) -> Ended[RetrainResult | Answer]:
    tag_run(RETRAIN_TAG, request.model_id, str(request.kind), request.trigger_reason.value)
    job = open_job(request, job_id)
    if isinstance(job, Answer):
        return Ended(job.sentence, job)
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
    return Ended(
        f"{verdict.headline}, {version.model_id} {version.version}{outcome}",
        RetrainResult(version, verdict, evaluation.metrics, files, decision),
    )
