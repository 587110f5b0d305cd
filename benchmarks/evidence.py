"""Stationary bootstrap of Sharpe ratios against arch, with equally distributed draws."""

from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any, cast

import numpy as np
from arch.bootstrap import StationaryBootstrap

from benchmarks.table import Row, faster, timed
from clm_core.decisions.return_streams import Shape, draw_returns
from clm_core.evidence.bootstrap import block_length, difference_draws, sharpe_draws
from clm_core.market.bars import Floats

N_BARS = 10_000
RESAMPLES = 2_000
DAY = 24.0
"""Mean block of hourly bars."""
REPEATS = 5
FASTER = 50.0
QUANTILES = (0.025, 0.25, 0.5, 0.75, 0.975)
AGREEMENT = 0.25
"""Largest allowed gap between quantiles, in standard deviations of the draws: three standard errors of the
outer quantiles."""

Draws = Callable[[], Floats]


def rows() -> list[Row]:
    rng = np.random.default_rng(0)
    challenger, champion = draw_returns(Shape.AUTOREGRESSIVE, 0.03, (N_BARS, 2), rng).T.copy()
    automatic = block_length(challenger - champion)
    return [
        compared(
            f"Sharpe ratio, {RESAMPLES:,} resamples of {N_BARS:,} bars, blocks of {DAY:g}",
            lambda: sharpe_draws(challenger, DAY, RESAMPLES, np.random.default_rng(1)),
            arch_draws(sharpe, DAY, challenger),
            FASTER,
        ),
        *(
            compared(
                f"Sharpe difference, the same, blocks of {block:.3g}",
                partial(our_differences, challenger, champion, block),
                arch_draws(difference, block, challenger, champion),
                target,
            )
            for block, target in ((DAY, FASTER), (automatic, None))
        ),
    ]


def our_differences(challenger: Floats, champion: Floats, block: float) -> Floats:
    return difference_draws(challenger, champion, block, RESAMPLES, np.random.default_rng(1))


def sharpe(returns: Floats) -> float:
    return float(returns.mean() / returns.std(ddof=1))


def difference(challenger: Floats, champion: Floats) -> float:
    return sharpe(challenger) - sharpe(champion)


def arch_draws(statistic: Callable[..., Any], block: float, *series: Floats) -> Draws:
    return lambda: np.asarray(
        StationaryBootstrap(cast(Any, block), *series, seed=np.random.default_rng(2)).apply(
            statistic, RESAMPLES
        )
    )[:, 0]


def compared(name: str, ours: Draws, theirs: Draws, target: float | None) -> Row:
    refuse_disagreement(ours(), theirs())
    peer = f"arch {version('arch')}"
    return faster(name, timed(ours, REPEATS), peer, timed(theirs, REPEATS), target)


def refuse_disagreement(ours: Floats, theirs: Floats) -> None:
    distance = np.abs(np.quantile(ours, QUANTILES) - np.quantile(theirs, QUANTILES)).max() / theirs.std()
    if not distance <= AGREEMENT:
        raise AssertionError(f"quantiles of the draws are {distance:.2f} standard deviations from arch's")
