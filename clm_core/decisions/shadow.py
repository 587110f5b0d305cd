"""What a version would have earned that was followed at 0 % allocation, beside the one that serves.

It wants a position after each bar, and that is written down. What was written before the next bar had closed
proves something: nobody could know yet how it would end. What was written later is counted as late.
"""

import math

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from clm_core.backtest.engine import backtest
from clm_core.backtest.metrics import summarise
from clm_core.backtest.results import Backtest
from clm_core.domain.costs import Costs
from clm_core.domain.execution import Execution
from clm_core.domain.shadows import ShadowRecord
from clm_core.evidence import paired
from clm_core.evidence.bootstrap import difference_interval
from clm_core.evidence.paired import Standing
from clm_core.market.bars import Bars, Floats
from clm_core.market.timeframes import Timeframe

FEWEST_BARS = 240
"""With fewer common bars it is too early to say who is better; ten days of hours."""
WANTED_TRADES = 100
"""Closed trades after which a shadow has shown what it does."""
CONFIDENCE = 0.95
"""Share of such intervals that hold the true difference of the Sharpe ratios."""
RESAMPLES = 2000
ALPHA = 0.05
"""Chance that a shadow no better than the champion is ever said to lead, and that one no worse is ever said
to trail."""
TUNED_FOR = 500
"""Common bars after which a lead is found soonest."""
Rows = NDArray[np.int64]
SAME = 1e-6
"""Positions that differ by less, a millionth of the capital, are the same: processors round otherwise."""


class Figures(BaseModel):
    """What positions earned from flat, after costs; None: not to be measured."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    bars: int = 0
    trades: int = 0
    """Ended by a signal, a stop or a target."""
    total_return: float | None = None
    """Fraction."""
    sharpe_ratio: float | None = None
    """Annualised."""
    max_drawdown: float | None = None
    """Negative fraction."""


class Against(BaseModel):
    """A shadow and the version that serves on the same bars, both from flat; None: too early to say."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    champion: str
    """Label of its version."""
    ours: Figures
    theirs: Figures
    difference: tuple[float, float] | None
    """95 % interval of the Sharpe ratio less the champion's, annualised."""
    lead: Standing | None
    """Whether it earns more a bar than the champion, beyond doubt, however often one has looked."""


def count_late(written: ShadowRecord, timeframe: Timeframe) -> int:
    """How many were written down more than one bar after their bar had closed."""
    closed_bars = written.time + timeframe.nanoseconds
    return int(np.count_nonzero(written.recorded - closed_bars > timeframe.nanoseconds))


def differing_rows(written: ShadowRecord, positions: Floats) -> Rows:
    """Rows after which another position is wanted now than was written down.

    Args:
        positions: as they are computed now, of the same bars, shape (n_bars,).
    """
    # Written as `not (<=)` so that a NaN differs from everything.
    return np.flatnonzero(~(np.abs(positions - written.position) <= SAME))


def measure(bars: Bars, positions: Floats, costs: Costs, execution: Execution) -> Figures:
    """
    Args:
        bars: traded from flat; there may be none.
        positions: wanted after each, shape (n_bars,).
    """
    if not len(bars):
        return Figures()
    return _figures(backtest(bars, positions, costs, execution), bars.periods_per_year)


def compare(
    champion: str,
    bars: Bars,
    ours: Floats,
    theirs: Floats,
    costs: Costs,
    execution: Execution,
    rng: np.random.Generator,
) -> Against:
    """
    Args:
        champion: label of the version that serves.
        bars: common to both, at least one.
        ours: the shadow's positions on them, shape (n_bars,).
        theirs: the champion's.
        rng: where the resamples come from.
    """
    shadow, serving = (backtest(bars, positions, costs, execution) for positions in (ours, theirs))
    mine, served = (_figures(result, bars.periods_per_year) for result in (shadow, serving))
    if len(bars) < FEWEST_BARS:
        return Against(champion=champion, ours=mine, theirs=served, difference=None, lead=None)
    interval = difference_interval(shadow.returns, serving.returns, CONFIDENCE, RESAMPLES, rng)
    differences = paired.extend(paired.PairedRecord(), shadow.returns, serving.returns)
    scale = math.sqrt(bars.periods_per_year)
    known = math.isfinite(interval.low) and math.isfinite(interval.high)
    return Against(
        champion=champion,
        ours=mine,
        theirs=served,
        difference=(interval.low * scale, interval.high * scale) if known else None,
        lead=paired.stand(differences, ALPHA, TUNED_FOR),
    )


def _figures(result: Backtest, periods_per_year: float) -> Figures:
    metrics = summarise(result, periods_per_year)
    return Figures(
        bars=len(result.returns),
        trades=result.trades.ended,
        total_return=_measured(metrics.total_return),
        sharpe_ratio=_measured(metrics.sharpe_ratio),
        max_drawdown=_measured(metrics.max_drawdown),
    )


def _measured(value: float) -> float | None:
    return value if math.isfinite(value) else None
