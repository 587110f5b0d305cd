"""Steps of a retrain, one function each; the flow runs the steps as tasks, a test as plain calls."""

import math
import platform
import uuid
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from functools import partial

import numpy as np
from numpy.typing import NDArray

from clm_core.backtest import chart_library
from clm_core.backtest.results import Metrics
from clm_core.backtest.tearsheet import TearSheet, by_regime, equity_png, render
from clm_core.domain.costs import MarketCosts
from clm_core.domain.displayed_params import readable
from clm_core.domain.evaluations import Decision, EvaluationResult, Verdict
from clm_core.domain.execution import FIXED_UNITS, ExecutionRules
from clm_core.domain.faults import Fault, crash_at
from clm_core.domain.jobs import Lease, TrainingJob
from clm_core.domain.recipes import RecipeIdentity
from clm_core.domain.stored_evidence import StoredEvidence
from clm_core.domain.terms import EvaluationTerms, cost_sentence
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.evidence.soundness import skill_of
from clm_core.explain.validation import validation_metrics
from clm_core.market.bars import Bars
from clm_core.market.panel import Panel
from clm_core.market.regimes import regimes
from clm_core.models import activity, catalog
from clm_core.models.bundle import read_card
from clm_core.models.contract import ModelCard
from clm_core.platform import tracing
from clm_core.platform.tracing import traced
from clm_core.registry.mlflow_registry import Registered
from clm_core.retraining import bars_age, case, folds, pools, recipe_record, resume, training, training_places
from clm_core.retraining.code_version import code_digest, code_version
from clm_core.retraining.ensembles import fetch_members
from clm_core.retraining.evaluation import (
    SeedBacktests,
    backtest_seeds,
    baseline_sizer,
    evaluation_of,
)
from clm_core.retraining.explaining import cone_of_evaluation, explanation_file, explanation_of, with_history
from clm_core.retraining.fold_cache import FoldCache
from clm_core.retraining.forecasts import forecasts_of
from clm_core.retraining.judging import market_terms, recorded_terms, settle_costs, verdict_on
from clm_core.retraining.plans import plan_of
from clm_core.retraining.recipes import recipe_of
from clm_core.retraining.results import BacktestEvaluation, FittedModel, TearSheetFiles
from clm_core.retraining.stored_evidence import pack
from clm_core.retraining.training import TrainingResult, TrainingSpec
from clm_core.retraining.training_following import TrainingTask
from clm_core.services import Services

STATUS_AFTER_DECISION = {
    Decision.PASS: ModelStatus.CANDIDATE,
    Decision.INCONCLUSIVE: ModelStatus.SHADOW,
    Decision.FAIL: ModelStatus.FAILED,
}
"""Status of a version after the gate's decision."""


@traced("bars")
def fetch_bars(services: Services, job: TrainingJob) -> Bars | Panel:
    """Bars and own series of the job's data snapshot by the job's creation, also for a later reproduction;
    those of all members of a pool."""
    bars = pools.bars_of(services, job)
    crash_at(Fault.BARS_FETCHED, services.settings.fault)
    return bars


@traced("training")
def train(services: Services, job: TrainingJob, bars: Bars | Panel) -> TrainingResult:
    """Walk forward, fit the final model and test for leaks.

    Results of an earlier job of the model are taken over if the earlier job did exactly the same training and
    failed afterwards.

    Raises:
        LookAhead: a feature or the model uses future bars; the message names the culprit.
        TrainingFailed: the training exceeded its time limit, or its process or pod died.
    """
    settings = services.settings
    costs = training_costs(services, bars)
    spec = training_spec(job, plan_of(settings.walk_forward, job, bars), costs, settings.execution.rules)
    key = training.results_key(spec, bars.content_hash)
    stored = None if services.replayed is None else services.replayed.trainings / key
    if resume.take_over_training(services.work, job, key) or (
        stored is not None and resume.copy_training(stored, services.work, job.id)
    ):
        services.announce("Reusing the earlier training", 1.0)
    else:
        folder = resume.start_workspace(services.work, job.id, key)
        fetch_members(services.ledger, services.registry, spec.recipe(), folder / training.MEMBERS)
        max_mib = settings.training.fold_cache_mib
        cache = FoldCache(services.folds, max_mib) if max_mib else None
        task = TrainingTask(str(job.id), spec, bars, folder, cache)
        with tracing.steps(services.announce) as announce:
            training_places.run(task, settings.training, announce)
        if stored is not None:
            resume.store_training(stored, services.work, job.id)
    crash_at(Fault.TRAINED, settings.fault)
    return training.read(resume.workspace(services.work, job.id), bars)


def training_costs(services: Services, bars: Bars | Panel) -> MarketCosts:
    """Constant costs of the market; of a pool, the highest of each cost of the members."""
    if isinstance(bars, Panel):
        terms = pools.member_terms(services, bars)
        return pools.dearest([each.terms for each in terms.values()]).market_costs
    return services.terms(bars.symbol, bars.calendar).terms.market_costs


@traced("registration")
def register(
    services: Services, lease: Lease, job: TrainingJob, bars: Bars | Panel, trained: TrainingResult
) -> ModelVersion:
    """Store the bundle as a new version, in MLflow and then in the ledger.

    The version keeps the status TRAINING until the gate has judged the version.
    """
    ledger = services.ledger
    registry = services.registry
    now = services.clock()
    params = readable(job.model_type, trained.params)
    # until the ledger has the version: two versions registered within a second would take the same label
    with ledger.labels.reserved(job.model_id, now, partial(taken_labels, services, job.model_id)) as label:
        registered = registry.register(
            job,
            trained.bundle,
            trained.bundle_digest,
            bars,
            params,
            trained.train_metrics,
            label,
            above=max(ledger.promotions.numbers(job.model_id).values(), default=0),
            learning_curve=trained.learning_curve,
        )
        crash_at(Fault.VERSION_STORED, services.settings.fault)
        parent = ledger.promotions.champion(job.model_id)
        recipe = recipe_of(job, trained.plan, services.settings.execution.rules)
        version = _model_version(job, bars, trained, registered, recipe, parent, now)
        ledger.add_version(version, lease)
        tracing.annotate(version=version.version)
        crash_at(Fault.VERSION_RECORDED, services.settings.fault)
    return version


def taken_labels(services: Services, model_id: str) -> set[str]:
    """Labels of a model's versions, those deleted in MLflow included."""
    return services.registry.labels(model_id) | services.ledger.promotions.numbers(model_id).keys()


@traced("backtest")
def evaluate_out_of_sample(
    services: Services, lease: Lease, job: TrainingJob, bars: Bars | Panel, trained: TrainingResult
) -> BacktestEvaluation:
    """Backtest the recipe's record, up to the newest bar, with every seed; each backtest counts as a trial,
    whatever its result. Baselines of a version without sizing are sized by default.

    The seed judged stands at the policy's `seed_quantile` of the seeds, ranked by Sharpe ratio. A pool is
    judged by its equal-risk portfolio; the backtest of each member counts as a trial of the member's market.
    """
    rules = catalog.version_execution(trained.params, services.settings.execution.rules)
    record = recipe_record.extended(services, job, bars, trained)
    walked = bars
    bars = record.bars
    runs = record.runs
    terms = market_terms(services.terms, bars, rules)
    quantile = services.policy(job.model_id, job.symbol).criteria.seed_quantile
    backtests = backtest_seeds(bars, runs, terms, quantile)
    _count_trials(services, lease, job, backtests)
    evaluation = evaluation_of(backtests, bars, runs, terms, baseline_sizer(trained.params), trained.plan)
    evaluation = replace(
        evaluation,
        fitted=_fitted(evaluation, trained),
        record=record.facts,
        forecasts=forecasts_of(job, walked, trained, evaluation.judged_seed),
    )
    crash_at(Fault.EVALUATED, services.settings.fault)
    return evaluation


def _fitted(evaluation: BacktestEvaluation, trained: TrainingResult) -> FittedModel:
    run = trained.out_of_sample[evaluation.judged_seed]
    return FittedModel(
        activity=activity.read(trained.bundle),
        skill=skill_of(trained.train_metrics),
        folds=folds.summaries(evaluation.result, evaluation.bars, run.folds),
    )


def _count_trials(services: Services, lease: Lease, job: TrainingJob, backtests: SeedBacktests) -> None:
    """Count the backtest of every seed; of a pool, those of the members in their markets as well."""
    now = services.clock()
    looks = pools.record_looks(services.ledger, lease, job, list(enumerate(backtests.members)), now)
    # the judged seed last: a verdict refers to the newest trial of its job
    ordered = sorted(enumerate(backtests.results), key=lambda pair: pair[0] == backtests.judged)
    at = now + timedelta(microseconds=looks)
    case.record_trials(services.ledger, lease, job, backtests.axis, ordered, at)


@traced("gate")
def judge(services: Services, lease: Lease, version: ModelVersion, evaluation: BacktestEvaluation) -> Verdict:
    """Judge the version, and record the verdict and the new status.

    PASS makes the version a CANDIDATE, FAIL makes the version FAILED, INCONCLUSIVE sends it into SHADOW.
    """
    ledger = services.ledger
    registry = services.registry
    settings = services.settings
    policy = services.policy(version.model_id, version.symbol)
    settle_costs(services, [each.symbol for each in evaluation.runs.markets], evaluation.bars.calendar)
    verdict = verdict_on(services, version, evaluation, policy)
    old_bars = bars_age.warnings_of(evaluation, services.clock(), settings.watch.stale_bars)
    verdict = verdict.model_copy(update={"warnings": (*old_bars, *verdict.warnings)})
    terms = recorded_terms(evaluation, evaluation.plan)
    record = _evaluation_record(version, evaluation, verdict, terms, services.clock())
    evidence = StoredEvidence(pack(evaluation.runs), version.data_hash, code_digest())
    markets = 1 if verdict.luck is None else verdict.luck.markets or 1
    policy = policy.within_fleet(markets)
    validation = validation_metrics(evaluation.metrics, evaluation.forecasts)
    ledger.add_evaluation(record, verdict, policy, version.bundle_digest, lease, evidence, validation)
    crash_at(Fault.EVALUATION_RECORDED, settings.fault)
    registry.log_results(
        version.mlflow_run_id,
        {**_numbers(evaluation.metrics), **validation, "promotion_score": verdict.score},
        {"equity": evaluation.result.equity},
        _terms_of_run(record),
    )
    tracing.annotate(version=version.version, decision=verdict.decision.value, score=verdict.score)
    status = STATUS_AFTER_DECISION[verdict.decision]
    ledger.set_version_status(version.model_id, version.version, status, services.clock(), lease)
    crash_at(Fault.STATUS_RECORDED, settings.fault)
    registry.set_status(
        version.model_id, version.mlflow_version, status, verdict.headline, services.clock(), verdict
    )
    crash_at(Fault.JUDGED, settings.fault)
    return verdict


@traced("report")
def report(
    services: Services,
    job: TrainingJob,
    version: ModelVersion,
    bars: Bars | Panel,
    trained: TrainingResult,
    evaluation: BacktestEvaluation,
    verdict: Verdict,
) -> TearSheetFiles:
    """Write tear sheet and explanation into the home folder, and attach both to the version's run in
    MLflow."""
    settings = services.settings
    regime = _regime_at_open(services, job, evaluation.bars)
    explained = explanation_of(version, bars, trained, evaluation, regime)
    explanation = with_history(services.reports, explained).with_sections(
        [cone_of_evaluation(evaluation, verdict)]
    )
    sheet = TearSheet(
        model_id=version.model_id,
        version=version.version,
        created_at=version.created_at,
        trigger_reason=job.trigger_reason,
        requested_by=job.requested_by,
        bars=evaluation.bars,
        backtest=evaluation.result,
        metrics=evaluation.metrics,
        baselines=evaluation.baselines,
        verdict=verdict,
        terms=evaluation.market.terms,
        terms_digest=recorded_terms(evaluation, evaluation.plan).digest,
        params=readable(job.model_type, trained.params) | _chosen_horizon(trained, evaluation.judged_seed),
        importances=trained.importances,
        data_facts=_data_facts(bars)
        | bars_age.facts_of(bars, version.created_at, settings.watch.stale_bars)
        | _record_facts(verdict),
        folds=trained.out_of_sample[evaluation.judged_seed].folds,
        regime=regime,
        sections=explanation.sections,
    )
    folder = services.reports / version.model_id
    folder.mkdir(parents=True, exist_ok=True)
    chart_library.write_library(services.reports)
    html = folder / f"{version.version}.html"
    picture = folder / f"{version.version}.png"
    stored = explanation_file(services.reports, version.model_id, version.version)
    for file in (html, picture, stored):
        # those of an interrupted run may share their content with files in MLflow
        file.unlink(missing_ok=True)
    html.write_text(render(sheet), encoding="utf-8")
    picture.write_bytes(equity_png(sheet))
    stored.write_text(explanation.model_dump_json(), encoding="utf-8")
    services.registry.attach(version.mlflow_run_id, [html, picture, stored], "report")
    crash_at(Fault.REPORTED, settings.fault)
    return TearSheetFiles(html, picture.read_bytes(), tuple(by_regime(sheet)))


def _regime_at_open(services: Services, job: TrainingJob, unseen: Bars) -> NDArray[np.int8] | None:
    """Regime known at the open of each out-of-sample bar, by the whole series; None for a pool."""
    if job.symbols:
        return None
    return regimes(pools.whole_bars_of_market(services, job)).days.known_at(unseen.time)


def _chosen_horizon(trained: TrainingResult, judged_seed: int) -> dict[str, str]:
    """Line of the tear sheet for horizon=auto: the horizons the fits chose, and what they cost."""
    if trained.params.get("horizon") != "auto":
        return {}
    folds = trained.out_of_sample[judged_seed].folds
    horizons = [f"{fold.train_metrics['horizon']:g}" for fold in folds]
    share = trained.train_metrics.get("round_trip_share_of_move", math.inf)
    return {
        "horizon chosen by cost": f"{trained.train_metrics['horizon']:g} bars, over which a round trip costs "
        f"{100 * share:.1f} % of the mean absolute move; in the folds {', '.join(horizons)}"
    }


def training_spec(
    job: TrainingJob,
    plan: WalkForwardPlan,
    costs: MarketCosts,
    execution: ExecutionRules = FIXED_UNITS,
) -> TrainingSpec:
    """The training that a job asks for, under the installation's plan and the market's costs.

    Args:
        execution: rules of the installation, for a job opened before rules belonged to a version.
    """
    params = catalog.stored_params(job.model_type, job.training_params, job.plugin, execution)
    recipe = catalog.recipe(job.model_type, params, costs, job.plugin)
    return TrainingSpec(
        model_type=job.model_type,
        plugin=job.plugin,
        params=params,
        costs=costs,
        seed=job.seed,
        seeds=plan.seeds or catalog.seeds(recipe),
        plan=plan,
    )


def _model_version(
    job: TrainingJob,
    bars: Bars | Panel,
    trained: TrainingResult,
    registered: Registered,
    recipe: RecipeIdentity,
    parent: str | None,
    now: datetime,
) -> ModelVersion:
    """The ledger's record of a version stored in MLflow.

    Args:
        parent: label of the champion at this moment, if any.
    """
    return ModelVersion(
        model_id=job.model_id,
        version=registered.label,
        model_type=job.model_type,
        plugin=job.plugin,
        symbol=job.symbol,
        timeframe=job.timeframe,
        status=ModelStatus.TRAINING,
        training_job_id=job.id,
        parent_version=parent,
        model_path=registered.uri,
        mlflow_version=registered.mlflow_version,
        mlflow_run_id=registered.run_id,
        bundle_digest=trained.bundle_digest,
        package_digest=registered.package_digest,
        data_hash=bars.content_hash,
        code_version=code_version(),
        recipe_digest=recipe.digest,
        seed=job.seed,
        params=trained.params,
        environment=_environment(read_card(trained.bundle)),
        train_metrics=trained.train_metrics,
        created_at=now,
    )


def _environment(card: ModelCard) -> dict[str, str]:
    """Versions of Python and the libraries, and the digests of own features."""
    own = {f"feature {each.name}": f"{each.source} {each.digest[:12]}" for each in card.own_features}
    return {"Python": platform.python_version(), **card.libraries, **own}


def _evaluation_record(
    version: ModelVersion,
    evaluation: BacktestEvaluation,
    verdict: Verdict,
    terms: EvaluationTerms,
    now: datetime,
) -> EvaluationResult:
    metrics = evaluation.metrics
    bars = evaluation.bars
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
        period_start=bars.start.to_pydatetime(),
        period_end=bars.end.to_pydatetime(),
        fee_bps=terms.costs.fee_bps,
        slippage_bps=terms.costs.slippage_bps,
        terms=terms,
        terms_digest=terms.digest,
        passed=verdict.passed,
        promotion_score=verdict.score,
        failure_reason="; ".join(verdict.reasons) or None,
        created_at=now,
    )


def _terms_of_run(record: EvaluationResult) -> dict[str, str]:
    """Terms of an evaluation as tags of the run in MLflow."""
    assert record.terms is not None
    return {
        "clm.terms_digest": str(record.terms_digest),
        "clm.costs": cost_sentence(record.terms),
        "clm.terms": record.terms.model_dump_json(),
    }


def _record_facts(verdict: Verdict) -> dict[str, str]:
    return {} if verdict.record is None else {"record of the recipe": verdict.record.sentence}


def _data_facts(bars: Bars | Panel) -> dict[str, str]:
    if isinstance(bars, Panel):
        return _pool_facts(bars)
    gaps = bars.gaps
    return {
        "series": f"{bars.symbol} {bars.timeframe}, calendar {bars.calendar}",
        "bars": f"{len(bars):,}",
        "range": _range(bars),
        "gaps": f"{len(gaps)} ({sum(gap.missing for gap in gaps)} bars missing, none filled; "
        f"{bars.bridged.sum()} carried through)",
        "bars a year": f"{bars.periods_per_year:,.0f}",
        "content hash": bars.content_hash,
    }


def _pool_facts(panel: Panel) -> dict[str, str]:
    members = {
        f"bars of {bars.symbol}": f"{len(bars):,}, {_range(bars)}, {len(bars.gaps)} gaps, content hash "
        f"{bars.content_hash[:12]}"
        for bars in panel
    }
    return {
        "pool": f"{panel.name}: {', '.join(panel.symbols)} {panel.timeframe}, calendar {panel.calendar}",
        **members,
        "moments": f"{len(panel.time):,} with a bar of any member",
        "content hash": panel.content_hash,
    }


def _range(bars: Bars) -> str:
    return f"{bars.start:%Y-%m-%d %H:%M} to {bars.end:%Y-%m-%d %H:%M} UTC"


def _numbers(metrics: Metrics) -> dict[str, float]:
    return {name: float(value) for name, value in asdict(metrics).items()}
