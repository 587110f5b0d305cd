"""Out-of-sample positions behind a verdict, packed for the ledger and read back with the stored bars."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clm_core.backtest.agreement import OLDER_FOLD
from clm_core.backtest.walk_forward import OutOfSample
from clm_core.domain.errors import EvidenceChanged
from clm_core.market.bars import Bars, Floats
from clm_core.market.panel import Panel
from clm_core.retraining.training import TrainingResult


@dataclass(frozen=True, eq=False)
class MarketRuns:
    """Out-of-sample positions of every seed in a market."""

    symbol: str
    time: NDArray[np.int64]
    """Open times of the bars, nanoseconds since 1970-01-01 UTC, shape (n_bars,)."""
    positions: Floats
    """Target position after each bar as the models asked, shape (n_seeds, n_bars)."""

    def after(self, moment: int) -> "MarketRuns":
        """The part after a moment, nanoseconds since 1970-01-01 UTC."""
        first = int(np.searchsorted(self.time, moment, side="right"))
        return MarketRuns(self.symbol, self.time[first:], self.positions[:, first:])

    def held_at(self, time: NDArray[np.int64]) -> Floats:
        """Positions of every seed at times from the first bar on, shape (n_seeds, n_times).

        A position is held over a bar that was missing.
        """
        rows = np.searchsorted(self.time, time, side="right") - 1
        return np.asarray(self.positions[:, rows])

    def rows(self, bars: Bars) -> slice:
        """Rows of the bars with the positions.

        Raises:
            EvidenceChanged: the open times of bars and positions differ.
        """
        first = int(np.searchsorted(bars.time, self.time[0])) if len(self.time) else 0
        rows = slice(first, first + len(self.time))
        if not np.array_equal(bars.time[rows], self.time):
            raise EvidenceChanged(
                f"The stored positions do not fit the stored bars of {self.symbol}: restore a backup, "
                "or retrain."
            )
        return rows


@dataclass(frozen=True, eq=False)
class OutOfSampleRuns:
    """Out-of-sample positions of every seed: the evidence of a verdict."""

    markets: tuple[MarketRuns, ...]
    """The market, or the members of a pool in the order of the panel."""
    agreements: Floats
    """Rank correlation of the positions of each fold's model with the model of the fold before, shape
    (n_seeds, n_folds - 1); NaN where not measured."""

    @property
    def seeds(self) -> int:
        return len(self.markets[0].positions)


def runs_of(bars: Bars | Panel, trained: TrainingResult) -> OutOfSampleRuns:
    """Positions of a training on its out-of-sample bars."""
    agreements = np.array(
        [
            [fold.train_metrics.get(OLDER_FOLD, np.nan) for fold in run.folds[1:]]
            for run in trained.out_of_sample
        ]
    )
    if not isinstance(bars, Panel):
        return OutOfSampleRuns((_market_runs(bars, trained.out_of_sample),), agreements)
    by_market = zip(*trained.by_member, strict=True)
    markets = (_market_runs(member, runs) for member, runs in zip(bars, by_market, strict=True))
    return OutOfSampleRuns(tuple(markets), agreements)


def _market_runs(bars: Bars, runs: Sequence[OutOfSample]) -> MarketRuns:
    rows = runs[0].rows
    return MarketRuns(bars.symbol, bars.time[rows], np.stack([run.positions[rows] for run in runs]))


def pack(runs: OutOfSampleRuns) -> bytes:
    """The positions as the bytes of a compressed npz file without objects."""
    arrays: dict[str, NDArray[np.generic]] = {
        "symbols": np.array([each.symbol for each in runs.markets]),
        "agreements": runs.agreements,
    }
    for number, market in enumerate(runs.markets):
        # steps between bars repeat and take hardly any space
        arrays[f"time{number}"] = np.diff(market.time, prepend=np.int64(0))
        arrays[f"positions{number}"] = market.positions
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    return packed.getvalue()


def unpack(content: bytes) -> OutOfSampleRuns:
    """The positions of `pack`, whose digest the caller has verified."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return OutOfSampleRuns(
            tuple(
                MarketRuns(str(symbol), np.cumsum(arrays[f"time{number}"]), arrays[f"positions{number}"])
                for number, symbol in enumerate(arrays["symbols"])
            ),
            # positions stored before folds were compared have no agreements
            arrays["agreements"] if "agreements" in arrays else np.empty((len(arrays["positions0"]), 0)),
        )
