"""Training of a pool of ten symbols against the training of one: walk-forward, final fit and leak test.

python -m benchmarks.pools      prints the ratio of each kind that can pool; minutes
"""

import numpy as np

from benchmarks.table import PROCESSOR, SECONDS, Row, overhead, timed
from clm_core.backtest import pools, sentinel
from clm_core.backtest.walk_forward import walk_forward
from clm_core.domain.costs import Costs
from clm_core.domain.vocabulary import ModelType
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.market.bars import Bars
from clm_core.market.panel import Panel
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.models import catalog
from clm_core.models.pooled import fit_pool

N_BARS = 43_800
"""Five years of hours, the default span."""
SYMBOLS = 10
MAX_OVERHEAD = 100.0
"""Percent: ten symbols take at most twice the time of one."""
SEED = 3
ROUNDS = 2
PARAMS = {"early_stopping_rounds": 500}
"""Every fit grows the same number of trees: where boosting stops early depends on luck."""


def market(symbol: str, seed: int) -> Bars:
    rng = np.random.default_rng(seed)
    close = 40_000 * np.exp(np.cumsum(rng.normal(0, 0.006, N_BARS)))
    opened = np.concatenate([close[:1], close[:-1]])
    high = np.maximum(opened, close) * (1 + rng.exponential(0.002, N_BARS))
    low = np.minimum(opened, close) / (1 + rng.exponential(0.002, N_BARS))
    times = 1_577_836_800_000_000_000 + np.arange(N_BARS) * Timeframe.H1.nanoseconds
    volume = rng.lognormal(3, 1, N_BARS)
    return Bars(symbol, Timeframe.H1, Calendar.ALWAYS, times, opened, high, low, close, volume)


def train_one(kind: ModelType, bars: Bars) -> None:
    recipe = catalog.recipe(kind, PARAMS, Costs())
    walk_forward(recipe, bars, WalkForwardPlan(folds=5), SEED)
    sentinel.examine(recipe, recipe.fit(bars, SEED), bars, SEED)


def train_pool(kind: ModelType, panel: Panel) -> None:
    recipe = catalog.pooling(catalog.recipe(kind, PARAMS, Costs()))
    pools.walk_forward(recipe, panel, WalkForwardPlan(folds=5), SEED)
    pools.examine(recipe, fit_pool(recipe, panel, SEED), panel, SEED)


def rows() -> list[Row]:
    panel = Panel("TEN", tuple(market(f"S{number}", number) for number in range(SYMBOLS)))
    one = panel.members[0]
    train_one(ModelType.LIGHTGBM, one[:5_000])  # compiles what is compiled once
    return [_row(kind, one, panel) for kind in (ModelType.XGBOOST, ModelType.LIGHTGBM)]


def _row(kind: ModelType, one: Bars, panel: Panel) -> Row:
    alone = timed(lambda: train_one(kind, one), ROUNDS, warm_up=False)
    pooled = timed(lambda: train_pool(kind, panel), ROUNDS, warm_up=False)
    return overhead(
        f"training of {kind} on {SYMBOLS} symbols of {len(one):,} bars as a pool",
        pooled,
        "the same on one symbol",
        alone,
        MAX_OVERHEAD,
        SECONDS,
        PROCESSOR,
    )


if __name__ == "__main__":
    from benchmarks.run import show

    show(rows())
