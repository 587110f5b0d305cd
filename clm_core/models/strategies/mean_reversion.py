"""Mean reversion: trade against a close far from the mean.

With the mean m(t) and the standard deviation s(t) of the last L = `look_back` closes, bar t included, the
score after bar t is

    (m(t) - close(t)) / s(t)

and 0 where the closes agree to twelve digits. Long above the threshold, that is far below the mean, short
below its negative, and out once the close is on the other side of the mean. Source: the bands of Bollinger
2001, Bollinger on Bollinger Bands, 20 bars and two standard deviations (divisor L).
"""

from typing import Annotated

import numpy as np
from pydantic import Field

from clm_core.domain.execution import OptionalLimit
from clm_core.domain.search_space import Between
from clm_core.domain.vocabulary import RuleFamily
from clm_core.market.bars import Bars, Floats
from clm_core.models.strategies.rules import Rule, RuleParams, compiled, kind_of, window_means


class MeanReversionParams(RuleParams):
    look_back: Annotated[int, Between(10, 240, log=True)] = Field(default=20, ge=2, le=2_000)
    """Bars of mean and standard deviation; 2..2,000."""
    threshold: Annotated[float, Between(1.0, 3.5)] = Field(default=2.0, ge=0, le=20)
    """Least distance from the mean that begins a trade, standard deviations."""
    take_profit: Annotated[OptionalLimit, Between(0.01, 0.1, log=True)] = Field(default=0.03, gt=0)
    """Favourable move from the entry price at a close that ends a trade, as a fraction; "none" for no
    target."""


@compiled
def below_mean(close: Floats, means: Floats, look_back: int) -> Floats:
    """Distance below the mean in standard deviations, shape (n_bars,); NaN without a full window."""
    squares = np.zeros(len(close))
    for age in range(look_back):
        for bar in range(look_back - 1, len(close)):
            deviation = close[bar - age] - means[bar]
            squares[bar] += deviation * deviation
    distance = np.full(len(close), np.nan)
    for bar in range(look_back - 1, len(close)):
        spread = np.sqrt(squares[bar] / look_back)
        # the mean of equal closes may differ from them in the last digit
        is_flat = spread <= 1e-12 * means[bar]
        distance[bar] = 0.0 if is_flat else (means[bar] - close[bar]) / spread
    return distance


def _score(bars: Bars, look_back: int) -> Floats:
    return below_mean(bars.close, window_means(bars.close, look_back), look_back)


RULE = Rule(
    RuleFamily.MEAN_REVERSION,
    MeanReversionParams,
    _score,
    entry_look_backs=("look_back",),
    bars_before=lambda params: params.look_back - 1,
)
KIND = kind_of(RULE)
