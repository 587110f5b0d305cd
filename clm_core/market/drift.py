"""Whether the newest bars are like those a model was trained on.

Features of neighbouring bars resemble each other: a test that takes bars for independent finds drift in every
week of every market. Here the training is its own yardstick. It is cut into stretches as long as the newest
bars; how far each of them lies from the whole shows how far stretches lie that have not drifted. The largest
of all stretches and all features is the yardstick, so it does not matter how many features there are.

Distance is the mean gap between quantiles, cut off at 2.5 and 97.5 %: Wasserstein's, which goes on growing
where the newest bars lie outside of everything seen before. A population stability index does not, once they
all are in its last bin, and many a week of a market is.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from clm_core.market.bars import Floats

CALENDAR = frozenset({"hour_sin", "hour_cos", "weekday_sin", "weekday_cos"})
"""Features that no market moves."""
LEVELS = np.linspace(0.025, 0.975, 20)
MIN_STRETCHES = 10
"""Minimum number of training stretches: the largest distance among fewer says little."""
FEWEST_STRETCHES = MIN_STRETCHES
"""Former name of `MIN_STRETCHES`, kept for one release."""


class Drift(BaseModel):
    """How far the newest bars lie from the training."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    score: float
    """1: as far as the furthest stretch of the training does itself. Without any drift it is above 1 with a
    chance of about 1 in `stretches` + 1."""
    features: tuple[str, ...]
    """Those that lie further than any did in the training, furthest first."""
    stretches: int
    """Of the training, that were compared."""


def drift(reference: Floats, newest: Floats, names: Sequence[str]) -> Drift | None:
    """
    Args:
        reference: features of the bars trained on, in time order, shape (n_reference, n_features), no NaN.
        newest: of the newest bars, shape (n_newest, n_features), no NaN.
        names: of the features, n_features of them.

    Returns:
        None where the reference is shorter than `MIN_STRETCHES` times the newest bars, or nothing varies.
    """
    count = len(reference) // len(newest) if len(newest) else 0
    if count < MIN_STRETCHES:
        return None
    whole = reference[len(reference) - count * len(newest) :]
    quantiles = np.quantile(whole, LEVELS, axis=0)
    own = np.array([_distance(quantiles, stretch) for stretch in np.split(whole, count)])
    # some features wander more than others: each is measured by how far it usually does
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
    """How far values, shape (n_rows, n_features), lie from quantiles at `LEVELS`, shape (n_features,)."""
    return np.asarray(np.abs(quantiles - np.quantile(values, LEVELS, axis=0)).mean(axis=0))
