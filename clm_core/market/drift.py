"""Data drift: distance between the features of the newest bars and the features of the training bars.

Features of neighbouring bars are dependent: a test for independent bars reports drift in every week of every
market. The training bars therefore serve as the reference: cut into stretches as long as the newest bars, the
distances of the stretches to the whole show the distances without drift. The largest distance of all
stretches and features is the limit, so that the number of features does not matter.

The distance is the mean gap between quantiles from 2.5 to 97.5 %, a truncated Wasserstein distance, which
grows with the distance of new values outside the training range. A population stability index stops growing
once all new values fall into the last bin, which is common in a week of a market.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from clm_core.market.bars import Floats

CALENDAR = frozenset({"hour_sin", "hour_cos", "weekday_sin", "weekday_cos"})
"""Calendar features, which do not depend on the market."""
LEVELS = np.linspace(0.025, 0.975, 20)
MIN_STRETCHES = 10
"""Minimum number of training stretches: the largest distance among fewer says little."""
FEWEST_STRETCHES = MIN_STRETCHES
"""Former name of `MIN_STRETCHES`, kept for one release."""


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
    whole = reference[len(reference) - count * len(newest) :]
    quantiles = np.quantile(whole, LEVELS, axis=0)
    own = np.array([_distance(quantiles, stretch) for stretch in np.split(whole, count)])
    # features vary to different degrees: distances are scaled by the median distance of the feature
    usual = np.median(own, axis=0)
    varies = np.flatnonzero(usual > 0.0)
    if not len(varies):
        return None
    limit = (own[:, varies] / usual[varies]).max()
    scores = _distance(quantiles, newest)[varies] / usual[varies] / limit
    furthest = np.argsort(-scores, kind="stable")
    return Drift(
        score=float(scores.max()),
        features=tuple(names[varies[each]] for each in furthest if scores[each] > 1.0),
        stretches=count,
    )


def _distance(quantiles: Floats, values: Floats) -> Floats:
    """Mean absolute gap between the quantiles of values, shape (n_rows, n_features), and reference quantiles
    at `LEVELS`, shape (n_levels, n_features); shape (n_features,)."""
    return np.asarray(np.abs(quantiles - np.quantile(values, LEVELS, axis=0)).mean(axis=0))
