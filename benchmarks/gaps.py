"""Cost of outages: bars lost to an outage of k bars, under the rules of today and of release 0.1.0.

The series is bundled BTCUSD. A bar is lost if it has no value of some feature, or no label although one of
the same series without the outage would have. An outage that is carried through leaves a trace instead:
features reach over the hole as if its neighbours followed each other. The trace is the mean distance to the
features of the same bars without the outage, in standard deviations of each feature.
"""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.table import TIMES_LESS, Row
from clm_core.market.bars import BRIDGED_BARS, FIELDS, Bars
from clm_core.market.features import LOOK_BACK, compute_features
from clm_core.market.labels import forward_return
from clm_core.market.sources import MarketData

N_BARS = 10_000
HORIZON = 24
OUTAGES = (1, 2, 3, BRIDGED_BARS, BRIDGED_BARS + 1, 24, 168)
PLACES = range(1000, N_BARS - 1000, 500)
"""Rows at which outages are tried; the results are means."""
NEAR = 24
"""Bars after an outage over which the trace is measured."""


def bundled() -> Bars:
    with TemporaryDirectory() as home:
        return MarketData(Path(home)).bars("BTCUSD", "1h", closed_by=datetime.now(UTC))[:N_BARS]


def without(bars: Bars, row: int, missing: int) -> Bars:
    """The bars less `missing` bars from a row on."""
    keep = np.r_[0:row, row + missing : len(bars)]
    columns = {name: getattr(bars, name)[keep] for name in ("time", *FIELDS)}
    return replace(bars, **columns)


def lost_bars(bars: Bars) -> int:
    """Bars after the first look-back without features or label, less those at the end of the series."""
    usable = compute_features(bars).complete & (forward_return(bars, HORIZON).end >= 0)
    return int(np.count_nonzero(~usable[LOOK_BACK : -HORIZON - 1]))


def trace(bars: Bars, row: int, missing: int) -> float:
    whole = compute_features(bars).values
    deviation = np.nanstd(whole, axis=0)
    after = compute_features(without(bars, row, missing)).values[row : row + NEAR]
    return float(np.mean(np.abs(after - whole[row + missing : row + missing + NEAR]) / deviation))


def rows() -> list[Row]:
    bars = bundled()
    lines = []
    for missing in OUTAGES:
        holed = without(bars, N_BARS // 2, missing)
        ours = lost_bars(holed)
        before = lost_bars(holed.under(gap_rules=1))
        name = f"bars lost to an outage of {missing}"
        if missing <= BRIDGED_BARS:
            distance = np.mean([trace(bars, row, missing) for row in PLACES])
            name += f" (trace {distance:.2f} deviations in {NEAR} bars)"
        lines.append(
            Row(name, ours, "release 0.1.0", before, before / max(ours, 1), None, TIMES_LESS, "bars")
        )
    return lines
