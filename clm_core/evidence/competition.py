"""Several versions want one place: is the best of them better than what serves, luck allowed for?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from clm_core.domain.errors import MissingExtra, NotEnoughBars
from clm_core.evidence.trials import TrialRecord, aligned
from clm_core.market.bars import Floats

FEWEST_DAYS = 60
RESAMPLES = 2000


@dataclass(frozen=True)
class Competition:
    """The answer of two tests over the days that all of them traded out of sample."""

    days: int
    p_value: float
    """Chance of a best one this much better than the benchmark if none is better at all, 0..1."""
    superior: tuple[str, ...]
    """Those that are better, all of them together wrong with probability `size` at most."""
    size: float
    sharpes: Mapping[str, float]
    """Of a day."""


def compete(
    candidates: Mapping[str, TrialRecord], champion: TrialRecord | None, size: float, seed: int
) -> Competition:
    """Test for superior predictive ability (Hansen 2005, "A test for superior predictive ability", Journal of
    Business & Economic Statistics 23(4); the consistent p-value) and stepwise multiple testing (Romano & Wolf
    2005, "Stepwise multiple testing as formalized data snooping", Econometrica 73(4)), both by `arch`, on a
    day's returns with a stationary bootstrap.

    Args:
        candidates: by name, at least one.
        champion: what serves; None: no position, which earns nothing.
        size: chance to call any candidate better that isn't, 0..0.5 exclusive.

    Raises:
        MissingExtra: arch is not installed.
        NotEnoughBars: less than `FEWEST_DAYS` days are common to all.
    """
    tests = _arch()
    everyone = [*candidates.values(), *([] if champion is None else [champion])]
    returns = _common(aligned(everyone))
    if len(returns) < FEWEST_DAYS:
        raise NotEnoughBars(
            f"{len(returns)} days are common to all {len(everyone)} versions, and {FEWEST_DAYS} are the "
            "fewest to compare on: retrain those that were tested on other days"
        )
    losses = -returns[:, : len(candidates)]
    benchmark = np.zeros(len(returns)) if champion is None else -returns[:, -1]
    spa = tests.SPA(benchmark, losses, reps=RESAMPLES, seed=seed)
    spa.compute()
    stepwise = tests.StepM(benchmark, losses, size=size, reps=RESAMPLES, seed=seed)
    stepwise.compute()
    names = list(candidates)
    sharpes = -losses.mean(axis=0) / losses.std(axis=0, ddof=1)
    return Competition(
        days=len(returns),
        p_value=float(spa.pvalues["consistent"]),
        superior=tuple(names[int(place)] for place in stepwise.superior_models),
        size=size,
        sharpes=dict(zip(names, sharpes.tolist(), strict=True)),
    )


def _common(returns: Floats) -> Floats:
    """The days on which everyone traded; shape (n_days, n_versions)."""
    return returns[np.isfinite(returns).all(axis=1)]


def _arch() -> Any:
    try:
        from arch import bootstrap
    except ImportError as error:
        raise MissingExtra("arch", "compete") from error
    return bootstrap
