"""Threads beside processes for a search for strategies on one machine: 100 x 50 on 26,000 bars.

    python -m benchmarks.strategy_workers [--turns N] [FAMILY[,FAMILY]|all]

The measures of `clm evolve --strategy` by one thread, two threads and two processes (`--on processes`), in
turns; on a busy machine the shortest times mean most. Processes are timed twice: started beforehand, and with
their start. All find the same scores, to the last bit.
"""

import argparse
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from statistics import median

from benchmarks.made_bars import bars_of
from benchmarks.strategy_search import GENERATIONS, N_BARS, POPULATION, TERMS
from clm_core.backtest.terms import MarketTerms
from clm_core.domain.evolution import Crossover, Mutation, Selection
from clm_core.domain.strategy_search import PARETO, StrategySearch
from clm_core.domain.vocabulary import RuleFamily
from clm_core.evolution.nsga2 import SearchRules, search
from clm_core.market.bars import Floats
from clm_core.search.process_measures import process_measures
from clm_core.search.strategy_objectives import MeasureInputs, Measures, StrategyObjectives, space_of

WORKERS = 2


def inputs_of(families: list[RuleFamily]) -> MeasureInputs:
    definition = StrategySearch(
        name="benchmark",
        symbol="BTCUSD",
        timeframe="1h",
        dataset_span_days=1_083,
        data_snapshot="",
        holdout=0.0,
        fixed={},
        seed=1,
        costs=TERMS.costs,
        execution=TERMS.execution,
        requested_by="benchmark",
        created_at=datetime.now(UTC),
        families=tuple(families),
        population=POPULATION,
        generations=GENERATIONS - 1,
        objectives=PARETO,
        selection=Selection.TOURNAMENT,
        crossover=Crossover.UNIFORM,
        mutation=Mutation.GAUSSIAN,
    )
    return MeasureInputs(definition, MarketTerms(TERMS), bars_of(N_BARS), slice(0, N_BARS))


def searched(inputs: MeasureInputs, own: StrategyObjectives, measures: Measures) -> bytes:
    """Scores of the last generation."""
    space = space_of(inputs.definition)

    def objectives(values: Floats) -> Floats:
        return own.scores(measures.measure(space.strategies(values)), PARETO)

    rules = SearchRules(POPULATION, GENERATIONS - 1, seed=1)
    [*_, last] = search(space.genes, rules, objectives, space.rows(space.defaults))
    return last.scores.tobytes()


def with_threads(inputs: MeasureInputs, count: int) -> bytes:
    own = inputs.objectives(count)
    return searched(inputs, own, own)


def with_processes(inputs: MeasureInputs) -> bytes:
    with process_measures(WORKERS, inputs, threading.Event()) as measures:
        return searched(inputs, inputs.objectives(1), measures)


def compare(families: list[RuleFamily], turns: int) -> None:
    inputs = inputs_of(families)
    own = inputs.objectives(1)
    with process_measures(WORKERS, inputs, threading.Event()) as started:
        ways: dict[str, Callable[[], bytes]] = {
            "1 thread": lambda: with_threads(inputs, 1),
            f"{WORKERS} threads": lambda: with_threads(inputs, WORKERS),
            f"{WORKERS} processes, started before": lambda: searched(inputs, own, started),
            f"{WORKERS} processes and their start": lambda: with_processes(inputs),
        }
        # the first run compiles, or loads what was compiled
        assert len({way() for way in ways.values()}) == 1
        walls = [{name: _wall(way) for name, way in ways.items()} for _ in range(turns)]
    for name in ways:
        own_walls = [each[name] for each in walls]
        print(f"{name}: shortest {min(own_walls):.2f} s, median {median(own_walls):.2f} s of {turns}")


def _wall(way: Callable[[], bytes]) -> float:
    begun = time.perf_counter()
    way()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("families", nargs="?", default="momentum")
    parser.add_argument("--turns", type=int, default=10)
    options = parser.parse_args()
    named = list(RuleFamily) if options.families == "all" else options.families.split(",")
    compare([RuleFamily(each) for each in named], options.turns)


if __name__ == "__main__":
    main()
