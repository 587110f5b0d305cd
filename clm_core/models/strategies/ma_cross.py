"""Crossover of moving averages: follow the fast mean above or below the slow mean.

With the means F(t) and S(t) of the last `fast` and `slow` closes, bar t included, the score after bar t is

    F(t) / S(t) - 1

Long above the threshold, short below its negative, and out once the means have crossed back. Source: the
variable-length moving average rule with a band of 1 %, Brock, Lakonishok & LeBaron 1992, Journal of Finance
47, section II.
"""

from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from clm_core.domain.search_space import Between
from clm_core.domain.vocabulary import RuleFamily
from clm_core.market.bars import Bars, Floats
from clm_core.models.strategies.rules import Rule, RuleParams, compiled, kind_of, window_means


class MaCrossParams(RuleParams):
    fast: Annotated[int, Between(2, 40, log=True)] = Field(default=20, ge=1, le=1_000)
    """Bars of the fast mean, fewer than `slow`; 1..1,000."""
    slow: Annotated[int, Between(50, 240, log=True)] = Field(default=100, ge=2, le=2_000)
    """Bars of the slow mean; 2..2,000."""
    threshold: Annotated[float, Between(0.0, 0.05)] = Field(default=0.01, ge=0, le=10)
    """Least distance of the means that begins a trade, as a fraction."""

    @model_validator(mode="after")
    def _fast_below_slow(self) -> Self:
        if self.fast >= self.slow:
            raise ValueError(f"fast={self.fast} is not below slow={self.slow}: give a shorter fast mean")
        return self


@compiled
def distance_of(fast: Floats, slow: Floats) -> Floats:
    """Distance of the fast from the slow means as a fraction, shape (n_bars,); NaN where a mean is."""
    distance = np.empty(len(fast))
    for bar in range(len(fast)):
        distance[bar] = fast[bar] / slow[bar] - 1.0
    return distance


def _score(bars: Bars, fast: int, slow: int) -> Floats:
    return distance_of(window_means(bars.close, fast), window_means(bars.close, slow))


RULE = Rule(
    RuleFamily.MA_CROSS,
    MaCrossParams,
    _score,
    entry_look_backs=("fast", "slow"),
    bars_before=lambda params: params.slow - 1,
)
KIND = kind_of(RULE)
