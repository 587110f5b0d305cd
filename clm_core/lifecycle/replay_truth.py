"""Replay in a world: promotions, rollbacks and halts judged by the expected returns that the world knows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from clm_core.backtest.expectation import expected_returns
from clm_core.backtest.results import Backtest
from clm_core.backtest.terms import MarketTerms
from clm_core.domain.promotions import Promotion, PromotionKind
from clm_core.domain.replays import LOOK_DAYS, KnownCourse, KnownService
from clm_core.market.bars import Bars, Floats
from clm_core.market.worlds import KnownMarket

ENDING = (PromotionKind.ROLLBACK, PromotionKind.HALT)
"""Changes that take the production version out of production."""
LOOK = timedelta(days=LOOK_DAYS)


@dataclass(frozen=True, eq=False)
class KnownReplay:
    """Replay of a policy, with the world it ran in."""

    world: KnownMarket
    terms: MarketTerms
    committed: Sequence[Promotion]
    """Changes of production, oldest first."""
    trained_at: Callable[[str], datetime]
    """Time of the training of a version."""
    positions: Callable[[str, datetime, datetime], Floats]
    """Positions of a version from a time to another, flat before and after, shape (n_bars,)."""
    days: Sequence[datetime]
    """Ends of the UTC days of the replay."""
    change: datetime | None
    """Time from which the edge is dead or reversed; None in a world whose edge never changes."""

    @property
    def end(self) -> datetime:
        return self.days[-1]

    def course(self, production: Backtest, first: int) -> KnownCourse:
        """
        Args:
            production: backtest of the production, from the first row of the replay on.
        """
        services = tuple(self._services())
        bars = self.world.bars
        world = self.world
        rows = [_rows(bars, each - timedelta(days=1), each) for each in self.days]
        expected = expected_returns(production, world.expected[first:], self.terms.terms.costs)
        return KnownCourse(
            services=services,
            false_promotions=sum(each.is_false_promotion for each in services),
            false_endings=sum(each.is_false_ending for each in services),
            expected_return=_compound(expected),
            outlived_days=sum(self._outlived(each) for each in services),
            positions=tuple(
                float(production.exposure[each.start - first : each.stop - first].mean()) for each in rows
            ),
            edge=tuple(float(world.strength[each.stop - 1]) for each in rows),
            drift=tuple(float(world.expected[each].mean()) for each in rows),
        )

    def _services(self) -> Iterator[KnownService]:
        endings = [*self.committed[1:], None]
        for change, ending in zip(self.committed, endings, strict=False):
            if change.to_version is None:
                continue
            until = self.end if ending is None else ending.at
            is_taken_back = ending is not None and ending.kind in ENDING
            judged_until = max(until, change.at + LOOK)
            last = until + LOOK if is_taken_back else judged_until
            expected = self._expected(change.to_version, change.at, last)
            yield KnownService(
                version=change.to_version,
                since=change.at,
                until=until,
                is_promotion=change.kind is PromotionKind.PROMOTION,
                is_taken_back=is_taken_back,
                expected=self._total(expected, change.at, judged_until),
                expected_after=self._total(expected, until, last) if is_taken_back else None,
            )

    def _expected(self, version: str, since: datetime, until: datetime) -> Floats:
        """Expected returns of a version that trades from flat between two times, shape (n_bars,)."""
        bars = self.world.bars
        rows = _rows(bars, since, until)
        expected = np.zeros(len(bars))
        if rows.start < rows.stop:
            positions = self.positions(version, since, until)[rows]
            result = self.terms.backtest(bars[rows], positions)
            expected[rows] = expected_returns(result, self.world.expected[rows], self.terms.terms.costs)
        return expected

    def _total(self, expected: Floats, since: datetime, until: datetime) -> float:
        return _compound(expected[_rows(self.world.bars, since, until)])

    def _outlived(self, service: KnownService) -> float:
        if self.change is None or self.trained_at(service.version) >= self.change:
            return 0.0
        return max(service.until - max(service.since, self.change), timedelta()) / timedelta(days=1)


def _rows(bars: Bars, since: datetime, until: datetime) -> slice:
    """Rows of the bars that close after a time, up to another."""
    return slice(bars.row_closed_after(since), bars.row_closed_after(until))


def _compound(returns: Floats) -> float:
    return float(np.prod(1.0 + returns) - 1.0)
