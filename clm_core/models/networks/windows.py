"""Bars as a network sees them: a window of standardised returns before a bar, and what followed it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from clm_core.market.bars import Bars, Floats
from clm_core.market.features import compute_features
from clm_core.market.labels import forward_return

RETURN, VOLATILITY = "log_return_1", "volatility_96"


@dataclass(frozen=True, eq=False)
class Windows:
    """What windows are cut from: that of row t is rows t - length + 1 to t."""

    length: int
    """Bars in a window."""
    returns: Floats
    """One-bar log returns, shape (n_bars,)."""
    features: Floats
    """Shape (n_bars, n_features)."""
    volatility: Floats
    """Standard deviation of one-bar log returns over the trailing 96 bars, shape (n_bars,)."""
    rows: NDArray[np.int64]
    """Rows, ascending, whose window lies within one unbroken stretch and is complete."""


@dataclass(frozen=True, eq=False)
class Material:
    """What a network learns from."""

    windows: Windows
    futures: Floats
    """Standardised returns that followed, shape (n_bars, horizon)."""
    fit: NDArray[np.int64]
    """Rows whose windows are learnt from."""
    validation: NDArray[np.int64]
    """Newer rows, which tell when to stop."""


def windows_of(bars: Bars, length: int, features: Sequence[str]) -> Windows:
    """Args:
    features: names of what a window shows besides returns; may be empty.
    """
    table = compute_features(bars, (RETURN, VOLATILITY, *features))
    columns = dict(zip(table.names, table.values.T, strict=True))
    volatility = columns[VOLATILITY]
    # NaN compares false
    usable = table.complete & (volatility > 0)
    shown = [columns[name] for name in features]
    return Windows(
        length,
        columns[RETURN],
        np.stack(shown, axis=1) if shown else np.empty((len(bars), 0)),
        volatility,
        _whole(bars, usable, length),
    )


def futures_of(bars: Bars, volatility: Floats, horizon: int) -> tuple[Floats, NDArray[np.int64]]:
    """Log returns from the open of the next bar to the open k bars later, k = 1..horizon, each over
    volatility * sqrt(k): of about unit deviation, whatever the market and the k.

    Returns:
        Values, shape (n_bars, horizon), NaN where a stretch ends before the horizon; and the row of the last
        bar each row's values use, -1 where undefined.
    """
    end = forward_return(bars, horizon).end
    known, steps = np.flatnonzero(end >= 0), np.arange(1, horizon + 1)
    log_open = np.log(bars.open)
    moved = log_open[known[:, None] + 1 + steps] - log_open[known + 1][:, None]
    values = np.full((len(bars), horizon), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        values[known] = moved / (volatility[known][:, None] * np.sqrt(steps))
    return values, end


def _whole(bars: Bars, usable: NDArray[np.bool_], length: int) -> NDArray[np.int64]:
    found = [np.empty(0, dtype=np.int64)]
    for rows in bars.stretches():
        if rows.stop - rows.start >= length:
            whole = sliding_window_view(usable[rows], length).all(axis=1)
            found.append(np.flatnonzero(whole) + rows.start + length - 1)
    return np.concatenate(found)
