"""Trials counted for a verdict: trials of the market under any name of its series, and the size of the
fleet."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from clm_core.decisions.gate_policy import GatePolicy
from clm_core.domain.errors import CLMError
from clm_core.domain.evaluations import TrialLuck
from clm_core.domain.kinds import Kind
from clm_core.domain.trials import MatchedMarket
from clm_core.evidence.trials import TrialCount, TrialRecord, TrialSketch, count_trials
from clm_core.ledger.store import Ledger
from clm_core.market.same_market import DailyReturns, Likeness, likeness
from clm_core.market.sources import MarketData
from clm_core.retraining.strategy_trials import SearchTrials, searched_recipes, searches_behind

FLEET_DAYS = 365
"""Days in which a market with a trial belongs to the fleet."""
SELF = Likeness(1.0, 0)


@dataclass(frozen=True)
class CountedTrials:
    """Trials of a market, with the series sharing the trials."""

    records: list[TrialRecord]
    """Oldest first."""
    matched: tuple[MatchedMarket, ...]
    """Other series of the same market with trials."""
    unread: tuple[str, ...]
    """Series with trials, not compared: no longer stored, or damaged."""
    markets: int
    """Number of markets with trials in the last `FLEET_DAYS` days, this market included; matched series
    count as this market."""
    searches: tuple[SearchTrials, ...] = ()
    """Searches for strategies that evaluated the judged parameters."""

    def count(self, min_trials: float) -> TrialCount:
        """Effective number of the trials, those of the searches included.

        Args:
            min_trials: minimum of the policy.
        """
        search = TrialSketch.merged([each.sketch for each in self.searches]) if self.searches else None
        if self.records:
            return count_trials(self.records, min_trials, search)
        if search is not None:
            return TrialCount(search.trials, max(search.effective, min_trials))
        return TrialCount(0, min_trials)

    def stated_luck(self, luck: TrialLuck | None, policy: GatePolicy) -> TrialLuck | None:
        """Trial luck with the series sharing the trials, and the error of the fleet; None stays None."""
        updates = {
            "matched": self.matched,
            "markets": self.markets,
            "fleet_error": policy.fleet_error(self.markets),
        }
        return None if luck is None else luck.model_copy(update=updates)

    @property
    def warnings(self) -> tuple[str, ...]:
        searched = tuple(each.sentence for each in self.searches)
        if not self.unread:
            return searched
        return (
            *searched,
            f"trials of {', '.join(self.unread)} were not compared with this market, since the series cannot "
            "be read: if it is the same market, import it again",
        )


def counted_trials(
    ledger: Ledger,
    market: MarketData,
    symbol: str,
    timeframe: str,
    members: Sequence[str] = (),
    *,
    now: datetime,
    until: datetime | None = None,
    recipe: tuple[Kind, Mapping[str, Any]] | None = None,
) -> CountedTrials:
    """Trials of a market or pool: by name, and of every series with the same daily returns.

    Args:
        symbol: the market, or the name of a pool.
        members: symbols of the pool.
        now: time from which the days of the fleet are counted back.
        until: latest time of a trial, to reproduce the count at the time.
        recipe: judged kind and training parameters, whose searches for strategies count; None for none.
    """
    comparison = _Comparison(market, symbol, timeframe, members)
    since = (until or now) - timedelta(days=FLEET_DAYS)
    fleet = {symbol}
    matched = []
    unreadable = []
    for looked in ledger.trials.markets(until):
        try:
            like = comparison.likeness_of(looked.symbol, looked.timeframe)
        except CLMError:
            unreadable.append(looked)
            like = None
        if like is not None:
            matched.append(
                MatchedMarket(
                    symbol=looked.symbol,
                    timeframe=looked.timeframe,
                    correlation=like.correlation,
                    days=like.days,
                    trials=looked.trials,
                )
            )
        elif not comparison.is_own(looked.symbol) and looked.newest > since:
            fleet.add(looked.symbol)
    # a pool has no series to read
    pools = ledger.pool_names() if unreadable else frozenset()
    unread = [f"{each.symbol} {each.timeframe}" for each in unreadable if each.symbol not in pools]
    others = [(each.symbol, each.timeframe) for each in matched]
    records = ledger.trials.records(symbol, timeframe, until, members=members, matched=others)
    fleet -= {each.symbol for each in matched if each.symbol != symbol}
    searches = () if recipe is None else tuple(_searches(ledger, comparison, recipe, until))
    return CountedTrials(records, tuple(matched), tuple(unread), len(fleet), searches)


def _searches(
    ledger: Ledger, comparison: "_Comparison", recipe: tuple[Kind, Mapping[str, Any]], until: datetime | None
) -> list[SearchTrials]:
    """Searches for strategies of the market, under any name of its series, that evaluated a recipe."""
    if not searched_recipes(*recipe):
        return []
    same = [series for series in ledger.strategy_searches.series() if comparison.is_same(*series)]
    return searches_behind(ledger, *recipe, same, until)


class _Comparison:
    """Comparison of one market, or of the members of a pool, with other series."""

    def __init__(self, market: MarketData, symbol: str, timeframe: str, members: Sequence[str]) -> None:
        self._market = market
        self._symbol = symbol
        self._timeframe = timeframe
        self._members = tuple(members)
        self._own: tuple[DailyReturns, ...] | None = None

    def is_own(self, symbol: str) -> bool:
        return symbol == self._symbol or symbol in self._members

    def is_same(self, symbol: str, timeframe: str) -> bool:
        """True for a series of the market; False for one that cannot be read."""
        if self.is_own(symbol):
            return True
        try:
            return self.likeness_of(symbol, timeframe) is not None
        except CLMError:
            return False

    def likeness_of(self, symbol: str, timeframe: str) -> Likeness | None:
        """Likeness of a series sharing the trials; None for another market, and for the series itself.

        Raises:
            UnknownSeries, StoreCorrupt: the other series cannot be read.
        """
        if self.is_own(symbol) and timeframe == self._timeframe:
            return None
        if symbol == self._symbol and self._members:
            return SELF
        own = self._own_returns()
        other = self._market.daily_returns(symbol, timeframe)
        likenesses = [likeness(each, other) for each in own]
        same = [like for like in likenesses if like.is_same_market]
        if same:
            return max(same, key=lambda like: abs(like.correlation))
        return SELF if self.is_own(symbol) else None

    def _own_returns(self) -> tuple[DailyReturns, ...]:
        """Daily returns of the market, or of the members, where still stored."""
        if self._own is None:
            self._own = tuple(self._stored())
        return self._own

    def _stored(self) -> Iterator[DailyReturns]:
        for name in self._members or (self._symbol,):
            try:
                yield self._market.daily_returns(name, self._timeframe)
            except CLMError:
                continue
