"""Information in a tuning trial with one seed and with several.

Writes the table of docs/decisions/0003-seeds.md.

python -m benchmarks.seeds     eight minutes on two busy cores; the same seed gives the same table
"""

from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.power import table
from clm_core.backtest.engine import backtest
from clm_core.backtest.metrics import sharpe_ratio
from clm_core.backtest.walk_forward import walk_forward
from clm_core.domain.costs import Costs
from clm_core.domain.execution import Execution
from clm_core.domain.search_space import Between, SearchDimension
from clm_core.domain.vocabulary import ModelType
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.market.bars import Bars, Floats
from clm_core.market.sources import MarketData
from clm_core.models import catalog

DOCUMENT = Path(__file__).parents[1] / "docs" / "decisions" / "0003-seeds.md"
MARK = "<!-- below: python -m benchmarks.seeds -->\n"
SETS = 8
SEEDS = 4
DAYS = 200
FOLDS = 3
FIXED: dict[ModelType, dict[str, Any]] = {
    ModelType.LIGHTGBM: {},
    ModelType.NHITS: {"steps": 150},
    ModelType.RL_V3: {"bars_played": 32_768},
}
SEED = 20_251_204


class Choice(NamedTuple):
    """Sharpe ratios of the set of parameters chosen by some of the seeds."""

    chosen_by: float
    """Mean Sharpe ratio with the seeds of the choice."""
    remaining: float
    """Mean Sharpe ratio with the remaining seeds."""


def main() -> None:
    bars = MarketData(Path("nowhere")).bars("BTCUSD", "1h", DAYS, closed_by=datetime.now(UTC))
    rows = [row(kind, sharpe_ratios(kind, bars)) for kind in FIXED]
    text = table(
        "Sharpe ratios of sets of parameters, by seed",
        f"{SETS} sets from what a tuning tries, the defaults among them, each with {SEEDS} seeds on the "
        f"newest {DAYS} days of BTCUSD 1h, {FOLDS} folds, after costs; annualised. NHITS has 150 steps, "
        "rl_v3 32,768 bars played. Chosen by one or two of the seeds, the best set is tried with the others, "
        "averaged over all ways to take them.",
        [
            "",
            "deviation between seeds",
            "between sets",
            "one seed shows, is worth",
            "two seeds show, are worth",
            "the average set",
        ],
        rows,
    )
    print(text)
    DOCUMENT.write_text(DOCUMENT.read_text().split(MARK)[0] + MARK + "\n" + text)


def row(kind: ModelType, ratios: Floats) -> list[str]:
    between_seeds = ratios.var(axis=1, ddof=1).mean()
    # means of few seeds vary more than the sets: subtract the share of the seeds
    between_sets = max(0.0, ratios.mean(axis=1).var(ddof=1) - between_seeds / SEEDS)
    one, two = (chosen(ratios, count) for count in (1, 2))
    deviations = [f"{variance**0.5:.2f}" for variance in (between_seeds, between_sets)]
    choices = [f"{choice.chosen_by:.2f}, {choice.remaining:.2f}" for choice in (one, two)]
    return [kind.value, *deviations, *choices, f"{ratios.mean():.2f}"]


def chosen(ratios: Floats, count: int) -> Choice:
    """The choice by the mean of `count` seeds, averaged over all combinations of seeds."""
    choices = []
    for taken in combinations(range(SEEDS), count):
        others = [seed for seed in range(SEEDS) if seed not in taken]
        means = ratios[:, taken].mean(axis=1)
        best = int(means.argmax())
        choices.append((means[best], ratios[best, others].mean()))
    return Choice(*np.mean(choices, axis=0))


def sharpe_ratios(kind: ModelType, bars: Bars) -> Floats:
    """Out-of-sample Sharpe ratios, shape (SETS, SEEDS)."""
    rng = np.random.default_rng(SEED)
    space = catalog.search_space(kind)
    sets = [
        {
            name: random_value(dimension, rng) if number else dimension.default
            for name, dimension in space.items()
        }
        | FIXED[kind]
        for number in range(SETS)
    ]
    return np.array([[evaluate(kind, params, seed, bars) for seed in range(SEEDS)] for params in sets])


def evaluate(kind: ModelType, params: dict[str, Any], seed: int, bars: Bars) -> float:
    walked = walk_forward(catalog.recipe(kind, params, Costs()), bars, WalkForwardPlan(folds=FOLDS), seed)
    result = backtest(bars[walked.rows], walked.positions[walked.rows], Costs(), Execution())
    return float(sharpe_ratio(result.returns, bars.periods_per_year))


def random_value(dimension: SearchDimension, rng: np.random.Generator) -> Any:
    values = dimension.values
    if not isinstance(values, Between):
        return values.choices[rng.integers(len(values.choices))]
    bounds = (values.low, values.high)
    value = np.exp(rng.uniform(*np.log(bounds))) if values.log else rng.uniform(*bounds)
    return round(value) if dimension.whole else float(value)


if __name__ == "__main__":
    main()
