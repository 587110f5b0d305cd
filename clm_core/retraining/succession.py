"""Kind of the change that a version would make: a refresh of the champion's recipe, or a replacement."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from clm_core.backtest.agreement import MIN_BARS, rank_correlation
from clm_core.backtest.pools import portfolio
from clm_core.backtest.results import Backtest
from clm_core.backtest.terms import MarketTerms
from clm_core.decisions.cases import RecipeRefresh, RecipeReplacement
from clm_core.domain.errors import CLMError
from clm_core.domain.execution import ExecutionRules
from clm_core.domain.shadows import ShadowRecord
from clm_core.domain.versions import ModelVersion
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.evidence.equal_volatility import compare
from clm_core.evidence.paired import PairedRecord
from clm_core.ledger.executions import version_execution
from clm_core.market.bars import Bars, Floats
from clm_core.market.panel import Panel
from clm_core.models.contract import Model
from clm_core.models.params import series_names
from clm_core.models.pooled import view_of
from clm_core.retraining.recipes import recipe_of
from clm_core.retraining.results import BacktestEvaluation
from clm_core.services import Services

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _Followed:
    """Bars of a market after which two versions were followed: the newest stretch without a hole."""

    bars: Bars
    ours: Floats
    """Recorded position after each bar, shape (n_bars,)."""
    theirs: Floats
    in_time: Mask
    """True for bars after which both positions were recorded before the close of the next bar."""


def succession_of(
    services: Services, version: ModelVersion, evaluation: BacktestEvaluation, agreements: Sequence[float]
) -> RecipeRefresh | RecipeReplacement | None:
    """Kind of the change with its evidence; None without another version in production.

    Args:
        agreements: rank correlations of consecutive folds of the judged seed.
    """
    label = services.ledger.promotions.champion(version.model_id)
    if label is None or label == version.version:
        return None
    champion = services.ledger.version(version.model_id, label)
    if _is_refresh(services, version, champion, evaluation.plan):
        return _refresh(services, version, champion, evaluation, agreements)
    return RecipeReplacement(label, _shadow_record(services, version, champion, _terms(evaluation)))


def _is_refresh(
    services: Services, version: ModelVersion, champion: ModelVersion, plan: WalkForwardPlan
) -> bool:
    """True for two versions of the same recipe; an earlier release recorded a job, no recipe."""
    if version.recipe_digest is None:
        return False
    if champion.recipe_digest is not None:
        return champion.recipe_digest == version.recipe_digest
    job = services.ledger.job(champion.training_job_id)
    try:
        recipe = recipe_of(job, plan, services.settings.execution.rules)
    except CLMError:
        return False
    return recipe.digest == version.recipe_digest


def _refresh(
    services: Services,
    version: ModelVersion,
    champion: ModelVersion,
    evaluation: BacktestEvaluation,
    agreements: Sequence[float],
) -> RecipeRefresh:
    measured = [each for each in agreements if math.isfinite(each)]
    of_folds = min(measured, default=math.nan)
    rows = max(len(evaluation.bars) // max(len(agreements) + 1, 1), MIN_BARS)
    markets = [member.bars for member in evaluation.members] or [evaluation.bars]
    try:
        ours, theirs = (
            np.concatenate([_newest_positions(services, each, bars, rows) for bars in markets])
            for each in (version, champion)
        )
    except CLMError as error:
        return RecipeRefresh(champion.version, math.nan, of_folds, str(error))
    return RecipeRefresh(champion.version, rank_correlation(ours, theirs), of_folds)


def _newest_positions(services: Services, version: ModelVersion, bars: Bars, rows: int) -> Floats:
    """Positions of a registered model on the newest rows, after the whole history before them.

    Raises:
        CLMError: the model does not load, or gives no positions.
    """
    model: Model = view_of(services.registry.load(version.model_path, version.bundle_digest), bars.symbol)
    known = services.market.with_series(bars, series_names(version.params))
    return model.positions(known)[-rows:]


def _terms(evaluation: BacktestEvaluation) -> dict[str, MarketTerms]:
    if evaluation.members:
        return {member.bars.symbol: member.market for member in evaluation.members}
    return {evaluation.bars.symbol: evaluation.market}


def _shadow_record(
    services: Services, version: ModelVersion, champion: ModelVersion, terms: Mapping[str, MarketTerms]
) -> PairedRecord:
    """Differences of the returns in shadow at equal volatility, over the common bars of both records.

    Both are traded from flat under the terms of the market, each with its own execution.
    """
    followed = [_followed(services, version, champion, symbol) for symbol in terms]
    markets = [each for each in followed if each is not None]
    if not markets:
        return PairedRecord()
    rules = services.settings.execution.rules
    results: list[list[tuple[Bars, Backtest]]] = []
    for each in (version, champion):
        own = version_execution(services.ledger, each, rules)
        results.append([_traded(market, terms, own, each is version) for market in markets])
    if len(terms) == 1:
        axis = markets[0].bars
        ours, theirs = (each[0][1].returns for each in results)
    else:
        axis = Panel(version.symbol, tuple(market.bars for market in markets)).index_bars()
        ours, theirs = (portfolio(axis, each, 1.0, members=len(terms)).returns for each in results)
    return compare(ours, theirs, axis.periods_per_year, _earned_in_time(axis, markets))


def _traded(
    market: _Followed, terms: Mapping[str, MarketTerms], rules: ExecutionRules, is_ours: bool
) -> tuple[Bars, Backtest]:
    positions = market.ours if is_ours else market.theirs
    return market.bars, terms[market.bars.symbol].under(rules).backtest(market.bars, positions)


def _followed(
    services: Services, version: ModelVersion, champion: ModelVersion, symbol: str
) -> _Followed | None:
    """Common record of two versions in a market; None without a common bar."""
    since = max(version.created_at, champion.created_at)
    now = services.clock()
    bars = services.market.bars(symbol, version.timeframe, closed_by=now)
    bars = bars[bars.row_closed_after(since) :]
    if not len(bars):
        return None
    ours, theirs = (_recorded(services, each, bars, symbol) for each in (version, champion))
    both = np.isin(bars.time, ours.time) & np.isin(bars.time, theirs.time)
    # bars corrected or filled in later may have no record: the newest stretch counts
    first = int(np.flatnonzero(~both)[-1]) + 1 if not both.all() else 0
    bars = bars[first:]
    if not len(bars):
        return None
    rows = [np.searchsorted(record.time, bars.time) for record in (ours, theirs)]
    closes = bars.time + 2 * bars.timeframe.nanoseconds
    in_time = (ours.recorded[rows[0]] <= closes) & (theirs.recorded[rows[1]] <= closes)
    return _Followed(bars, ours.position[rows[0]], theirs.position[rows[1]], in_time)


def _recorded(services: Services, version: ModelVersion, bars: Bars, symbol: str) -> ShadowRecord:
    first: datetime = bars.start.to_pydatetime()
    member = "" if symbol == version.symbol else symbol
    return services.ledger.shadows.recorded(version.model_id, version.version, first, member)


def _earned_in_time(axis: Bars, markets: Sequence[_Followed]) -> Mask:
    """True for bars whose positions, of the bar before, were recorded in time in every market."""
    counted = np.ones(len(axis), dtype=np.bool_)
    for market in markets:
        earned = np.concatenate([[False], market.in_time[:-1]])
        counted[np.searchsorted(axis.time, market.bars.time[~earned])] = False
    return counted
