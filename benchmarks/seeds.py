"""What a trial of a tuning tells when it has one seed, and when it has several: writes the table of
docs/decisions/0003-seeds.md anew.

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
SETS, SEEDS, DAYS, FOLDS = 8, 4, 200, 3
FIXED: dict[ModelType, dict[str, Any]] = {
    ModelType.LIGHTGBM: {},
    ModelType.NHITS: {"steps": 150},
    ModelType.RL_V3: {"bars_played": 32_768},
}
SEED = 20_251_204


class Choice(NamedTuple):
    shown: float
    """What the best set of parameters shows with the seeds it was chosen by."""
    worth: float
    """What it does with the others."""


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
    # the means of few seeds lie further apart than the sets do
    between_sets = max(0.0, ratios.mean(axis=1).var(ddof=1) - between_seeds / SEEDS)
    one, two = (chosen(ratios, count) for count in (1, 2))
    deviations = [f"{variance**0.5:.2f}" for variance in (between_seeds, between_sets)]
    choices = [f"{choice.shown:.2f}, {choice.worth:.2f}" for choice in (one, two)]
    return [kind.value, *deviations, *choices, f"{ratios.mean():.2f}"]


def chosen(ratios: Floats, count: int) -> Choice:
    """By the mean of so many seeds, averaged over all ways to take them."""
    found = []
    for taken in combinations(range(SEEDS), count):
        others = [seed for seed in range(SEEDS) if seed not in taken]
        shown = ratios[:, taken].mean(axis=1)
        best = int(shown.argmax())
        found.append((shown[best], ratios[best, others].mean()))
    return Choice(*np.mean(found, axis=0))


def sharpe_ratios(kind: ModelType, bars: Bars) -> Floats:
    """Out of sample, shape (SETS, SEEDS)."""
    rng, space = np.random.default_rng(SEED), catalog.search_space(kind)
    sets = [
        {name: drawn(tuned, rng) if number else tuned.default for name, tuned in space.items()} | FIXED[kind]
        for number in range(SETS)
    ]
    return np.array([[tried(kind, params, seed, bars) for seed in range(SEEDS)] for params in sets])


def tried(kind: ModelType, params: dict[str, Any], seed: int, bars: Bars) -> float:
    found = walk_forward(catalog.recipe(kind, params, Costs()), bars, WalkForwardPlan(folds=FOLDS), seed)
    result = backtest(bars[found.rows], found.positions[found.rows], Costs(), Execution())
    return float(sharpe_ratio(result.returns, bars.periods_per_year))


def drawn(tuned: SearchDimension, rng: np.random.Generator) -> Any:
    values = tuned.values
    if not isinstance(values, Between):
        return values.choices[rng.integers(len(values.choices))]
    bounds = (values.low, values.high)
    value = np.exp(rng.uniform(*np.log(bounds))) if values.log else rng.uniform(*bounds)
    return round(value) if tuned.whole else float(value)


if __name__ == "__main__":
    main()
