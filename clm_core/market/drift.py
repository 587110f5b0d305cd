"""Data drift: distance between the features of the newest bars and the features of the training bars.

Features of neighbouring bars are dependent: a test for independent bars reports drift in every week of every
market. The training bars therefore serve as the reference: cut into stretches as long as the newest bars, the
distances of the stretches to the whole show the distances without drift. The largest distance of all
stretches and features is the limit, so that the number of features does not matter.

The distance is the mean gap between quantiles from 2.5 to 97.5 %, a truncated Wasserstein distance, which
grows with the distance of new values outside the training range. A population stability index stops growing
once all new values fall into the last bin, which is common in a week of a market. The index and the statistic
of Kolmogorov and Smirnov are given beside the distance, for comparison with other monitors; they decide
nothing here, since their limits are for independent rows.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from clm_core.market.bars import Floats

CALENDAR = frozenset({"hour_sin", "hour_cos", "weekday_sin", "weekday_cos"})
"""Calendar features, which do not depend on the market."""
PSI_BINS = 10
"""Bins of the population stability index, of equal share in the training."""
MIN_SHARE = 1e-4
"""Least share of a bin in the population stability index: an empty bin would make the index infinite."""
LEVELS = np.linspace(0.025, 0.975, 20)
MIN_STRETCHES = 10
"""Minimum number of training stretches: the largest distance among fewer says little."""
FEWEST_STRETCHES = MIN_STRETCHES
"""Former name of `MIN_STRETCHES`, kept for one release."""


class FeatureDrift(BaseModel):
    """Drift of a single feature."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    score: float
    """Distance in units of the largest distance of any feature within the training."""
    p_value: float
    """Probability of a distance as large without drift, by the feature's own training stretches."""
    psi: float | None = None
    """Population stability index against the training; None in a result of a release without it."""
    ks: float | None = None
    """Kolmogorov-Smirnov statistic against the training: largest distance of the two distribution functions,
    0..1."""


class Drift(BaseModel):
    """Drift of the newest bars relative to the training bars."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    score: float
    """Largest distance of any feature, in units of the largest distance within the training; without drift
    above 1 with probability of about 1 / (`stretches` + 1)."""
    features: tuple[str, ...]
    """Features with a score above 1, the largest first."""
    stretches: int
    """Number of training stretches compared."""
    by_feature: tuple[FeatureDrift, ...] = ()
    """Every feature that varies, the largest score first."""


def drift(reference: Floats, newest: Floats, names: Sequence[str]) -> Drift | None:
    """Drift of the newest bars against the training bars.

    Args:
        reference: features of the training bars, in time order, shape (n_reference, n_features), no NaN.
        newest: features of the newest bars, shape (n_newest, n_features), no NaN.
        names: names of the features, length n_features.

    Returns:
        The drift, or None if the reference is shorter than `MIN_STRETCHES` times the newest bars or all
        features are constant.
    """
    count = len(reference) // len(newest) if len(newest) else 0
    if count < MIN_STRETCHES:
        return None
    # sorted columns: the vectorised sort of NumPy takes a tenth of a selection of quantiles
    columns = np.ascontiguousarray(reference[len(reference) - count * len(newest) :].T)
    whole = np.sort(columns)
    recent = np.sort(np.ascontiguousarray(newest.T))
    quantiles = _quantiles(whole)
    own = _distance(quantiles, np.sort(columns.reshape(len(columns), count, -1)).swapaxes(0, 1))
    # features vary to different degrees: distances are scaled by the median distance of the feature
    usual = np.median(own, axis=0)
    varies = np.flatnonzero(usual > 0.0)
    if not len(varies):
        return None
    limit = (own[:, varies] / usual[varies]).max()
    distances = _distance(quantiles, recent)[varies]
    scores = distances / usual[varies] / limit
    p_values = _p_values(own[:, varies], distances)
    furthest = np.argsort(-scores, kind="stable")
    by_feature = tuple(
        FeatureDrift(
            name=names[varies[each]],
            score=float(scores[each]),
            p_value=float(p_values[each]),
            psi=stability_index(whole[varies[each]], recent[varies[each]]),
            ks=largest_distance(whole[varies[each]], recent[varies[each]]),
        )
        for each in furthest
    )
    return Drift(
        score=float(scores.max()),
        features=tuple(each.name for each in by_feature if each.score > 1.0),
        stretches=count,
        by_feature=by_feature,
    )


def stability_index(reference: Floats, newest: Floats) -> float:
    """Population stability index of new values, over bins between the deciles of the reference: the sum of
    (q - p) ln(q / p) over the shares p of the reference and q of the new values, each at least `MIN_SHARE`.

    Args:
        reference: ascending, shape (n_reference,), at least one value, no NaN.
        newest: ascending, shape (n_newest,), at least one value, no NaN.
    """
    edges = np.unique(np.quantile(reference, np.linspace(0.0, 1.0, PSI_BINS + 1)[1:-1]))
    expected, observed = (
        np.maximum(
            np.diff(np.searchsorted(each, edges, side="right"), prepend=0, append=len(each)) / len(each),
            MIN_SHARE,
        )
        for each in (reference, newest)
    )
    return float(np.sum((observed - expected) * np.log(observed / expected)))


def largest_distance(reference: Floats, newest: Floats) -> float:
    """Two-sample statistic of Kolmogorov and Smirnov, 0..1; arguments as in `stability_index`."""
    # between two new values only the reference rises: the largest distance lies at one of them
    shares = (
        [np.searchsorted(each, newest, side=side) / len(each) for each in (reference, newest)]
        for side in ("left", "right")
    )
    return float(max(np.abs(of_reference - of_newest).max() for of_reference, of_newest in shares))


def _p_values(own: Floats, newest: Floats) -> Floats:
    """Probability of a distance as large as the newest, by Student's prediction interval of log distances.

    A stretch is a part of the whole with which it is compared, which draws the whole towards it: its distance
    to the others is larger by a factor of n / (n - 1).

    Args:
        own: distances of the training stretches, shape (n_stretches, n_features), not all 0 in any column.
        newest: distances of the newest bars, shape (n_features,).

    Returns:
        Shape (n_features,), within [0, 1].
    """
    from scipy.special import stdtr

    count = len(own)
    # a stretch like the whole, as of a feature that seldom moves, has a distance of 0
    floor = 1e-3 * np.median(own, axis=0)
    logs = np.log(np.maximum(own, floor) * count / (count - 1))
    deviation = np.maximum(logs.std(axis=0, ddof=1), 1e-9) * np.sqrt(1 + 1 / count)
    units = (np.log(np.maximum(newest, floor)) - logs.mean(axis=0)) / deviation
    return np.asarray(stdtr(count - 1, -units))


def _distance(quantiles: Floats, values: Floats) -> Floats:
    """Mean absolute gap between the quantiles of ascending values, shape (..., n_values), and reference
    quantiles at `LEVELS`, shape (..., n_levels); shape (...)."""
    return np.asarray(np.abs(quantiles - _quantiles(values)).mean(axis=-1))


def _quantiles(values: Floats) -> Floats:
    """Quantiles at `LEVELS` of ascending values, shape (..., n_values); shape (..., n_levels)."""
    place = LEVELS * (values.shape[-1] - 1)
    below = place.astype(np.intp)
    lower = values[..., below]
    upper = values[..., np.minimum(below + 1, values.shape[-1] - 1)]
    return np.asarray(lower + (upper - lower) * (place - below))
