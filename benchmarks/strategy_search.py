"""Search for momentum rules: 100 candidates x 50 generations on 26,000 bars.

    python -m benchmarks.strategy_search

The whole search, with the metrics of all 45 test sets of every candidate, on two threads and on one; and the
peak memory of a process of its own that evaluates 10,000 candidates, 200 x 50. Bars are those of the section
`engine`.

Beside vectorbt: the candidates of every tenth generation of the search, times ten. vectorbt backtests the
same signals with stop loss and take profit, the candidates of a generation at once, at the same fees; Sharpe
ratio and drawdown of the 45 sets come from its accessor of returns, win rate and profit factor from its trade
records. Its stops act inside a bar and its positions are not sized, so that the work is the same and the
figures are not. Ours includes the breeding.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from resource import RUSAGE_SELF, getrusage
from typing import Any

import numpy as np

from benchmarks.made_bars import bars_of
from benchmarks.table import MIB, SECONDS, Row, faster, timed, within
from clm_core.backtest.terms import MarketTerms
from clm_core.domain.costs import Costs
from clm_core.domain.execution import Execution
from clm_core.domain.terms import TradingTerms
from clm_core.domain.vocabulary import RuleFamily
from clm_core.evolution.combinatorial import TestSets
from clm_core.evolution.genes import Genes
from clm_core.evolution.nsga2 import SearchGeneration, SearchRules, search
from clm_core.evolution.rule_objectives import RuleObjectives
from clm_core.market.bars import Floats
from clm_core.models.strategies.families import RULES

N_BARS = 26_000
POPULATION = 100
MANY = 200
GENERATIONS = 50
LIMIT_S = 1.5
LIMIT_MIB = 2_048.0
MIN_RATIO = 50.0
STEP = 10
"""Every so many generations vectorbt evaluates one."""
TERMS = TradingTerms(costs=Costs(fee_bps=5, slippage_bps=2), execution=Execution(rebalance_band=0.02))
MEMORY = "--memory"


def run(population: int, threads: int) -> list[SearchGeneration]:
    rule = RULES[RuleFamily.MOMENTUM]
    objectives = RuleObjectives(rule, MarketTerms(TERMS), bars_of(N_BARS), slice(0, N_BARS), threads=threads)
    return list(search(objectives.genes, SearchRules(population, GENERATIONS - 1, seed=1), objectives))


def candidates_of(generations: Sequence[SearchGeneration]) -> list[list[dict[str, Any]]]:
    """Parameters of the new candidates of every tenth generation."""
    space = RULES[RuleFamily.MOMENTUM].params.search_space()
    genes = Genes.of(space)
    return [
        [dict(zip(space, each, strict=True)) for each in genes.genomes(space, generation.new_genes)]
        for generation in generations[::STEP]
    ]


def by_vectorbt(candidates: Sequence[Mapping[str, Any]], sets: TestSets) -> Floats:
    """Metrics of each candidate in each set, shape (n, n_sets, 4), by vectorbt."""
    import pandas as pd
    import vectorbt as vbt

    bars = bars_of(N_BARS)
    close = pd.Series(bars.close, bars.index.tz_localize(None))
    look_backs = [each["look_back"] for each in candidates]
    thresholds = np.array([each["threshold"] for each in candidates])
    scores = np.column_stack([close / close.shift(look_back) - 1.0 for look_back in look_backs])
    before = np.vstack([scores[:1], scores[:-1]])
    signals = {
        "entries": (scores > thresholds) & (before <= thresholds),
        "exits": scores < 0.0,
        "short_entries": (scores < -thresholds) & (before >= -thresholds),
        "short_exits": scores > 0.0,
    }
    # a signal of a close is executed at the next open
    later = {name: np.vstack([each[:1] & False, each[:-1]]) for name, each in signals.items()}
    portfolio = vbt.Portfolio.from_signals(
        close,
        **later,
        price=pd.Series(bars.open, close.index),
        sl_stop=np.array([each["stop_loss"] for each in candidates]),
        tp_stop=np.array([each["take_profit"] for each in candidates]),
        fees=TERMS.costs.fee_bps / 1e4,
        slippage=TERMS.costs.slippage_bps / 1e4,
        freq="1h",
    )
    returns = portfolio.returns()
    trades = portfolio.trades.records
    group = np.searchsorted(sets.bounds, trades["exit_idx"].to_numpy(), side="right") - 1
    metrics = np.empty((len(candidates), len(sets), 4))
    for place, chosen in enumerate(sets.groups):
        rows = np.concatenate([np.arange(sets.bounds[each], sets.bounds[each + 1]) for each in chosen])
        accessor = returns.iloc[rows].vbt.returns(freq="1h")
        metrics[:, place, 0] = accessor.sharpe_ratio()
        metrics[:, place, 1] = accessor.max_drawdown()
        metrics[:, place, 2:] = _of_trades(trades[np.isin(group, chosen)], len(candidates))
    return metrics


def _of_trades(closed: Any, count: int) -> Floats:
    """Win rate and profit factor of each candidate, shape (count, 2)."""
    gains = closed["return"].to_numpy()
    columns = closed["col"].to_numpy()
    is_won = gains > 0.0

    def sums(rows: Any, weights: Floats | None = None) -> Floats:
        return np.asarray(np.bincount(columns[rows], None if weights is None else weights[rows], count))

    with np.errstate(invalid="ignore", divide="ignore"):
        win_rates = sums(is_won) / np.bincount(columns, minlength=count)
        return np.column_stack([win_rates, sums(is_won, gains) / sums(~is_won, -gains)])


def peak_mib() -> float:
    """Peak memory of this process."""
    # Linux counts in KiB, macOS in bytes
    return getrusage(RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)


def rows() -> list[Row]:
    command = [sys.executable, "-m", "benchmarks.strategy_search", MEMORY]
    memory = float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    two, one = (timed(partial(run, POPULATION, count), repeats=5) for count in (2, 1))
    sampled = candidates_of(run(POPULATION, 2))
    sets = TestSets.of(N_BARS)
    by_vectorbt(sampled[0], sets)
    theirs = timed(lambda: [by_vectorbt(each, sets) for each in sampled], 1, warm_up=False).times(STEP)
    work = f"search of {POPULATION} x {GENERATIONS} momentum rules, {N_BARS:,} bars, 45 sets"
    return [
        within(f"{work}, 2 threads", two, LIMIT_S, SECONDS),
        within(f"{work}, 1 thread", one, 2 * LIMIT_S, SECONDS),
        faster(f"{work}, 2 threads, beside vectorbt", two, "vectorbt", theirs, MIN_RATIO, SECONDS),
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
