"""A retrain of a million bars of one series by the command: time a bar, and memory.

python -m benchmarks.run long_series      two minutes

The bars are made: a random walk by the minute. A retrain reads, computes features and labels, walks forward,
fits, tests for leaks, judges, stores, explains and reports. The time is compared with a quarter of the bars,
times four: a step with more than linear growth would show. The memory is that of the largest process, less
that of a short retrain with the same libraries.
"""

import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.table import MIB, PROCESSOR, SECONDS, Row, overhead, timing_of, within
from clm_core.market.bars import Bars
from clm_core.market.features import FEATURES
from clm_core.market.store import SeriesStore
from clm_core.market.timeframes import Calendar, Timeframe

N_BARS = 1_000_000
PART = 4
FEW_BARS = 20_000
MAX_FEATURES = 3.0
"""Memory above that of a short retrain, in multiples of the features of all bars."""


def made_bars(n_bars: int) -> Bars:
    rng = np.random.default_rng(n_bars)
    close = 40_000 * np.exp(np.cumsum(rng.normal(0, 0.0008, n_bars)))
    opened = np.concatenate([close[:1], close[:-1]])
    high = np.maximum(opened, close) * (1 + rng.exponential(0.0003, n_bars))
    low = np.minimum(opened, close) / (1 + rng.exponential(0.0003, n_bars))
    times = 1_577_836_800_000_000_000 + np.arange(n_bars) * Timeframe.M1.nanoseconds
    volume = rng.lognormal(3, 1, n_bars)
    symbol = f"N{n_bars}USD"
    return Bars(symbol, Timeframe.M1, Calendar.ALWAYS, times, opened, high, low, close, volume)


def retrained(home: Path, n_bars: int) -> tuple[tuple[float, float], float]:
    """Seconds of a retrain on the clock and of the processor, and MiB of the largest process."""
    bars = made_bars(n_bars)
    SeriesStore(home / "data").add(bars, "made", datetime.now(UTC))
    # rounded down, so that all days are there
    days = max(n_bars * Timeframe.M1.nanoseconds // round(timedelta(days=1).total_seconds() * 1e9), 1)
    clm = str(Path(sys.executable).with_name("clm"))
    command = (clm, "retrain", "--model", "xgboost", "--symbol", bars.symbol, "--timeframe", "1m")
    began = perf_counter()
    process = subprocess.Popen(
        (*command, "--days", str(days)),
        env=os.environ | {"CLM_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    taken = perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    # 3: the gate did not pass the version
    assert process.returncode in {0, 3}, f"clm retrain ended with {process.returncode}"
    # Linux counts in KiB, macOS in bytes
    return (taken, used.ru_utime + used.ru_stime), used.ru_maxrss / (
        1024 if sys.platform == "linux" else 1024**2
    )


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="clm-long-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        home.chmod(0o755)  # started by root, PostgreSQL runs as a user of its own
        _, small_peak = retrained(home, FEW_BARS)
        part, _ = retrained(home, N_BARS // PART)
        whole, whole_peak = retrained(home, N_BARS)
    features_mib = N_BARS * len(FEATURES) * 8 / 2**20
    work = f"retrain of xgboost on {N_BARS:,} bars"
    return [
        overhead(
            f"{work}, from the command to a judged, stored, reported version",
            timing_of([whole]),
            f"{PART} times that of {N_BARS // PART:,} bars",
            timing_of([part]).times(PART),
            0.0,
            SECONDS,
            PROCESSOR,
        ),
        within(
            f"{work}, memory of the largest process above a retrain of {FEW_BARS:,} bars "
            f"(features of all bars: {features_mib:,.0f} MiB)",
            whole_peak - small_peak,
            MAX_FEATURES * features_mib,
            MIB,
        ),
    ]
