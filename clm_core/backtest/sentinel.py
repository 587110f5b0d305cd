"""Leak test of every retrain, before the registration: features, positions and training use no future bars.

Own features are examined before the training, by `market.feature_check`. Three experiments on the newest bars
follow the training:

1.  Features: the bars after sampled rows are changed in every way known to `market.look_ahead`; no feature
    may move up to the sampled rows. A positive control, a feature with knowledge of the next bar, must be
    flagged by the same experiment, otherwise the experiment proves nothing.
2.  Positions: the same experiment on the fitted model's positions.
3.  Training: the recipe is fitted on bars with shuffled returns, where nothing is left to learn. Earning
    there means looking ahead.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from clm_core.backtest.engine import backtest
from clm_core.domain.costs import Costs
from clm_core.domain.errors import InvalidTrainingParams, LookAhead
from clm_core.domain.execution import Execution
from clm_core.market.bars import FIELDS, Bars, Floats
from clm_core.market.feature_check import ExaminedFeature
from clm_core.market.feature_check import examine as examine_feature
from clm_core.market.features import FEATURES, compute_features, select_features
from clm_core.market.look_ahead import first_leak
from clm_core.market.own_features import OwnFeature
from clm_core.models.contract import Model, Recipe

NEWEST = 3000
"""Least number of bars in the experiments."""
SETTLED_MEMORIES = 2
"""Least number of bars for features and positions, in memories of the model: from the second half on,
positions depend on no more history."""
MEMORIES = 3
"""Least number of bars to train on, in memories of the model: a rule of months is learnt in years."""
POSITIVE_CONTROL = "the positive control (the next bar's return)"
LARGEST_SCORE = 5.0
"""Maximum mean return on shuffled bars, in standard errors; chance exceeds 5 once in 3 million retrains."""

Column = Callable[[Bars], Floats]


def examine(recipe: Recipe, model: Model, bars: Bars, seed: int) -> None:
    """Run the three experiments.

    Args:
        recipe: recipe of the version's own fit, which grows as many trees as the folds needed.
        model: result of fitting the recipe on `bars`.
        seed: seed of the sampled rows, of the shuffle and of the recipe's fit.

    Raises:
        LookAhead: an experiment found a leak; the message names the culprit.
    """
    settled = settled_bars(bars, model)
    rng = np.random.default_rng(seed)
    rows = sorted(rng.integers(len(settled) // 2, len(settled) - 1, size=2).tolist())
    examine_features_and_positions(model, settled, rows)
    examine_learning(recipe, bars[-max(NEWEST, MEMORIES * (model.bars_needed or 0)) :], seed)


def settled_bars(bars: Bars, model: Model) -> Bars:
    """Newest bars, in whose second half the model's positions depend on no more history."""
    return bars[-max(NEWEST, SETTLED_MEMORIES * (model.bars_needed or 0)) :]


def examine_features_and_positions(model: Model, bars: Bars, rows: list[int]) -> None:
    """Features experiment at all rows, and the experiment on the model's positions at the last row.

    Features and positions are examined on the same changed bars at the last row, where a model of built-in
    features takes the values computed already; one after the other only to name a culprit.

    Raises:
        LookAhead: a feature or the positions use future bars, or the experiment misses the positive control.
    """
    _require_control(bars, rows)
    # held here: the values of the unchanged bars serve both
    whole = _built_in(bars)
    leak = first_leak(_built_in, bars, rows[:-1]) if rows[:-1] else None
    leak = leak or first_leak(_built_in, bars, rows[-1:], model.positions)
    if leak is not None:
        examine_built_in_features(bars, rows)
        leak = first_leak(model.positions, bars, rows[-1:]) or leak
        raise LookAhead("the model's positions", leak)
    del whole


def examine_own_features(names: Sequence[str], bars: Bars, seed: int) -> list[ExaminedFeature]:
    """Examine the own features among the named features; built-in features are left out.

    Args:
        seed: seed of the sampled rows.

    Raises:
        LookAhead: an own feature uses future bars.
        FeatureFailed: an own feature raises, gives no number, or remembers more bars than declared.
    """
    own = [each for each in select_features(names) if isinstance(each, OwnFeature)]
    return [examine_feature(each, bars, np.random.default_rng(seed)) for each in own]


def examine_features(columns: Mapping[str, Column], bars: Bars, rows: list[int]) -> None:
    """Features experiment: no column may move with the future, and the positive control must.

    Raises:
        LookAhead: a column uses future bars, or the experiment misses the positive control.
    """
    _require_control(bars, rows)
    for name, compute in columns.items():
        leak = first_leak(compute, bars, rows)
        if leak is not None:
            raise LookAhead(f"the feature {name}", leak)


def examine_built_in_features(bars: Bars, rows: list[int]) -> None:
    """Features experiment on all built-in features at once; one at a time only to name a culprit.

    Raises:
        LookAhead: a feature uses future bars, or the experiment misses the positive control.
    """
    _require_control(bars, rows)
    leak = first_leak(_built_in, bars, rows)
    if leak is not None:
        examine_features(FEATURE_COLUMNS, bars, rows)
        raise LookAhead("the table of the features", leak)


def _built_in(bars: Bars) -> Floats:
    """Values of all built-in features, shape (n_bars, n_features)."""
    return compute_features(bars).values


def _require_control(bars: Bars, rows: list[int]) -> None:
    if first_leak(next_return, bars, rows) is None:
        raise LookAhead(POSITIVE_CONTROL, "the leak test missed the control and so proves nothing")


def examine_learning(recipe: Recipe, bars: Bars, seed: int) -> None:
    """Training experiment: fit on the first two thirds of shuffled bars, and earn nothing on the last third.

    Raises:
        LookAhead: the model earns more than `LARGEST_SCORE` standard errors.
    """
    shuffled = shuffle(bars, np.random.default_rng(seed))
    first = len(shuffled) * 2 // 3
    try:
        model = recipe.fit(shuffled[:first], seed)
    except InvalidTrainingParams:
        # a rule whose threshold no shuffled bar passes takes no position, and earns nothing
        return
    # as many bars before as settle the positions
    begin = max(0, first - (model.bars_needed or first))
    positions = model.positions(shuffled[begin:])[first - begin :]
    score = return_score(shuffled[first:], positions)
    if score > LARGEST_SCORE:
        raise LookAhead(
            "the recipe", f"a mean return of {score:.1f} standard errors on bars with shuffled returns"
        )


def shuffle(bars: Bars, rng: np.random.Generator) -> Bars:
    """Shuffle the bars, with the times in place and the drift removed.

    Each bar keeps its prices relative to the close before. Shapes of bars and costs of trading stay the same;
    the information in a bar about the next bar is gone.
    """
    before = np.concatenate([bars.open[:1], bars.close[:-1]])
    drift = math.exp(np.mean(np.log(bars.close / before)))
    order = rng.permutation(len(bars))
    relative = {name: (getattr(bars, name) / before / drift)[order] for name in FIELDS[:4]}
    level = bars.open[0] * np.concatenate([[1.0], np.cumprod(relative["close"])[:-1]])
    prices = {name: values * level for name, values in relative.items()}
    return replace(bars, **prices, volume=bars.volume[order])


def return_score(bars: Bars, positions: Floats) -> float:
    """Mean return per bar before costs, in standard errors; 0.0 for positions without trades."""
    return score_of(gross_returns(bars, positions))


def gross_returns(bars: Bars, positions: Floats) -> Floats:
    """Returns of the bars before costs, shape (n_bars,)."""
    return backtest(bars, positions, Costs(fee_bps=0.0, slippage_bps=0.0), Execution()).returns


def score_of(returns: Floats) -> float:
    """Mean in standard errors; 0.0 for returns that never vary."""
    deviation = float(returns.std())
    return 0.0 if deviation == 0.0 else float(returns.mean()) / deviation * math.sqrt(len(returns))


def next_return(bars: Bars) -> Floats:
    """Positive control: the next bar's return, taken from the future, which the leak test must flag."""
    return np.append(bars.close[1:] / bars.close[:-1] - 1.0, np.nan)


def _column(name: str) -> Column:
    return lambda bars: compute_features(bars, (name,)).values


FEATURE_COLUMNS: Mapping[str, Column] = {name: _column(name) for name in FEATURES}
