"""Drift of a forecaster's errors: a change of their mean, found by ADWIN (Bifet & Gavalda 2007).

A forecast is the probability of a rise over the next `horizon` bars. Outcomes of neighbouring bars share most
of their bars, which a test for independent observations takes for a change: the forecasts compared are a
horizon apart. ADWIN cuts the errors so far into an older and a newer part at every place, and finds a change
where the means differ by more than a bound for any distribution on [0, 1] allows. Beside the error itself,
rise less forecast, its square is tested: forecasts that lost their edge without leaning to a side.

`python -m benchmarks.forecast_errors` gives the rate of false alarms and the time to detect.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from clm_core.market.bars import Bars, Floats
from clm_core.market.labels import direction

DELTA = 0.2
"""ADWIN's bound on the probability of a false cut. The bound holds for any distribution and any number of
looks, so that the rate measured on forecasts is far lower."""
MIN_OBSERVATIONS = 30
"""Minimum number of forecasts with a known outcome."""


class ErrorDrift(BaseModel):
    """Changes of the errors of a version's forecasts since the training."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    observations: int
    """Forecasts with a known outcome, a horizon apart."""
    changed_at: int | None
    """Number of the observation at which the first change was found, from 1; None: no change."""
    mean_before: float
    """Mean error, rise (1 or 0) less forecast, before the change; of all observations without a change."""
    mean_since: float | None
    """Mean error from the change on; None without a change."""


def forecast_errors(forecast: Floats, bars: Bars, horizon: int, first: int) -> Floats:
    """Errors of forecasts a horizon apart, rise (1 or 0) less forecast, oldest first, within [-1, 1].

    Args:
        forecast: probability of a rise over the horizon after each bar, shape (n_bars,); NaN where unknown.
        bars: bars of the forecasts.
        horizon: bars between a forecast and its outcome.
        first: row of the first forecast to compare.

    Returns:
        Shape (n_errors,); rows without a forecast or with an unknown outcome, or a tie, are left out.
    """
    rows = np.arange(first, len(bars), horizon)
    errors = direction(bars, horizon).values[rows] - forecast[rows]
    return np.asarray(errors[~np.isnan(errors)])


def error_drift(errors: Floats, delta: float = DELTA) -> ErrorDrift | None:
    """Changes of the errors; None with fewer than `MIN_OBSERVATIONS`.

    Args:
        errors: see `forecast_errors`, shape (n_errors,).
        delta: ADWIN's bound on the probability of a false cut.
    """
    return _drift(errors, _changes(errors, delta)) if len(errors) >= MIN_OBSERVATIONS else None


def error_drift_of_members(errors: Mapping[str, Floats], delta: float = DELTA) -> dict[str, ErrorDrift]:
    """Changes of the errors of a pool's members; members with fewer than `MIN_OBSERVATIONS` are left out.

    A member is tested at the level that the rule of Benjamini and Yekutieli (2001) grants: the smallest bound
    `delta` with a change serves as the p-value of the member. Of the members with a change a share of at most
    `delta` is expected to be false, however the members depend on each other. A single member is tested as by
    `error_drift`.

    Args:
        errors: see `forecast_errors`, by symbol.
        delta: bound on the expected share of false changes.
    """
    known = {symbol: each for symbol, each in errors.items() if len(each) >= MIN_OBSERVATIONS}
    count = len(known)
    dependence = sum(1.0 / rank for rank in range(1, count + 1))
    levels = [rank * delta / (count * dependence) for rank in range(1, count + 1)]
    needed = {symbol: _first_level(each, levels) for symbol, each in known.items()}
    granted = 0
    for rank in range(1, count + 1):
        if sum(each <= rank for each in needed.values()) >= rank:
            granted = rank
    drifts = {}
    for symbol, each in known.items():
        changes = _changes(each, levels[granted - 1]) if needed[symbol] <= granted else []
        drifts[symbol] = _drift(each, changes)
    return drifts


def _first_level(errors: Floats, levels: Sequence[float]) -> int:
    """Rank of the smallest level with a change, from 1; one more than the levels for none."""
    # a change found at one level is found at every larger level
    return 1 + bisect_left(levels, True, key=lambda level: bool(_changes(errors, level)))


def _changes(errors: Floats, delta: float) -> list[tuple[int, int]]:
    """First change of the errors, and of their squares; see `_change`."""
    return [each for each in (_change((errors + 1) / 2, delta), _change(errors**2, delta)) if each]


def _drift(errors: Floats, changes: Sequence[tuple[int, int]]) -> ErrorDrift:
    if not changes:
        mean = float(errors.mean())
        return ErrorDrift(observations=len(errors), changed_at=None, mean_before=mean, mean_since=None)
    at, first_since = min(changes)
    return ErrorDrift(
        observations=len(errors),
        changed_at=at,
        mean_before=float(errors[:first_since].mean()),
        mean_since=float(errors[first_since:].mean()),
    )


def _change(values: Floats, delta: float) -> tuple[int, int] | None:
    """Number of the observation at which ADWIN finds the first change, and the first row of the newer part.

    Args:
        values: observations within [0, 1], shape (n_observations,).
    """
    from river.drift import ADWIN

    detector = ADWIN(delta=delta, clock=1)
    for row, value in enumerate(values.tolist()):
        detector.update(value)
        if detector.drift_detected:
            return row + 1, row + 1 - int(detector.width)
    return None
