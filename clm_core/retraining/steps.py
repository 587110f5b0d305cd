"""The steps of a retrain, one function each; the flow runs them as tasks, a test as plain calls."""

import contextlib
import math
import os
import platform
import shutil
import socket
import subprocess
import uuid
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import cache
from importlib.metadata import version as installed_version
from pathlib import Path
from uuid import UUID

import numpy as np

from clm_core.backtest.engine import backtest
from clm_core.backtest.metrics import summarise
from clm_core.backtest.results import Backtest, Metrics
from clm_core.backtest.tearsheet import TearSheet, equity_png, render
from clm_core.decisions import gate
from clm_core.domain.errors import LeaseLost, NotFound, RegistryUnavailable
from clm_core.domain.evaluations import Decision, EvaluationResult, Verdict
from clm_core.domain.faults import Fault, crash_at
from clm_core.domain.jobs import Lease, RetrainRequest, TrainingJob
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import JobStatus, ModelStatus
from clm_core.ledger.leases import heartbeat
from clm_core.market.bars import Bars, Floats
from clm_core.models import catalog
from clm_core.models.bundle import read_card
from clm_core.models.ensemble import readable
from clm_core.platform import stack_state
from clm_core.retraining import training
from clm_core.retraining.case import case_of, count_trials_of
from clm_core.retraining.ensembles import fetch_members, resolved
from clm_core.retraining.training import TrainingResult, TrainingSpec
from clm_core.services import Services

STATUSES = {
    Decision.PASS: ModelStatus.CANDIDATE,
    Decision.INCONCLUSIVE: ModelStatus.SHADOW,
    Decision.FAIL: ModelStatus.FAILED,
}
"""What a version becomes when it is judged."""
KEY = "key"
"""File beside the results of a training: what they depend on."""
LOST = "lost its lease"
"""Why a job failed whose process gave no sign of life."""


@dataclass(frozen=True)
class BacktestEvaluation:
    """A backtest over the out-of-sample bars, after costs, beside holding the market over the same bars."""

    bars: Bars
    positions: Floats
    """Wanted after each of the bars, shape (n_bars,)."""
    judged: int
    """Which seed's results these are, from 0."""
    seed_sharpes: tuple[float, ...]
    """Annualised Sharpe ratio with each seed, ascending."""
    result: Backtest
    metrics: Metrics
    buy_and_hold: Backtest
    buy_and_hold_metrics: Metrics


@dataclass(frozen=True)
class TearSheetFiles:
    """The tear sheet and its gist as a picture."""

    html: Path
    equity_png: bytes


@dataclass(frozen=True)
class RetrainResult:
    """What a retrain ends with."""

    version: ModelVersion
    verdict: Verdict
    metrics: Metrics
    buy_and_hold: Metrics
    report: TearSheetFiles


def new_job(services: Services, request: RetrainRequest) -> TrainingJob:
    """What the request would become; bad parameters are refused before anything is loaded.

    Raises:
        InvalidTrainingParams: a parameter is unknown or out of range.
        UnknownSeries: no source has these bars.
        NotFound: a member of an ensemble does not exist.
    """
    catalog.recipe(request.model_type, request.training_params, services.settings.costs, request.plugin)
    now = services.clock()
    known = services.market.newest(request.symbol, request.timeframe)
    # read once already: a damaged file, or a series without a closed bar, is refused before there is a job
    services.market.bars(known.symbol, known.timeframe, content_hash=known.content_hash, closed_by=now)
    named = request.model_copy(update={"symbol": known.symbol, "timeframe": known.timeframe.value})
    asked = resolved(services.ledger, named).model_dump() | {"data_snapshot": known.content_hash}
    return TrainingJob(id=uuid.uuid4(), created_at=now, **asked)


def open_job(services: Services, request: RetrainRequest) -> TrainingJob:
    """Record a job past the door.

    Jobs that died are ended first: no retrain finds one in progress that nobody runs.
    """
    job = new_job(services, request)
    reap_dead_jobs(services)
    services.ledger.create_job(job)
    _strike(services, Fault.JOB_RECORDED)
    return job


@contextlib.contextmanager
def running(services: Services, job: TrainingJob) -> Iterator[Lease]:
    """The job is in progress inside the block; it ends completed, or failed with the error as its cause.

    Its lease, which the block writes with, is renewed until then. A block that has lost it ends with
    LeaseLost at its next write and changes nothing any more.
    """
    length = _lease_length(services)
    lease = services.ledger.start_job(job.id, _process(), services.clock(), length)
    _strike(services, Fault.JOB_STARTED)
    with heartbeat(lambda: services.ledger.renew_lease(lease, services.clock(), length), length / 3):
        try:
            try:
                yield lease
            except BaseException:
                _put_by(services, job)
                raise
            _clear(services, job.id)
        except LeaseLost:
            # what it has stored in MLflow since then is in nobody's ledger
            services.registry.abandon(job.id, LOST)
            raise
        except BaseException as error:
            _fail(services, lease, error)
            raise
        else:
            _strike(services, Fault.FOLDER_REMOVED)
            services.ledger.complete_job(lease, services.clock())
            _strike(services, Fault.COMPLETED)


def reap_dead_jobs(services: Services) -> list[TrainingJob]:
    """End the jobs whose lease ran out as failed; returns them.

    Whoever ran one is dead, or will find itself refused. A sweep that dies on the way is made good by the
    next: the lease it has taken over runs out as well. What a failed job could not close in MLflow, because
    that was away too, is closed now.
    """
    taken = services.ledger.take_over_expired(_process(), services.clock(), _lease_length(services))
    ended = [_end_lost(services, lease) for lease in taken]
    for job_id in services.registry.left_open():
        if _has_failed(services, job_id):
            services.registry.abandon(job_id, "its job failed")
    return ended


def fetch_bars(services: Services, job: TrainingJob) -> Bars:
    """The bars that had closed when the job was created, also when it is resumed or reproduced later."""
    bars = services.market.bars(
        job.symbol, job.timeframe, job.dataset_span_days, job.data_snapshot, closed_by=job.created_at
    )
    _strike(services, Fault.BARS_FETCHED)
    return bars


def train(services: Services, job: TrainingJob, bars: Bars) -> TrainingResult:
    """Walk forward, fit and prove that nothing knows the future; not again when an earlier job of this model
    did the very same before it failed.

    Raises:
        LookAhead: names the feature, or what else does.
        TrainingFailed: it took too long, or its process died.
    """
    order, folder = _order(services, job), _workspace(services, job.id)
    key = training.order_key(order, bars.content_hash)
    if not _resumed(services, job, key):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / KEY).write_text(key)
        fetch_members(services, order.recipe(), folder / training.MEMBERS)
        settings = services.settings.training
        if settings.isolated:
            training.train_in_subprocess(order, bars, folder, services.announce, settings.limit_seconds)
        else:
            training.train(order, bars, folder, services.announce)
    _strike(services, Fault.TRAINED)
    return training.read(folder, bars)


def register(
    services: Services, lease: Lease, job: TrainingJob, bars: Bars, trained: TrainingResult
) -> ModelVersion:
    """Store the bundle as a new version; it stays TRAINING until it is judged."""
    # two that end in the same second would take the same label
    with services.ledger.promotions.lock(job.model_id):
        version = _stored(services, lease, job, bars, trained)
    services.registry.log_results(
        version.mlflow_run_id, {}, {"train.validation_loss": np.asarray(trained.learning_curve)}
    )
    return version


def _stored(
    services: Services, lease: Lease, job: TrainingJob, bars: Bars, trained: TrainingResult
) -> ModelVersion:
    """In MLflow, then in the ledger."""
    now = services.clock()
    shown = readable(job.model_type, trained.params)
    placed = services.registry.register(
        job, trained.bundle, trained.bundle_digest, bars, shown, trained.train_metrics, now
    )
    _strike(services, Fault.VERSION_STORED)
    version = ModelVersion(
        model_id=job.model_id,
        version=placed.label,
        model_type=job.model_type,
        plugin=job.plugin,
        symbol=job.symbol,
        timeframe=job.timeframe,
        status=ModelStatus.TRAINING,
        training_job_id=job.id,
        parent_version=services.ledger.promotions.champion(job.model_id),
        model_path=placed.uri,
        mlflow_version=placed.mlflow_version,
        mlflow_run_id=placed.run_id,
        bundle_digest=trained.bundle_digest,
        package_digest=services.registry.package_digest(job.model_id, placed.mlflow_version),
        data_hash=bars.content_hash,
        code_version=code_version(),
        seed=job.seed,
        params=trained.params,
        environment={"Python": platform.python_version(), **read_card(trained.bundle).libraries},
        train_metrics=trained.train_metrics,
        created_at=now,
    )
    services.ledger.add_version(version, lease)
    _strike(services, Fault.VERSION_RECORDED)
    return version


def evaluate_out_of_sample(
    services: Services, lease: Lease, job: TrainingJob, bars: Bars, trained: TrainingResult
) -> BacktestEvaluation:
    """Look at the unseen bars with every seed; each look is a trial, and counted whatever comes of it."""
    rows = trained.out_of_sample[0].rows
    unseen = bars[rows]
    positions = [tried.positions[rows] for tried in trained.out_of_sample]
    costs, execution = services.settings.costs, services.settings.execution
    results = [backtest(unseen, wanted, costs, execution) for wanted in positions]
    metrics = [summarise(result, bars.periods_per_year) for result in results]
    quantile = services.policy(job.model_id, job.symbol).criteria.seed_quantile
    ranking = sorted(range(len(metrics)), key=lambda seed: _or_worst(metrics[seed].sharpe_ratio))
    judged = ranking[int(quantile * (len(ranking) - 1))]
    # the judged one last: a verdict is about the newest trial of its job
    looks = sorted(enumerate(results), key=lambda look: look[0] == judged)
    count_trials_of(services, lease, job, unseen, looks)
    held = backtest(unseen, np.ones(len(unseen)), costs, execution)
    _strike(services, Fault.EVALUATED)
    return BacktestEvaluation(
        bars=unseen,
        positions=positions[judged],
        judged=judged,
        seed_sharpes=tuple(metrics[seed].sharpe_ratio for seed in ranking),
        result=results[judged],
        metrics=metrics[judged],
        buy_and_hold=held,
        buy_and_hold_metrics=summarise(held, bars.periods_per_year),
    )


def judge(services: Services, lease: Lease, version: ModelVersion, tested: BacktestEvaluation) -> Verdict:
    """Judge and record; a version that passed becomes a CANDIDATE, one that failed FAILED, and one of which
    nobody can tell yet goes into SHADOW."""
    policy = services.policy(version.model_id, version.symbol)
    case = case_of(services, version, tested.bars, tested.positions, tested.result, tested.metrics, policy)
    verdict = gate.judge(case, policy)
    if len(tested.seed_sharpes) > 1:
        verdict = verdict.model_copy(update={"seed_sharpes": tested.seed_sharpes})
    services.ledger.add_evaluation(
        _evaluation(services, version, tested, verdict), verdict, policy, version.bundle_digest, lease
    )
    _strike(services, Fault.EVALUATION_RECORDED)
    services.registry.log_results(
        version.mlflow_run_id,
        {**_numbers(tested.metrics), "promotion_score": verdict.score},
        {"equity": tested.result.equity},
    )
    status = STATUSES[verdict.decision]
    services.ledger.set_version_status(version.model_id, version.version, status, services.clock(), lease)
    _strike(services, Fault.STATUS_RECORDED)
    services.registry.set_status(version.model_id, version.mlflow_version, status, verdict.reasons)
    _strike(services, Fault.JUDGED)
    return verdict


def report(
    services: Services,
    job: TrainingJob,
    version: ModelVersion,
    bars: Bars,
    trained: TrainingResult,
    tested: BacktestEvaluation,
    verdict: Verdict,
) -> TearSheetFiles:
    """Write the tear sheet under the home folder and beside the version's run in MLflow."""
    settings = services.settings
    sheet = TearSheet(
        model_id=version.model_id,
        version=version.version,
        created_at=version.created_at,
        trigger_reason=job.trigger_reason,
        requested_by=job.requested_by,
        bars=tested.bars,
        backtest=tested.result,
        metrics=tested.metrics,
        buy_and_hold=tested.buy_and_hold,
        buy_and_hold_metrics=tested.buy_and_hold_metrics,
        verdict=verdict,
        costs=settings.costs,
        execution=settings.execution,
        params=readable(job.model_type, trained.params),
        importances=trained.importances,
        data_facts=_data_facts(bars),
        folds=trained.out_of_sample[tested.judged].folds,
    )
    folder = services.reports / version.model_id
    folder.mkdir(parents=True, exist_ok=True)
    html, picture = folder / f"{version.version}.html", folder / f"{version.version}.png"
    html.write_text(render(sheet), encoding="utf-8")
    picture.write_bytes(equity_png(sheet))
    services.registry.attach(version.mlflow_run_id, [html, picture], "report")
    _strike(services, Fault.REPORTED)
    return TearSheetFiles(html, picture.read_bytes())


def summary_page(services: Services, version: ModelVersion, verdict: Verdict, report: TearSheetFiles) -> str:
    """Markdown for a run's page: verdict, criteria, equity curve, and where to look further."""
    met = {True: "yes", False: "**no**"}
    rows = [
        f"| {leg.label} | {leg.value:.4g} | {leg.comparison} {leg.limit:,.6g} | {met[leg.passed]} |"
        for leg in verdict.checks
    ]
    return "\n".join(
        [
            f"# {version.model_id} {version.version}: {verdict.decision.value.upper()}",
            "",
            f"Score {verdict.score:.1f} of 100, out of sample, after costs, by the policy {verdict.policy}.",
            "",
            *(f"- {reason}" for reason in (*verdict.reasons, *verdict.warnings, *spread(verdict))),
            "",
            "| criterion | measured | required | met |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            f"![equity curve](data:image/png;base64,{b64encode(report.equity_png).decode()})",
            "",
            *_links(services, version, report),
        ]
    )


def beside_champion(services: Services, version: ModelVersion, verdict: Verdict) -> list[dict[str, str]]:
    """A row a condition: what was measured of the version, and of the one that serves when it was judged."""
    champion = services.ledger.promotions.champion(version.model_id)
    theirs = _measured(services, version.model_id, champion)
    return [
        {
            "criterion": leg.label,
            f"{version.version} (challenger)": f"{leg.value:.4g}",
            f"{champion or 'nothing'} (serves)": theirs.get(leg.name, "-"),
            "required": f"{leg.comparison} {leg.limit:,.6g}",
        }
        for leg in verdict.checks
    ]


def _measured(services: Services, model_id: str, version: str | None) -> dict[str, str]:
    if version is None:
        return {}
    try:
        _, verdict = services.ledger.evaluation(model_id, version)
    except NotFound:
        # it came to serve by hand
        return {}
    return {leg.name: f"{leg.value:.4g}" for leg in verdict.checks}


def _links(services: Services, version: ModelVersion, report: TearSheetFiles) -> list[str]:
    """Into MLflow's pages while `clm up` serves them, otherwise to files of this machine."""
    state = stack_state.running(services.settings.home)
    if state is None:
        return [
            f"MLflow: `{version.model_path}`  ",
            f"[Tear sheet]({report.html.as_uri()}) at `{report.html}`",
        ]
    model = f"{state.mlflow_url}/#/models/{version.model_id}"
    sheet = f"get-artifact?path=report/{report.html.name}&run_uuid={version.mlflow_run_id}"
    return [
        f"[This version in MLflow]({model}/versions/{version.mlflow_version}), `{version.model_path}`  ",
        f"[All versions, and which one serves]({model})  ",
        f"[Tear sheet]({state.mlflow_url}/{sheet}) to download, also at `{report.html}`",
    ]


def spread(verdict: Verdict) -> tuple[str, ...]:
    """How much the seed decides, in words; nothing where there was one."""
    if not verdict.seed_sharpes:
        return ()
    low, high = verdict.seed_sharpes[0], verdict.seed_sharpes[-1]
    judged = next(leg.value for leg in verdict.checks if leg.name == "sharpe_ratio")
    count = len(verdict.seed_sharpes)
    return (f"with {count} seeds the Sharpe ratio is {low:.2f} to {high:.2f}; judged is {judged:.2f}",)


def code_version() -> str:
    """The installed release, with the git commit when it runs from a checkout."""
    release = installed_version("continuous-learning-manager")
    commit = _commit()
    return f"{release}+{commit}" if commit else release


@cache
def _commit() -> str:
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return ""
    with contextlib.suppress(OSError):
        answer = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
        )
        return answer.stdout.strip()
    return ""


def _fail(services: Services, lease: Lease, error: BaseException) -> None:
    cause = f"{type(error).__name__}: {error}"
    services.ledger.fail_job(lease, cause, services.clock())
    # last, and whether it works or not: MLflow may be what failed; then a later sweep does it
    with contextlib.suppress(RegistryUnavailable):
        services.registry.abandon(lease.job_id, f"its job failed: {cause}")


def _end_lost(services: Services, lease: Lease) -> TrainingJob:
    services.registry.abandon(lease.job_id, LOST)
    _put_by(services, services.ledger.job(lease.job_id))
    return services.ledger.fail_job(lease, LOST, services.clock())


def _has_failed(services: Services, job_id: UUID) -> bool:
    with contextlib.suppress(NotFound):
        return services.ledger.job(job_id).status is JobStatus.FAILED
    # another installation's, with the same MLflow
    return False


def _lease_length(services: Services) -> timedelta:
    return timedelta(seconds=services.settings.lease_seconds)


def _process() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _workspace(services: Services, job_id: UUID) -> Path:
    return services.work / str(job_id)


def _clear(services: Services, job_id: UUID) -> None:
    """First of all at a job's end: nobody looks for the files of one that has ended."""
    shutil.rmtree(_workspace(services, job_id), ignore_errors=True)


def _kept(services: Services, model_id: str) -> Path:
    """Where the training of this model's last job that failed after it lies."""
    return services.work / "trained" / model_id


def _put_by(services: Services, job: TrainingJob) -> None:
    """What a failing job has trained, for the next that is asked for the same."""
    folder, kept = _workspace(services, job.id), _kept(services, job.model_id)
    if training.is_complete(folder):
        shutil.rmtree(kept, ignore_errors=True)
        kept.parent.mkdir(exist_ok=True)
        # another job of this model may have put its own there in between: one of them is enough
        with contextlib.suppress(OSError):
            folder.rename(kept)
    _clear(services, job.id)


def _resumed(services: Services, job: TrainingJob, key: str) -> bool:
    """Whether the job has taken over what an earlier one had trained."""
    folder, kept = _workspace(services, job.id), _kept(services, job.model_id)
    # moved before it is looked at: of two jobs one gets it
    with contextlib.suppress(OSError):
        kept.rename(folder)
        if (folder / KEY).read_text() == key and training.is_complete(folder):
            services.announce("Trained before", 1.0)
            return True
    _clear(services, job.id)
    return False


def _strike(services: Services, point: Fault) -> None:
    crash_at(point, services.settings.fault)


def _order(services: Services, job: TrainingJob) -> TrainingSpec:
    plan = services.settings.walk_forward
    recipe = catalog.recipe(job.model_type, job.training_params, services.settings.costs, job.plugin)
    return TrainingSpec(
        model_type=job.model_type,
        plugin=job.plugin,
        params=job.training_params,
        costs=services.settings.costs,
        seed=job.seed,
        seeds=plan.seeds or catalog.seeds(recipe),
        plan=plan,
    )


def _or_worst(ratio: float) -> float:
    return ratio if math.isfinite(ratio) else -math.inf


def _evaluation(
    services: Services, version: ModelVersion, tested: BacktestEvaluation, verdict: Verdict
) -> EvaluationResult:
    metrics, costs = tested.metrics, services.settings.costs
    return EvaluationResult(
        id=uuid.uuid4(),
        model_id=version.model_id,
        version=version.version,
        sharpe_ratio=metrics.sharpe_ratio,
        sortino_ratio=metrics.sortino_ratio,
        calmar_ratio=metrics.calmar_ratio,
        win_rate=metrics.win_rate,
        profit_factor=metrics.profit_factor,
        max_drawdown=metrics.max_drawdown,
        total_pnl=metrics.total_return,
        trades=metrics.trades,
        period_start=tested.bars.start.to_pydatetime(),
        period_end=tested.bars.end.to_pydatetime(),
        fee_bps=costs.fee_bps,
        slippage_bps=costs.slippage_bps,
        passed=verdict.passed,
        promotion_score=verdict.score,
        failure_reason="; ".join(verdict.reasons) or None,
        created_at=services.clock(),
    )


def _data_facts(bars: Bars) -> dict[str, str]:
    gaps = bars.gaps
    return {
        "series": f"{bars.symbol} {bars.timeframe}, calendar {bars.calendar}",
        "bars": f"{len(bars):,}",
        "range": f"{bars.start:%Y-%m-%d %H:%M} to {bars.end:%Y-%m-%d %H:%M} UTC",
        "gaps": f"{len(gaps)} ({sum(gap.missing for gap in gaps)} bars missing, none filled)",
        "content hash": bars.content_hash,
    }


def _numbers(metrics: Metrics) -> dict[str, float]:
    return {name: float(value) for name, value in asdict(metrics).items()}
