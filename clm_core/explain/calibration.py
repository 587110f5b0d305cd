"""Calibration of forecast probabilities: value of the confidence of a version.

- Brier score: mean of (forecast - outcome)^2. With forecasts in bins of equal count the score is
  reliability - resolution + uncertainty (Murphy 1973), plus a part within the bins, since a bin holds
  different forecasts (Stephenson, Coelho & Jolliffe 2008). Skill: 1 - score / uncertainty, 0 for the base
  rate.
- Calibration error: mean distance between forecast and share of rises over the bins, weighted by count
  (Naeini et al. 2015). Bins of equal count have less bias than bins of equal width (Roelofs et al. 2022), and
  forecasts of returns lie close together. The error of a perfect forecast, by chance alone, stands beside.
- Intervals: Wilson's (1927) for shares, Hanley & McNeil's (1982) for the area under the ROC curve, normal for
  the skill, all at 95 % and with the number of outcomes without overlap (`forecasts`) as the number of
  observations.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clm_core.explain.estimates import NOT_MEASURED, BoundedEstimate, Z, skill_of, wilson
from clm_core.explain.forecasts import (
    ForecastRecord,
    Outcomes,
    independent_outcomes,
    once_per_record,
    outcomes_of,
)
from clm_core.market.bars import Floats

MAX_BINS = 10
MIN_IN_BIN = 20.0
"""Outcomes without overlap in a bin."""
ROC_POINTS = 100


@dataclass(frozen=True)
class Bin:
    """Forecasts close together, with outcomes."""

    forecasts: int
    independent: float
    """Equivalent number of outcomes without overlap."""
    mean: float
    """Mean forecast."""
    rises: BoundedEstimate
    """Share of rises."""


@dataclass(frozen=True)
class Brier:
    """Brier score in parts: score = reliability - resolution + uncertainty + within_bins."""

    score: float
    reliability: float
    """Mean squared distance between forecast and share of rises of a bin; 0 is best."""
    resolution: float
    """Mean squared distance between the share of rises of a bin and the base rate; larger is better."""
    uncertainty: float
    """Score of the base rate: the share of rises times that of falls."""
    within_bins: float
    """Variance of the forecasts within bins less twice the covariance with the outcomes."""
    skill: BoundedEstimate
    """1 - score / uncertainty; NaN where all outcomes are alike."""


@dataclass(frozen=True)
class Calls:
    """Bars with a direction called or held, with the share called right."""

    name: str
    forecasts: int
    independent: float
    right: BoundedEstimate
    """Share followed by the direction; NaN without bars."""
    always: float
    """Share of all forecasts followed by the direction: the precision of a constant call."""

    @property
    def better(self) -> bool:
        return self.right.low > self.always


@dataclass(frozen=True)
class Calibration:
    """Out-of-sample forecasts against outcomes."""

    forecasts: int
    independent: float
    """Equivalent number of outcomes without overlap."""
    base_rate: BoundedEstimate
    """Share of rises."""
    mean_forecast: float
    brier: Brier
    error: float
    """Calibration error."""
    error_by_chance: float
    """Calibration error to be expected of a perfect forecast with as many outcomes."""
    auc: BoundedEstimate
    """Area under the ROC curve: probability that a rise had the higher forecast than a fall; 0.5 by chance,
    NaN where all outcomes are alike."""
    roc: tuple[tuple[float, float], ...]
    """Shares of falls and of rises with at least a forecast, from (0, 0) to (1, 1)."""
    confusion: tuple[tuple[int, int], ...]
    """Forecasts of a rise, neither and a fall, each followed by a rise and by a fall."""
    threshold: float
    """Least distance of the probability from even odds for a call."""
    calls: tuple[Calls, ...]
    """Directions called by the forecasts at the threshold, and held by the positions."""
    bins: tuple[Bin, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "base_rate": self.base_rate.to_json(),
            "auc": self.auc.to_json(),
            "brier": asdict(self.brier) | {"skill": self.brier.skill.to_json()},
            "bins": [asdict(each) | {"rises": each.rises.to_json()} for each in self.bins],
            "calls": [asdict(each) | {"right": each.right.to_json()} for each in self.calls],
        }


@once_per_record
def calibration_of_record(record: ForecastRecord) -> Calibration:
    """Measures of the out-of-sample forecasts of a version.

    Raises:
        ExplanationUnavailable: the kind makes no forecasts, or not over a single horizon.
        NotEnoughBars: too few outcomes without overlap.
    """
    return calibration_of(outcomes_of(record), record.threshold)


def calibration_of(outcomes: Outcomes, threshold: float = 0.0) -> Calibration:
    """Measures of forecasts with a known outcome.

    Args:
        outcomes: at least 1 forecast.
        threshold: least distance of the probability from even odds for a call.
    """
    binned = _binned(outcomes)
    bins = tuple(map(_bin, binned))
    independent = outcomes.independent
    base_rate = share(outcomes)
    return Calibration(
        forecasts=len(outcomes),
        independent=independent,
        base_rate=base_rate,
        mean_forecast=float(outcomes.probability.mean()),
        brier=_brier(outcomes, binned, bins, independent),
        error=_weighted([abs(each.mean - each.rises.value) for each in bins], bins),
        error_by_chance=_weighted([_chance_error(each) for each in bins], bins),
        auc=area_under_roc(outcomes),
        roc=_roc(outcomes),
        confusion=_confusion(outcomes, threshold),
        threshold=threshold,
        calls=_calls(outcomes, threshold),
        bins=bins,
    )


def share(outcomes: Outcomes) -> BoundedEstimate:
    """Share of rises; NaN without outcomes."""
    if not len(outcomes):
        return NOT_MEASURED
    return wilson(float(outcomes.rise.mean()), outcomes.independent)


def area_under_roc(outcomes: Outcomes) -> BoundedEstimate:
    """Area under the ROC curve, with the standard error of Hanley & McNeil (1982); ties count half.

    NaN where all outcomes are alike.
    """
    rise = outcomes.rise > 0.5
    rises = int(np.count_nonzero(rise))
    falls = int(np.count_nonzero(~rise))
    if not (rises and falls):
        return NOT_MEASURED
    ranks = float(_mean_ranks(outcomes.probability)[rise].sum())
    area = (ranks - rises * (rises + 1) / 2) / (rises * falls)
    positive = max(outcomes.independent * rises / len(outcomes), 1.0)
    negative = max(outcomes.independent * falls / len(outcomes), 1.0)
    of_rises = area / (2 - area) - area**2
    of_falls = 2 * area**2 / (1 + area) - area**2
    variance = (area * (1 - area) + (positive - 1) * of_rises + (negative - 1) * of_falls) / (
        positive * negative
    )
    half = Z * math.sqrt(max(variance, 0.0))
    return BoundedEstimate(area, max(area - half, 0.0), min(area + half, 1.0))


def _mean_ranks(values: Floats) -> Floats:
    """Ranks from 1, equal values with the mean rank, shape (n,)."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse])


def _binned(outcomes: Outcomes) -> tuple[Outcomes, ...]:
    """Forecasts in bins of about equal count, lowest first; equal forecasts are in the same bin."""
    count = int(min(max(outcomes.independent / MIN_IN_BIN, 1.0), MAX_BINS))
    inner = np.quantile(outcomes.probability, np.arange(1, count) / count)
    number = np.searchsorted(np.unique(inner), outcomes.probability, side="left")
    return tuple(outcomes.where(number == each) for each in np.unique(number))


def _bin(outcomes: Outcomes) -> Bin:
    return Bin(
        forecasts=len(outcomes),
        independent=outcomes.independent,
        mean=float(outcomes.probability.mean()),
        rises=share(outcomes),
    )


def _weighted(values: Sequence[float], bins: Sequence[Bin]) -> float:
    return float(np.average(values, weights=[each.forecasts for each in bins]))


def _chance_error(each: Bin) -> float:
    """Mean distance of the share of rises from a perfect forecast, by a normal distribution."""
    variance = each.mean * (1 - each.mean) / max(each.independent, 1.0)
    return math.sqrt(2 / math.pi * variance)


def _brier(outcomes: Outcomes, binned: Sequence[Outcomes], bins: Sequence[Bin], independent: float) -> Brier:
    base = float(outcomes.rise.mean())
    losses = (outcomes.probability - outcomes.rise) ** 2
    uncertainty = base * (1 - base)
    return Brier(
        score=float(losses.mean()),
        reliability=_weighted([(each.mean - each.rises.value) ** 2 for each in bins], bins),
        resolution=_weighted([(each.rises.value - base) ** 2 for each in bins], bins),
        uncertainty=uncertainty,
        within_bins=_weighted(list(map(_within, binned)), bins),
        skill=skill_of(losses, (base - outcomes.rise) ** 2, independent),
    )


def _within(own: Outcomes) -> float:
    """Variance of the forecasts of a bin less twice the covariance with the outcomes."""
    beyond = own.probability - own.probability.mean()
    return float(np.mean(beyond**2) - 2 * np.mean(beyond * (own.rise - own.rise.mean())))


def _roc(outcomes: Outcomes) -> tuple[tuple[float, float], ...]:
    order = np.argsort(-outcomes.probability, kind="stable")
    rise = outcomes.rise[order]
    forecast = outcomes.probability[order]
    rises = np.cumsum(rise)
    falls = np.cumsum(1 - rise)
    if not (rises[-1] and falls[-1]):
        return ()
    # equal forecasts are a single step of the curve
    last = np.append(np.flatnonzero(np.diff(forecast)), len(forecast) - 1)
    picked = last[np.unique(np.linspace(0, len(last) - 1, ROC_POINTS).astype(int))]
    points = zip(falls[picked] / falls[-1], rises[picked] / rises[-1], strict=True)
    return ((0.0, 0.0), *((float(fall), float(rise)) for fall, rise in points))


def _called(outcomes: Outcomes, threshold: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """True where a rise, and where a fall, is called; even odds call nothing."""
    edge = outcomes.probability - 0.5
    return (edge > 0) & (edge >= threshold), (edge < 0) & (-edge >= threshold)


def _confusion(outcomes: Outcomes, threshold: float) -> tuple[tuple[int, int], ...]:
    up, down = _called(outcomes, threshold)
    rise = outcomes.rise > 0.5
    return tuple(
        (int(np.count_nonzero(called & rise)), int(np.count_nonzero(called & ~rise)))
        for called in (up, ~(up | down), down)
    )


def _calls(outcomes: Outcomes, threshold: float) -> tuple[Calls, ...]:
    up, down = _called(outcomes, threshold)
    long = outcomes.position > 0
    short = outcomes.position < 0
    chosen = (
        ("rise called", up, 1.0),
        ("fall called", down, 0.0),
        ("long", long, 1.0),
        ("short", short, 0.0),
    )
    return tuple(_calls_of(name, outcomes, rows, direction) for name, rows, direction in chosen)


def _calls_of(name: str, outcomes: Outcomes, rows: NDArray[np.bool_], direction: float) -> Calls:
    own = outcomes.where(rows)
    always = float(np.mean(outcomes.rise == direction))
    if not len(own):
        return Calls(name, 0, 0.0, NOT_MEASURED, always)
    independent = independent_outcomes(own.row, own.end)
    right = wilson(float(np.mean(own.rise == direction)), independent)
    return Calls(name, len(own), independent, right, always)
