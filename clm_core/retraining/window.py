"""Evidence window of a training: stated in the terminal, in the run's log and in the API's answer."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from clm_core.backtest.walk_forward import days_to_walk, fold_rows
from clm_core.decisions import evidence_window as windows
from clm_core.domain.costs import Costs
from clm_core.domain.errors import NotEnoughBars, UnknownSeries
from clm_core.domain.evidence_window import EvidenceWindow, ShortTraining
from clm_core.domain.jobs import RetrainRequest, TrainingJob
from clm_core.domain.kinds import Kind
from clm_core.domain.spellings import default_span_days
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.evidence.trials import DAY, TrialCount
from clm_core.market.bars import Bars
from clm_core.market.panel import Panel
from clm_core.models import catalog
from clm_core.models.contract import Recipe, StatesBarsToFit
from clm_core.models.sizing import unsized_recipe
from clm_core.retraining import pools, recipe_record, steps
from clm_core.retraining.counted_trials import counted_trials
from clm_core.retraining.plans import plan_of
from clm_core.services import Services


def evidence_window(services: Services, request: RetrainRequest) -> EvidenceWindow | None:
    """Window of the bars that the request would be trained on now; None if the policy asks for no evidence,
    and for a market whose bars the run fetches first.

    Raises:
        UnknownSeries: no source has the requested bars.
    """
    request = pools.resolve(services, request)
    if request.symbols:
        return window_of_bars(services, request, pools.newest_panel(services, request).index_bars())
    try:
        bars = services.market.bars(
            request.symbol, request.timeframe, request.dataset_span_days, closed_by=services.clock()
        )
    except UnknownSeries:
        if services.settings.fetched_market(request.symbol, request.timeframe) is None:
            raise
        return None
    canonical = request.model_copy(update={"symbol": bars.symbol, "timeframe": bars.timeframe.value})
    return window_of_bars(services, canonical, bars)


def window_of_job(services: Services, job: TrainingJob) -> EvidenceWindow | None:
    """Window of the bars and trials that a job was created with, the same whenever asked under one policy;
    None if the policy asks for no evidence, and before the run has fetched the first bars of the market.

    Raises:
        UnknownSeries: the bars of the job no longer exist.
    """
    if not job.data_snapshot:
        return None
    bars = steps.fetch_bars(services, job)
    return window_of_bars(services, job, bars.index_bars() if isinstance(bars, Panel) else bars)


def window_of_bars(
    services: Services, training: RetrainRequest | TrainingJob, bars: Bars
) -> EvidenceWindow | None:
    """Window of the bars of a training; None if the policy asks for no evidence.

    Args:
        training: request or job with the canonical names of the market; trials count up to a job's creation.
        bars: bars of the training, at least one; of a pool, those of the common axis.
    """
    levels = services.policy(training.model_id, training.symbol).evidence
    if levels is None:
        return None
    until = training.created_at if isinstance(training, TrainingJob) else None
    market = (training.symbol, training.timeframe, training.symbols)
    recipe = (Kind(training.model_type, training.plugin), training.training_params)
    trials = trials_so_far(services, market, levels.fewest_trials, until, recipe)
    plan = plan_of(services.settings.walk_forward, training, bars)
    nanoseconds = int(bars.time[-1] - bars.time[0]) + bars.timeframe.nanoseconds
    days = max(round(nanoseconds / DAY), 1)
    return windows.evidence_window(
        days=days,
        requested_days=training.dataset_span_days,
        longer_days=max(training.dataset_span_days, default_span_days(training.timeframe)),
        bars_per_day=len(bars) / days,
        out_of_sample=windows.tested_share(bars.time, plan),
        trials=trials,
        levels=levels,
        record=_record_days(services, training, bars) if isinstance(training, TrainingJob) else None,
        too_short=None
        if training.symbols
        else _too_short(plan, _recipe(services, training, bars), str(training.kind), bars),
    )


def trials_so_far(
    services: Services,
    market: tuple[str, str, tuple[str, ...]],
    fewest_trials: float,
    until: datetime | None = None,
    recipe: tuple[Kind, Mapping[str, Any]] | None = None,
) -> TrialCount:
    """Trials of a market or pool counted so far.

    Args:
        market: canonical symbol or pool, bar length, and symbols of the pool.
        fewest_trials: minimum of the policy.
        until: latest time of a counted trial; None counts all.
        recipe: kind and training parameters, whose searches for strategies count; None for none.
    """
    symbol, timeframe, members = market
    counted = counted_trials(
        services.ledger,
        services.market,
        symbol,
        timeframe,
        members,
        now=services.clock(),
        until=until,
        recipe=recipe,
    )
    return counted.count(fewest_trials)


def _record_days(services: Services, job: TrainingJob, bars: Bars) -> tuple[int, int] | None:
    """Days of the record before a job, and the days after the first walk-forward."""
    facts = recipe_record.facts_of(services, job, plan_of(services.settings.walk_forward, job, bars))
    if facts is None:
        return None
    end = bars.end.to_pydatetime()
    return max((end - facts.begun).days, 1), max((end - facts.walk_forward_until).days, 0)


def require_trainable_job(services: Services, job: TrainingJob) -> None:
    """Refuse a job that is not recorded yet and cannot be trained on the bars of its market.

    Pools, and markets whose bars the run fetches first, are left to the training.

    Raises:
        NotEnoughBars: names the days to request, where known.
    """
    if job.symbols or not job.data_snapshot:
        return
    bars = services.market.bars(
        job.symbol, job.timeframe, job.dataset_span_days, job.data_snapshot, closed_by=job.created_at
    )
    # without the costs of the market, which change no number of bars
    recipe = catalog.recipe(job.model_type, job.training_params, Costs(), job.plugin)
    require_trainable(services.settings.walk_forward, recipe, job, bars)


def require_trainable(
    installation: WalkForwardPlan, recipe: Recipe, training: RetrainRequest | TrainingJob, bars: Bars
) -> None:
    """Refuse a training whose folds cannot be made, or are too short for a fit of the kind of model.

    Args:
        installation: plan of the settings.
        training: request or job of one market.
        bars: bars of the training, at least one.

    Raises:
        NotEnoughBars: names the days to request, where known.
    """
    plan = plan_of(installation, training, bars)
    short = _too_short(plan, recipe, str(training.kind), bars)
    if short is not None:
        raise NotEnoughBars(f"{bars.symbol} {bars.timeframe} cannot be trained: {short.sentence}")
    fold_rows(bars.time, plan)


def _too_short(plan: WalkForwardPlan, recipe: Recipe, kind: str, bars: Bars) -> ShortTraining | None:
    """Bars missing in the shortest fold; None if the bars suffice, or the needs of the kind are unknown."""
    recipe = unsized_recipe(recipe)
    if not isinstance(recipe, StatesBarsToFit):
        return None
    try:
        train = min((train for train, _ in fold_rows(bars.time, plan)), key=_length)
    except NotEnoughBars:
        train = slice(0, 0)
    trained = _length(train)
    needed = recipe.bars_to_fit(bars[train] if trained else bars)
    if trained >= needed:
        return None
    by_setting = plan.train_bars is not None and plan.train_bars < needed
    return ShortTraining(
        kind=kind,
        bars=trained,
        needed_bars=needed,
        needed_days=None if by_setting else days_to_walk(needed, bars, plan),
    )


def _length(rows: slice) -> int:
    length: int = rows.stop - rows.start
    return length


def _recipe(services: Services, training: RetrainRequest | TrainingJob, bars: Bars) -> Recipe:
    costs = steps.training_costs(services, bars)
    if isinstance(training, TrainingJob):
        plan = plan_of(services.settings.walk_forward, training, bars)
        return steps.training_spec(training, plan, costs, services.settings.execution.rules).recipe()
    return catalog.recipe(training.model_type, training.training_params, costs, training.plugin)
