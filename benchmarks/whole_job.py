"""A whole retrain by the command beside a bare script with xgboost and vectorbt, in processes of their own.

python -m benchmarks.run whole_job      under two minutes

Ours reads, walks forward, fits, tests for leaks, judges, stores, explains and reports a version of a year of
hourly bars; the script (`benchmarks.bare_script`) fits as often on the same bars and prints metrics. Both
start cold, with compiled code in place. The home has had a retrain before; none of its folds is taken over.
"""

import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from benchmarks.table import PROCESSOR, SECONDS, Row, faster, timed
from clm_core.market.bars import FIELDS
from clm_core.market.sources import MarketData

DAYS = 365
ROUNDS = 3
COMMAND = ("retrain", "--model", "xgboost", "--symbol", "BTCUSD", "--days", str(DAYS), "--again")


def write_bars(home: Path, days: int) -> Path:
    """The bundled bars that ours trains on, as a CSV file."""
    bars = MarketData(home).bars("BTCUSD", "1h", closed_by=datetime.now(UTC))
    bars = bars[-days * 24 :]
    frame = pd.DataFrame({name: getattr(bars, name) for name in FIELDS})
    frame["time"] = bars.index.tz_localize(None)
    path = home / "bars.csv"
    frame.set_index("time").to_csv(path)
    return path


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="clm-job-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        home.chmod(0o755)  # started by root, PostgreSQL runs as a user of its own
        bars = write_bars(home, DAYS)
        environment = os.environ | {
            "CLM_HOME": str(home / "clm"),
            # without it the second retrain would take over every fold of the first
            "CLM_TRAINING__FOLD_CACHE_MIB": "0",
        }
        clm = str(Path(sys.executable).with_name("clm"))

        def run(*words: str) -> None:
            ended = subprocess.run(words, env=environment, stdout=subprocess.DEVNULL, check=False)
            # 3: the gate did not pass the version
            assert ended.returncode in {0, 3}, f"{words[0]} ended with {ended.returncode}"

        ours = timed(lambda: run(clm, *COMMAND), ROUNDS)
        script = timed(lambda: run(sys.executable, "-m", "benchmarks.bare_script", str(bars)), ROUNDS)
    peer = "bare script: walk-forward of xgboost and vectorbt, no verdict, nothing stored or explained"
    name = f"retrain of xgboost, {DAYS} days of hours, from the command to a judged, stored, reported version"
    return [faster(name, ours, peer, script, None, SECONDS, PROCESSOR)]
