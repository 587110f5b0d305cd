"""Input windows of a forecasting network, cut from bars, and the standardised returns to forecast."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from clm_core.market.bars import Bars, Floats
from clm_core.market.features import compute_features
from clm_core.market.labels import forward_return

RETURN = "log_return_1"
VOLATILITY = "volatility_96"


@dataclass(frozen=True, eq=False)
class Windows:
    """Series from which windows are cut; the window of row t spans rows t - length + 1 to t."""

    length: int
    """Bars in a window."""
    returns: Floats
    """One-bar log returns, shape (n_bars,)."""
    features: Floats
    """Features of each bar, shape (n_bars, n_features)."""
    volatility: Floats
    """Standard deviation of one-bar log returns over the trailing 96 bars, shape (n_bars,)."""
    rows: NDArray[np.int64]
    """Rows, ascending, with a complete window inside an unbroken stretch."""

    def changed(self, change: Callable[[Floats], Floats] | None) -> "Windows":
        """Windows with other returns and features in the rows with every value; the windows themselves
        without a change.

        Args:
            change: function of the one-bar log returns, each over the volatility of its bar so that returns
                of a wild time fit into a calm one, and of the features, shape (n_rows, 1 + n_features).
        """
        if change is None:
            return self
        known = np.isfinite(self.features).all(axis=1) & np.isfinite(self.returns) & (self.volatility > 0)
        scale = self.volatility[known]
        values = change(np.column_stack([self.returns[known] / scale, self.features[known]]))
        returns = self.returns.copy()
        features = self.features.copy()
        returns[known] = values[:, 0] * scale
        features[known] = values[:, 1:]
        return replace(self, returns=returns, features=features)


@dataclass(frozen=True, eq=False)
class TrainingWindows:
    """Windows and targets of a fit, split into a training and a validation part."""

    windows: Windows
    targets: Floats
    """Standardised returns after each bar, shape (n_bars, horizon)."""
    fit: NDArray[np.int64]
    """Rows of the windows to train on."""
    validation: NDArray[np.int64]
    """Newer rows, used for early stopping."""


def windows_of(bars: Bars, length: int, features: Sequence[str]) -> Windows:
    """Cut the windows of a series.

    Args:
        length: bars in a window.
        features: names of the features in a window besides returns; may be empty.
    """
    table = compute_features(bars, (RETURN, VOLATILITY, *features))
    columns = dict(zip(table.names, table.values.T, strict=True))
    volatility = columns[VOLATILITY]
    # NaN compares false
    usable = table.complete & (volatility > 0)
    feature_columns = [columns[name] for name in features]
    return Windows(
        length,
        columns[RETURN],
        np.stack(feature_columns, axis=1) if feature_columns else np.empty((len(bars), 0)),
        volatility,
        _rows_with_complete_window(bars, usable, length),
    )


def targets_of(bars: Bars, volatility: Floats, horizon: int) -> tuple[Floats, NDArray[np.int64]]:
    """Log returns from the open of the next bar to the open k bars later, k = 1..horizon.

    Each return is divided by volatility * sqrt(k), for a standard deviation of about 1 in every market and
    at every k.

    Returns:
        Values, shape (n_bars, horizon), NaN where a stretch ends before the horizon; and the row of the last
        bar used by the values of each row, -1 where undefined.
    """
    end = forward_return(bars, horizon).end
    known = np.flatnonzero(end >= 0)
    steps = np.arange(1, horizon + 1)
    log_open = np.log(bars.open)
    moved = log_open[known[:, None] + 1 + steps] - log_open[known + 1][:, None]
    values = np.full((len(bars), horizon), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        values[known] = moved / (volatility[known][:, None] * np.sqrt(steps))
    return values, end


def _rows_with_complete_window(bars: Bars, usable: NDArray[np.bool_], length: int) -> NDArray[np.int64]:
    complete = [np.empty(0, dtype=np.int64)]
    for rows in bars.stretches():
        if rows.stop - rows.start >= length:
            whole = sliding_window_view(usable[rows], length).all(axis=1)
            complete.append(np.flatnonzero(whole) + rows.start + length - 1)
    return np.concatenate(complete)
