"""Momentum: follow the price change over a look-back.

The score after bar t is the return over the last L = `look_back` bars,

    close(t) / close(t - L) - 1

Long above the threshold, short below its negative, and out once the return changes sign. Source: time-series
momentum, Moskowitz, Ooi & Pedersen 2012, Journal of Financial Economics 104, with a threshold.
"""

from typing import Annotated

import numpy as np
from pydantic import Field

from clm_core.domain.search_space import Between
from clm_core.domain.vocabulary import RuleFamily
from clm_core.market.bars import Bars, Floats
from clm_core.models.strategies.rules import Rule, RuleParams, compiled, kind_of


class MomentumParams(RuleParams):
    look_back: Annotated[int, Between(5, 240, log=True)] = Field(default=20, ge=1, le=2_000)
    """Bars of the return; 1..2,000."""
    threshold: Annotated[float, Between(0.002, 0.1, log=True)] = Field(default=0.02, ge=0, le=10)
    """Least size of the return that begins a trade, as a fraction."""


@compiled
def returns_over(close: Floats, look_back: int) -> Floats:
    """Simple returns over a look-back, shape (n_bars,); NaN in the first `look_back` rows."""
    returns = np.full(len(close), np.nan)
    for bar in range(look_back, len(close)):
        returns[bar] = close[bar] / close[bar - look_back] - 1.0
    return returns


def _score(bars: Bars, look_back: int) -> Floats:
    return returns_over(bars.close, look_back)


RULE = Rule(
    RuleFamily.MOMENTUM,
    MomentumParams,
    _score,
    entry_look_backs=("look_back",),
    bars_before=lambda params: params.look_back,
)
KIND = kind_of(RULE)
