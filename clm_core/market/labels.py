"""Labels of supervised models, measured from the open at which a decision can be filled."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clm_core.market.bars import Bars, Floats
from clm_core.market.features import compute_features
from clm_core.market.rolling import first_touch, gap_and_deviation

VOLATILITY_WINDOW = 24
"""Bars over which triple barriers measure volatility."""
RETURN_UNIT = "volatility_96"
"""Feature in whose units `volatility_scaled_return` measures: the deviation of one-bar log returns."""
LARGEST_SCALED_RETURN = 4.0
"""Bound of a scaled return: a crash counts as four standard deviations and does not decide a fit alone."""


@dataclass(frozen=True, eq=False)
class Labels:
    """One label for each bar, shape (n_bars,), read-only: the outcome of a decision at the close of the
    bar."""

    values: Floats
    """Value of the label; NaN if undefined, too close to the end of the bars or of an unbroken stretch."""
    end: NDArray[np.int64]
    """Row of the last bar used by the label, -1 if undefined; splits purge by `end`."""

    def __post_init__(self) -> None:
        self.values.setflags(write=False)
        self.end.setflags(write=False)


def forward_return(bars: Bars, horizon: int) -> Labels:
    """Simple return, a fraction, from the open of the next bar to the open `horizon` bars later."""
    _check_horizon(horizon)
    rows = np.arange(len(bars))
    end = np.where(rows + 1 + horizon <= _last_rows(bars), rows + 1 + horizon, -1)
    values = np.full(len(bars), np.nan)
    known = np.flatnonzero(end >= 0)
    values[known] = bars.open[end[known]] / bars.open[known + 1] - 1
    return Labels(values, end)


def volatility_scaled_return(bars: Bars, horizon: int) -> Labels:
    """Forward log return over the volatility expected for it, bounded to [-4, 4].

    The volatility is that of one-bar log returns over the trailing 96 bars times sqrt(horizon): a value of 1
    is a rise of one standard deviation of the horizon's return (Moskowitz, Ooi & Pedersen 2012 scale by
    ex-ante volatility). NaN without a positive trailing volatility.
    """
    moved = forward_return(bars, horizon)
    unit = return_unit(bars) * np.sqrt(horizon)
    defined = (moved.end >= 0) & (unit > 0)
    scaled = np.full(len(bars), np.nan)
    np.divide(np.log1p(moved.values), unit, out=scaled, where=defined)
    bounded = np.clip(scaled, -LARGEST_SCALED_RETURN, LARGEST_SCALED_RETURN)
    return Labels(bounded, np.where(defined, moved.end, -1))


def return_unit(bars: Bars) -> Floats:
    """Standard deviation of one-bar log returns over the trailing 96 bars, shape (n_bars,)."""
    return compute_features(bars, (RETURN_UNIT,)).values[:, 0]


def direction(bars: Bars, horizon: int) -> Labels:
    """1.0 for a positive forward return, 0.0 for a negative return, NaN if undefined.

    A tie, a forward return of exactly 0, is neither a rise nor a fall and has no label: with ties among the
    falls, a market that often stands still would teach every model to sell.
    """
    moved = forward_return(bars, horizon)
    decided = (moved.end >= 0) & (moved.values != 0)
    return Labels(np.where(decided, moved.values > 0, np.nan), np.where(decided, moved.end, -1))


def ties(bars: Bars, horizon: int) -> NDArray[np.bool_]:
    """True for bars with a forward return of exactly 0, shape (n_bars,)."""
    return np.asarray(forward_return(bars, horizon).values == 0)


def trade_outcome(bars: Bars, horizon: int, width: float, side: Floats | None = None) -> Labels:
    """1.0 for a trade at the next open that wins, 0.0 for a trade that loses, NaN if undefined.

    A trade wins at the upper and loses at the lower of two barriers (`triple_barrier`) in equal distance:
    `width` times the trailing volatility times sqrt(horizon), a standard deviation of the horizon's return.
    A trade that touches neither within the horizon is closed at the last close, and wins or loses by the sign
    of its return; without a return it has no label.

    Args:
        width: distance of the barriers, in standard deviations of the horizon's return.
        side: 1 to buy, -1 to sell, 0 or NaN for no trade and no label, shape (n_bars,); None to buy always.
    """
    distance = width * np.sqrt(horizon)
    touched = triple_barrier(bars, horizon, distance, distance, side)
    # a side of NaN compares false: no trade
    bought = np.ones(len(bars)) if side is None else np.where(side > 0, 1.0, np.where(side < 0, -1.0, 0.0))
    values = touched.values.copy()
    neither = np.flatnonzero(values == 0)
    moved = bars.close[touched.end[neither]] - bars.open[neither + 1]
    values[neither] = np.sign(moved) * bought[neither]
    decided = (touched.end >= 0) & (values != 0) & (bought != 0)
    return Labels(np.where(decided, values > 0, np.nan), np.where(decided, touched.end, -1))


def triple_barrier(
    bars: Bars, horizon: int, take_profit: float, stop_loss: float, side: Floats | None = None
) -> Labels:
    """First barrier reached after a trade at the next open: profit, loss or the end of the horizon.

    Barriers lie `take_profit` and `stop_loss` times the volatility (standard deviation of one-bar log
    returns over the trailing 24 bars) above and below the entry, and are compared with high and low from the
    entry bar on (Lopez de Prado 2018, chapter 3, with prices inside the bar).

    The labels are those of a trade, not of a direction: a bar that touches both barriers counts as a loss,
    so the labels of mirrored prices are not the mirrored labels.

    Args:
        side: -1 where the trade is a sale, with profit below and loss above the entry; other values are
            purchases, shape (n_bars,). None for purchases alone.

    Returns:
        1.0 for profit, -1.0 for loss or both within one bar, 0.0 for neither in the `horizon` bars from the
        entry on; NaN without a positive trailing volatility and for an undecided end of the stretch.
    """
    _check_horizon(horizon)
    if not (take_profit > 0 and stop_loss > 0):
        raise ValueError(
            f"barriers at {take_profit} and {stop_loss}: give positive multiples of the volatility"
        )
    unit = _trailing_volatility(bars)
    entry = np.append(bars.open[1:], np.nan)
    deadline = np.arange(len(bars)) + horizon
    last = np.minimum(deadline, _last_rows(bars))
    values, end = first_touch(
        bars.high, bars.low, entry * (1 + take_profit * unit), entry * (1 - stop_loss * unit), last
    )
    if side is not None:
        # a sale is a purchase of the negative price
        sold, sold_end = first_touch(
            -bars.low, -bars.high, -entry * (1 - take_profit * unit), -entry * (1 + stop_loss * unit), last
        )
        values = np.where(side < 0, sold, values)
        end = np.where(side < 0, sold_end, end)
    undecided = (values == 0) & (last < deadline)
    undefined = undecided | ~(unit > 0)
    return Labels(np.where(undefined, np.nan, values), np.where(undefined, -1, end))


def _trailing_volatility(bars: Bars) -> Floats:
    volatility = np.full(len(bars), np.nan)
    for rows in bars.stretches():
        returns = np.diff(np.log(bars.close[rows]))
        volatility[rows][1:] = gap_and_deviation(returns, VOLATILITY_WINDOW)[1]
    return volatility


def _last_rows(bars: Bars) -> NDArray[np.int64]:
    """Last row of the stretch of each bar, shape (n_bars,)."""
    last = np.empty(len(bars), dtype=np.int64)
    for rows in bars.stretches():
        last[rows] = rows.stop - 1
    return last


def _check_horizon(horizon: int) -> None:
    if horizon < 1:
        raise ValueError(f"a label needs a horizon of at least 1 bar, not {horizon}")
