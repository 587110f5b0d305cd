"""Compile once what every test process needs: the bytecode of libraries and tests, and numba's functions.

In a fresh clone four test processes begin at the same moment, and each would compile both for itself, a
minute of processor time. Nothing is done where the compiled files exist.
"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

COMPILED_WITH = "clm_core.backtest.engine"
COLLECTION = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
SHARED = "import lightgbm, matplotlib.figure, mlflow.pyfunc, mlflow.server, prefect.server.api.server"
"""Imports of most test processes and of the processes that they start."""


def main() -> None:
    if _is_compiled():
        return
    print("Compiling for the test processes ...", flush=True)
    compiling = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for command in (COLLECTION, [sys.executable, "-c", SHARED])
    ]
    call_compiled_functions()
    # a broken test file or library is for the test run to report
    for process in compiling:
        process.wait()


def _is_compiled() -> bool:
    spec = find_spec(COMPILED_WITH)
    assert spec is not None
    assert spec.origin is not None
    return any(Path(spec.origin).with_name("__pycache__").glob("engine.*.nbi"))


def call_compiled_functions() -> None:
    """A backtest, its metrics, features, sizing, labels and intervals on bars made up."""
    import numpy as np

    from clm_core.backtest.baselines import run_baselines
    from clm_core.backtest.engine import score_threshold, sma_crossover, sweep
    from clm_core.backtest.metrics import summarise
    from clm_core.backtest.terms import MarketTerms
    from clm_core.domain.costs import Costs
    from clm_core.domain.execution import NEW_VERSIONS, Execution
    from clm_core.domain.sizing import Sizing
    from clm_core.domain.terms import TradingTerms
    from clm_core.evidence.bootstrap import difference_interval
    from clm_core.explain.conformal import half_widths
    from clm_core.market.features import compute_features
    from clm_core.market.labels import triple_barrier
    from clm_core.market.planted import planted_bars
    from clm_core.market.regimes import regimes
    from clm_core.market.signals import centred, hold_convictions
    from clm_core.models.sizing import size_positions

    bars = planted_bars(2000)
    compute_features(bars)
    triple_barrier(bars, 24, 2.0, 2.0)
    regimes(planted_bars(500 * 24))
    market = MarketTerms(TradingTerms(costs=Costs())).under(NEW_VERSIONS)
    scores = np.random.default_rng(0).normal(size=len(bars))
    signal = hold_convictions(centred(scores, bars, 100), bars, 24)
    positions = size_positions(bars, np.clip(signal, -1.0, 1.0), Sizing(max_turnover=60.0))
    result = market.backtest(bars, positions)
    summarise(result, bars.periods_per_year)
    run_baselines(market, bars, slice(1000, 2000), lambda bars, signal: signal)
    difference_interval(result.returns, scores, 0.95, 100, np.random.default_rng(0))
    half_widths(np.abs(scores), np.arange(len(bars)) + 24)
    for family in (sma_crossover(bars, [5], [20]), score_threshold(bars, scores, [0.5], [-0.5])):
        sweep(family, Costs(), Execution())


if __name__ == "__main__":
    main()
