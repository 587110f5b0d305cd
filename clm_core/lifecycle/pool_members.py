"""Members of a pool in production: positions on the bars after the training, computed once a pass."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clm_core.backtest.pools import portfolio
from clm_core.backtest.results import Backtest
from clm_core.backtest.terms import MarketTerms
from clm_core.domain.versions import ModelVersion
from clm_core.lifecycle.drift_watch import positions_from
from clm_core.market.bars import Bars, Floats
from clm_core.models.contract import Model
from clm_core.models.params import series_names
from clm_core.models.pooled import PooledModel
from clm_core.services import Services


@dataclass(frozen=True, eq=False)
class PoolMember:
    """A member of a pool with all closed bars of the market."""

    bars: Bars
    model: Model
    """View of the pool's model."""
    market: MarketTerms
    first_new: int
    """First row after the training of the pool."""
    positions: Floats
    """Positions of the version on the bars from `first_new` on, shape (n_new_bars,)."""

    def traded_from(self, moment: int) -> tuple[Bars, Backtest] | None:
        """Bars and backtest from flat, after the training; None without a bar.

        Args:
            moment: open time of the first bar, nanoseconds since 1970-01-01 UTC.
        """
        row = max(int(np.searchsorted(self.bars.time, moment)), self.first_new)
        if row == len(self.bars):
            return None
        return self.bars[row:], self.market.backtest(self.bars[row:], self.positions[row - self.first_new :])


def pool_members(services: Services, version: ModelVersion, model: PooledModel) -> tuple[PoolMember, ...]:
    """Members of a pool on the newest bars of the markets; the training of all ends with the last bar of the
    pool's training."""
    now = services.clock()
    names = series_names(version.params)
    members = []
    for symbol in model.symbols:
        stored = services.market.bars(symbol, version.timeframe, closed_by=now)
        bars = services.market.with_series(stored, names)
        view = model.member(symbol)
        first_new = bars.row_after(model.trained_on.end)
        market = services.version_terms(version, bars.calendar, symbol)
        members.append(PoolMember(bars, view, market, first_new, positions_from(view, bars, first_new)))
    return tuple(members)


def portfolio_on(axis: Bars, members: Sequence[PoolMember]) -> Backtest | None:
    """Equal-risk portfolio of the members, traded from flat; None without a bar.

    Args:
        axis: bars of the common axis to trade on; may be empty.
    """
    if not len(axis):
        return None
    traded = [each for member in members if (each := member.traded_from(int(axis.time[0]))) is not None]
    return portfolio(axis, traded, 1.0, members=len(members)) if traded else None
