"""Recorded positions of a recipe under shadow testing, over successive versions, and the returns.

A version belongs to the record from the registration on, until the next version of the recipe took over; a
production version from the promotion on. Bars without a recorded position are traded flat. Only a bar earned
on a position recorded before the bar's close is evidence.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clm_core.backtest.pools import portfolio
from clm_core.backtest.results import Backtest, ExitReason
from clm_core.backtest.terms import MarketTerms
from clm_core.domain.costs import Costs
from clm_core.domain.execution import ExecutionRules
from clm_core.domain.promotions import Promotion
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus
from clm_core.evidence.equal_volatility import days_at_equal_volatility
from clm_core.evidence.paired import PairedRecord, extend
from clm_core.evidence.sequential import days_per_year
from clm_core.ledger.executions import version_execution
from clm_core.market.bars import Bars, Floats
from clm_core.market.panel import Panel
from clm_core.retraining.measured_costs import costs_of_comparisons
from clm_core.services import Services

Mask = NDArray[np.bool_]
MAX_VERSIONS = 1000
"""Newest versions of a recipe that are read."""
FOLLOWED = (ModelStatus.CANDIDATE, ModelStatus.SHADOW, ModelStatus.RETIRED)
"""Statuses of versions that are, or were, followed in a place."""


@dataclass(frozen=True)
class Stint:
    """A version and the moment of taking over."""

    version: ModelVersion
    since: datetime


@dataclass(frozen=True)
class Pause:
    """Moment from which nothing served: flat, which everybody knows in time."""

    since: datetime


@dataclass(frozen=True)
class ProductionPeriod:
    """Successive versions in production under the same execution rules."""

    stints: tuple[Stint | Pause, ...]
    version: ModelVersion
    """Version with the rules."""
    until: datetime | None
    """End of the period; None for the last."""

    def within(self, bars: Bars) -> Bars:
        """Bars closed in the period."""
        end = None if self.until is None else bars.row_closed_after(self.until)
        return bars[bars.row_closed_after(self.stints[0].since) : end]


@dataclass(frozen=True, eq=False)
class RecipeTrack:
    """Recorded positions on the bars of a market, arrays of shape (n_bars,)."""

    bars: Bars
    positions: Floats
    """Position after each bar; 0 where none was recorded."""
    in_time: Mask
    """True for positions recorded before the close of the next bar, and where nothing served."""
    recorded: Mask
    """True for bars with a recorded position, late or in time."""

    @property
    def earned(self) -> Mask:
        """True for bars with a return earned on a position recorded in time, after the bar before."""
        return np.concatenate([[False], self.in_time[:-1]])


@dataclass(frozen=True, eq=False)
class ShadowRun:
    """Returns of a recipe under shadow testing, traded from flat at the costs of the home."""

    axis: Bars
    """Bars of the market, or the common axis of a pool."""
    returns: Floats
    """Returns of a bar as fractions, shape (n_bars,)."""
    earned: Mask
    """True for bars counted as evidence, shape (n_bars,)."""
    exits: NDArray[np.int64]
    """Closes of the bars at the exits of trades counted as evidence, ascending, nanoseconds since
    1970-01-01 UTC."""

    def returns_until(self, moment: datetime) -> Floats:
        """Returns counted as evidence, of bars closed by a moment."""
        rows = self.earned[: self.axis.row_closed_after(moment)]
        return self.returns[: len(rows)][rows]


@dataclass(frozen=True, eq=False)
class DaysInShadow:
    """Returns of two recipes on the same complete UTC days at equal volatility, as fractions, shape
    (n_days,)."""

    ours: Floats
    theirs: Floats
    days_per_year: float
    """Days with bars in a year; NaN for fewer than two days."""

    @property
    def record(self) -> PairedRecord:
        """Differences of the days."""
        return extend(PairedRecord(), self.ours, self.theirs)


def recipe_key(version: ModelVersion) -> str:
    """Recipe of a version in the table of places."""
    return version.recipe_digest or version.version


def stints_in_shadow(services: Services, version: ModelVersion, since: datetime) -> list[Stint]:
    """Versions of a recipe followed since a moment, oldest first, each from the registration on."""
    if version.recipe_digest is None:
        return [Stint(version, version.created_at)]
    versions = services.ledger.versions(
        model_id=version.model_id, recipe_digest=version.recipe_digest, limit=MAX_VERSIONS
    )
    followed = [
        each
        for each in versions
        if each.version == version.version
        or (each.status in FOLLOWED and since <= each.created_at < version.created_at)
    ]
    return [Stint(each, each.created_at) for each in sorted(followed, key=lambda each: each.created_at)]


def stints_in_production(services: Services, champion: ModelVersion) -> list[Stint]:
    """Versions of the champion's recipe in production one after another up to now, oldest first; the first
    from the registration on: a version is followed before the promotion."""
    history = services.ledger.promotions.committed(champion.model_id)
    stints: list[Stint] = []
    for change in reversed(history):
        version = _served(services, change)
        if version is None or recipe_key(version) != recipe_key(champion):
            break
        stints.insert(0, Stint(version, change.at))
    first = stints[0] if stints else Stint(champion, champion.created_at)
    return [Stint(first.version, first.version.created_at), *stints[1:]]


def stint_of(services: Services, change: Promotion) -> Stint | Pause:
    """What was in production from a change on."""
    version = _served(services, change)
    return Pause(change.at) if version is None else Stint(version, change.at)


def _served(services: Services, change: Promotion) -> ModelVersion | None:
    return None if change.to_version is None else services.ledger.version(change.model_id, change.to_version)


def periods_of(
    services: Services, stints: Sequence[Stint | Pause], before: ModelVersion
) -> list[ProductionPeriod]:
    """Stints in order, grouped by execution rules; a pause has the rules of the stint before.

    Args:
        before: version with the rules of a pause at the beginning.
    """
    rules = list(_rules(services, stints, before))
    groups = [list(group) for _, group in groupby(range(len(stints)), key=lambda row: rules[row])]
    periods = []
    for number, group in enumerate(groups):
        own = tuple(stints[row] for row in group)
        version = next((each.version for each in reversed(own) if isinstance(each, Stint)), before)
        until = stints[groups[number + 1][0]].since if number + 1 < len(groups) else None
        periods.append(ProductionPeriod(own, version, until))
    return periods


def _rules(
    services: Services, stints: Sequence[Stint | Pause], version: ModelVersion
) -> Iterator[ExecutionRules]:
    for stint in stints:
        version = stint.version if isinstance(stint, Stint) else version
        yield version_execution(services.ledger, version, services.settings.execution.rules)


def recipe_track(services: Services, stints: Sequence[Stint | Pause], bars: Bars) -> RecipeTrack:
    """Recorded positions of successive versions on the bars of a market."""
    positions = np.zeros(len(bars))
    in_time, recorded = (np.zeros(len(bars), dtype=np.bool_) for _ in range(2))
    ends = [*(bars.row_closed_after(each.since) for each in stints[1:]), len(bars)]
    for stint, end in zip(stints, ends, strict=True):
        rows = slice(bars.row_closed_after(stint.since), end)
        part = bars[rows]
        if not len(part):
            continue
        if isinstance(stint, Pause):
            in_time[rows] = True
            continue
        version = stint.version
        member = "" if bars.symbol == version.symbol else bars.symbol
        record = services.ledger.shadows.recorded(
            version.model_id, version.version, part.start.to_pydatetime(), member
        )
        held = np.isin(part.time, record.time)
        of_record = np.searchsorted(record.time, part.time[held])
        closes = part.time[held] + 2 * bars.timeframe.nanoseconds
        positions[rows][held] = record.position[of_record]
        in_time[rows][held] = record.recorded[of_record] <= closes
        recorded[rows] = held
    return RecipeTrack(bars, positions, in_time, recorded)


def markets_since(services: Services, version: ModelVersion, since: datetime) -> tuple[Bars, ...]:
    """Bars of the market closed after a moment, or of each member of a pool."""
    now = services.clock()
    symbols = services.ledger.job(version.training_job_id).symbols or (version.symbol,)
    stored = (services.market.bars(symbol, version.timeframe, closed_by=now) for symbol in symbols)
    return tuple(bars[bars.row_closed_after(since) :] for bars in stored)


def run_of(
    services: Services,
    stints: Sequence[Stint],
    markets: Sequence[Bars],
    costs: Mapping[str, Costs] = MappingProxyType({}),
) -> ShadowRun | None:
    """Returns of a recipe on the bars of the markets; None without a bar.

    Args:
        costs: measured costs by symbol; other markets have the costs of the home.
    """
    tracks = [recipe_track(services, stints, bars) for bars in markets]
    return traded(services, stints[-1].version, tracks, costs)


def compare_in_shadow(
    services: Services, ours: Sequence[Stint], theirs: Sequence[Stint], since: datetime
) -> PairedRecord:
    """Daily differences at equal volatility of two recipes; see `days_in_shadow`."""
    return days_in_shadow(services, ours, theirs, since).record


def days_in_shadow(
    services: Services, ours: Sequence[Stint], theirs: Sequence[Stint], since: datetime
) -> DaysInShadow:
    """Daily returns at equal volatility of two recipes, on bars of both earned on positions recorded in time,
    both at the costs measured by fills where there are enough.

    Args:
        ours: versions of the shadowed recipe.
        theirs: versions of the champion's recipe.
        since: moment after which bars count.
    """
    markets = markets_since(services, ours[-1].version, max(since, theirs[0].since))
    costs = costs_of_comparisons(services, ours[-1].version.model_id, markets)
    runs = [run_of(services, stints, markets, costs) for stints in (ours, theirs)]
    if runs[0] is None or runs[1] is None:
        return DaysInShadow(np.zeros(0), np.zeros(0), math.nan)
    axis = runs[0].axis
    both = runs[0].earned & runs[1].earned
    bar = axis.timeframe.nanoseconds
    pair = (runs[0].returns, runs[1].returns)
    days = days_at_equal_volatility(axis.time, bar, *pair, axis.periods_per_year, both)
    return DaysInShadow(*days, days_per_year(axis.time))


def traded(
    services: Services,
    version: ModelVersion,
    tracks: Sequence[RecipeTrack],
    costs: Mapping[str, Costs] = MappingProxyType({}),
) -> ShadowRun | None:
    """Returns of tracks under the execution of a version; None without a bar.

    Args:
        costs: measured costs by symbol; other markets have the costs of the home.
    """
    filled = [track for track in tracks if len(track.bars)]
    if not filled:
        return None
    results = [
        terms_of(services, version, track.bars, costs).backtest(track.bars, track.positions)
        for track in filled
    ]
    exits = np.sort(np.concatenate([_exits(*each) for each in zip(filled, results, strict=True)]))
    if len(tracks) == 1:
        return ShadowRun(filled[0].bars, results[0].returns, filled[0].earned, exits)
    axis = Panel(version.symbol, tuple(track.bars for track in filled)).index_bars()
    members = [(track.bars, result) for track, result in zip(filled, results, strict=True)]
    earned = np.ones(len(axis), dtype=np.bool_)
    for track in filled:
        earned[np.searchsorted(axis.time, track.bars.time[~track.earned])] = False
    return ShadowRun(axis, portfolio(axis, members, 1.0, members=len(tracks)).returns, earned, exits)


def terms_of(
    services: Services,
    version: ModelVersion,
    bars: Bars,
    costs: Mapping[str, Costs] = MappingProxyType({}),
) -> MarketTerms:
    """Terms of the home for a market, with the execution of a version.

    Args:
        costs: measured costs by symbol; other markets have the costs of the home.
    """
    rules = version_execution(services.ledger, version, services.settings.execution.rules)
    return services.home_terms(bars.symbol, bars.calendar).under(rules).at_costs(costs.get(bars.symbol))


def _exits(track: RecipeTrack, result: Backtest) -> NDArray[np.int64]:
    """Closes of the bars in which trades were closed with every bar earned on a position recorded in time."""
    trades = result.trades
    closed = trades.reason != ExitReason.END_OF_DATA
    late_before = np.concatenate([[0], np.cumsum(~track.earned)])
    first = trades.entry_bar[closed]
    last = trades.exit_bar[closed]
    whole = late_before[last + 1] == late_before[first]
    return np.asarray(track.bars.time[last[whole]] + track.bars.timeframe.nanoseconds)


def moment(nanoseconds: int) -> datetime:
    converted: datetime = pd.Timestamp(nanoseconds, unit="ns", tz="UTC").to_pydatetime()
    return converted
