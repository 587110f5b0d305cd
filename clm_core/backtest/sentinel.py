"""What every retrain proves before anything of it is registered: that nothing it uses knows the future.

Three experiments on the newest bars. The future after sampled bars is changed in every way that
`market.look_ahead` knows: no feature and no position up to them may move. A canary, a feature that does know
the next bar, must be caught by the same experiment, or it proves nothing. And the recipe is fitted on bars
whose returns were shuffled, so that nothing is left to be learnt: whoever still earns there sees what it
should not.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

from clm_core.backtest.engine import backtest
from clm_core.domain.costs import Costs
from clm_core.domain.errors import LookAhead
from clm_core.domain.execution import Execution
from clm_core.market.bars import FIELDS, Bars, Floats
from clm_core.market.features import FEATURES, compute_features
from clm_core.market.look_ahead import first_leak
from clm_core.models.contract import Model, Recipe

NEWEST = 3000
"""Bars the experiments are made on."""
CANARY = "canary: the next bar's return"
LARGEST_SCORE = 5.0
"""Standard errors that shuffled bars may earn: luck goes beyond in one retrain of three million."""

Column = Callable[[Bars], Floats]


def examine(recipe: Recipe, model: Model, bars: Bars, seed: int) -> None:
    """Make the three experiments.

    Args:
        model: what the recipe made of `bars`.
        seed: of the sampled rows and the shuffle; the recipe is fitted with it too.

    Raises:
        LookAhead: names what sees the future.
    """
    newest, rng = bars[-NEWEST:], np.random.default_rng(seed)
    rows = sorted(rng.integers(len(newest) // 2, len(newest) - 1, size=2).tolist())
    examine_features(FEATURE_COLUMNS, newest, rows)
    seen = first_leak(model.positions, newest, rows[-1:])
    if seen is not None:
        raise LookAhead("the model's positions", seen)
    examine_learning(recipe, newest, seed)


def examine_features(columns: Mapping[str, Column], bars: Bars, rows: list[int]) -> None:
    """Each column must not move when the future does, and the canary must."""
    if first_leak(next_return, bars, rows) is None:
        raise LookAhead(CANARY, "the experiment does not notice it, so it proves nothing of the others")
    for name, compute in columns.items():
        seen = first_leak(compute, bars, rows)
        if seen is not None:
            raise LookAhead(f"the feature {name}", seen)


def examine_learning(recipe: Recipe, bars: Bars, seed: int) -> None:
    """Two thirds of shuffled bars to learn from, a third to earn nothing on."""
    shuffled = shuffle(bars, np.random.default_rng(seed))
    first = len(shuffled) * 2 // 3
    model = recipe.fit(shuffled[:first], seed)
    positions = model.positions(shuffled)[first:]
    score = earned(shuffled[first:], positions)
    if score > LARGEST_SCORE:
        raise LookAhead(
            "the recipe", f"it earns {score:.1f} standard errors on bars whose returns were shuffled"
        )


def shuffle(bars: Bars, rng: np.random.Generator) -> Bars:
    """The same bars in another order at the same times, each as far from the close before it as it was, with
    the drift taken out; shape and costs of trading stay, what one bar says of the next is gone."""
    before = np.concatenate([bars.open[:1], bars.close[:-1]])
    drift = math.exp(np.mean(np.log(bars.close / before)))
    order = rng.permutation(len(bars))
    relative = {name: (getattr(bars, name) / before / drift)[order] for name in FIELDS[:4]}
    level = bars.open[0] * np.concatenate([[1.0], np.cumprod(relative["close"])[:-1]])
    prices = {name: values * level for name, values in relative.items()}
    return Bars(bars.symbol, bars.timeframe, bars.calendar, bars.time, **prices, volume=bars.volume[order])


def earned(bars: Bars, positions: Floats) -> float:
    """Mean return of a bar, before costs, in standard errors; 0.0 for positions that never trade."""
    returns = backtest(bars, positions, Costs(fee_bps=0.0, slippage_bps=0.0), Execution()).returns
    deviation = float(returns.std())
    return 0.0 if deviation == 0.0 else float(returns.mean()) / deviation * math.sqrt(len(returns))


def next_return(bars: Bars) -> Floats:
    """The canary: it knows what nobody can know."""
    return np.append(bars.close[1:] / bars.close[:-1] - 1.0, np.nan)


def _column(name: str) -> Column:
    return lambda bars: compute_features(bars, (name,)).values


FEATURE_COLUMNS: Mapping[str, Column] = {name: _column(name) for name in FEATURES}
