"""Breakout: follow a close beyond the range of the bars before.

With the highest high H(t) and the lowest low L(t) of the `look_back` bars before bar t, the score after bar t
is

    close(t) / H(t) - 1 where close(t) > H(t),    close(t) / L(t) - 1 where close(t) < L(t),    else 0

Long above the threshold, short below its negative. A long ends at a close below the lowest low of the
`exit_look_back` bars before, a short at a close above the highest high. Source: Donchian's channels, as in
the rules of the Turtles (Faith 2007, Way of the Turtle), with a threshold.
"""

from typing import Annotated

import numpy as np
from pydantic import Field

from clm_core.domain.search_space import Between
from clm_core.domain.vocabulary import RuleFamily
from clm_core.market.bars import Bars, Floats
from clm_core.models.strategies.rules import Rule, RuleParams, compiled, highest_before, kind_of


class BreakoutParams(RuleParams):
    look_back: Annotated[int, Between(10, 240, log=True)] = Field(default=50, ge=1, le=2_000)
    """Bars of the range that begins a trade; 1..2,000."""
    exit_look_back: Annotated[int, Between(5, 120, log=True)] = Field(default=25, ge=1, le=2_000)
    """Bars of the range that ends a trade; 1..2,000."""
    threshold: Annotated[float, Between(0.0, 0.02)] = Field(default=0.0, ge=0, le=10)
    """Least distance from the range that begins a trade, as a fraction."""


@compiled
def beyond(close: Floats, highest: Floats, lowest: Floats) -> Floats:
    """Distance of the close from a range, as a fraction, shape (n_bars,); 0 within, NaN without a range."""
    distance = np.full(len(close), np.nan)
    for bar in range(len(close)):
        if close[bar] > highest[bar]:
            distance[bar] = close[bar] / highest[bar] - 1.0
        elif close[bar] < lowest[bar]:
            distance[bar] = close[bar] / lowest[bar] - 1.0
        elif not np.isnan(highest[bar]):
            distance[bar] = 0.0
    return distance


def _score(bars: Bars, look_back: int) -> Floats:
    return beyond(bars.close, highest_before(bars.high, look_back), -highest_before(-bars.low, look_back))


RULE = Rule(
    RuleFamily.BREAKOUT,
    BreakoutParams,
    _score,
    entry_look_backs=("look_back",),
    exit_look_backs=("exit_look_back",),
    bars_before=lambda params: max(params.look_back, params.exit_look_back),
)
KIND = kind_of(RULE)
