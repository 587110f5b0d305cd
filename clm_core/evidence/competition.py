"""Competition of several versions against the production version, with multiple-testing control."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from clm_core.domain.errors import MissingExtra, NotEnoughBars
from clm_core.evidence.trials import TrialRecord, aligned
from clm_core.market.bars import Floats

MIN_DAYS = 60
RESAMPLES = 2000


@dataclass(frozen=True)
class Competition:
    """Results of two tests over the days that all versions traded out of sample."""

    days: int
    p_value: float
    """Probability of a lead as large as the best version's if no version is better, 0..1."""
    superior: tuple[str, ...]
    """Names of the better versions; the family-wise error rate is at most `size`."""
    size: float
    sharpes: Mapping[str, float]
    """Sharpe ratio of a day, by name."""


def compete(
    candidates: Mapping[str, TrialRecord], champion: TrialRecord | None, size: float, seed: int
) -> Competition:
    """Test candidates against the champion on daily returns with a stationary bootstrap, by `arch`.

    The tests are the one for superior predictive ability (Hansen 2005, "A test for superior predictive
    ability", Journal of Business & Economic Statistics 23(4); the consistent p-value) and stepwise multiple
    testing (Romano & Wolf 2005, "Stepwise multiple testing as formalized data snooping", Econometrica 73(4)).

    Args:
        candidates: trial records by name, at least one.
        champion: record of the production version; None compares with no position, which earns 0.
        size: probability of calling any candidate better wrongly, 0..0.5 exclusive.
        seed: seed of the bootstrap.

    Raises:
        MissingExtra: arch is not installed.
        NotEnoughBars: fewer than `MIN_DAYS` days are common to all versions.
    """
    tests = _arch()
    records = [*candidates.values(), *([] if champion is None else [champion])]
    returns = _common(aligned(records))
    if len(returns) < MIN_DAYS:
        raise NotEnoughBars(
            f"{len(returns)} days are common to all {len(records)} versions, and a comparison needs at least "
            f"{MIN_DAYS}: retrain the versions tested on other days"
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
    """Returns of the days without a NaN in any column, shape (n_days, n_versions)."""
    return returns[np.isfinite(returns).all(axis=1)]


def _arch() -> Any:
    try:
        from arch import bootstrap
    except ImportError as error:
        raise MissingExtra("arch", "compete") from error
    return bootstrap
