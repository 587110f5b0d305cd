"""Search for momentum rules: 100 candidates x 50 generations on 26,000 bars.

    python -m benchmarks.strategy_search

The whole search, with the metrics of all 45 test sets of every candidate, on two threads and on one; and the
peak memory of a process of its own that evaluates 10,000 candidates, 200 x 50. Bars are those of the section
`engine`.
"""

import subprocess
import sys
from resource import RUSAGE_SELF, getrusage

from benchmarks.made_bars import bars_of
from benchmarks.table import MIB, SECONDS, Row, seconds, within
from clm_core.backtest.terms import MarketTerms
from clm_core.domain.costs import Costs
from clm_core.domain.execution import Execution
from clm_core.domain.terms import TradingTerms
from clm_core.domain.vocabulary import RuleFamily
from clm_core.evolution.nsga2 import SearchGeneration, SearchRules, search
from clm_core.evolution.rule_objectives import RuleObjectives
from clm_core.models.strategies.families import RULES

N_BARS = 26_000
POPULATION = 100
MANY = 200
GENERATIONS = 50
LIMIT_S = 1.5
LIMIT_MIB = 2_048.0
TERMS = TradingTerms(costs=Costs(fee_bps=5, slippage_bps=2), execution=Execution(rebalance_band=0.02))
MEMORY = "--memory"


def run(population: int, threads: int) -> list[SearchGeneration]:
    rule = RULES[RuleFamily.MOMENTUM]
    objectives = RuleObjectives(rule, MarketTerms(TERMS), bars_of(N_BARS), slice(0, N_BARS), threads=threads)
    return list(search(objectives.genes, SearchRules(population, GENERATIONS - 1, seed=1), objectives))


def peak_mib() -> float:
    """Peak memory of this process."""
    # Linux counts in KiB, macOS in bytes
    return getrusage(RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)


def rows() -> list[Row]:
    command = [sys.executable, "-m", "benchmarks.strategy_search", MEMORY]
    memory = float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    two, one = (seconds(lambda count=count: run(POPULATION, count), repeats=5) for count in (2, 1))
    work = f"search of {POPULATION} x {GENERATIONS} momentum rules, {N_BARS:,} bars, 45 sets"
    return [
        within(f"{work}, 2 threads", two, LIMIT_S, SECONDS),
        within(f"{work}, 1 thread", one, 2 * LIMIT_S, SECONDS),
        within(f"peak memory of {MANY * GENERATIONS:,} candidates", memory, LIMIT_MIB, MIB),
    ]


def main() -> int:
    from benchmarks.run import show

    measured = rows()
    show(measured)
    return 0 if all(row.met for row in measured) else 1


if __name__ == "__main__":
    if MEMORY in sys.argv:
        run(MANY, 2)
        print(peak_mib())
    else:
        sys.exit(main())
