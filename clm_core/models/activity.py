"""Activity of a registered model: positions on the newest training bars, recorded in the bundle.

A walk-forward judges the recipe, by models fitted on parts of the bars. The registered model is fitted once
more, on all bars, and may hold a single position for ever although the models of the folds traded.

activity.json   share of the training tail on another side than the commonest, and the deviation of positions

Bundles of releases without the file are judged by the golden rows: a model flat on all golden rows never
trades.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clm_core.domain.errors import BundleCorrupt
from clm_core.domain.sizing import FLAT
from clm_core.market.bars import Bars, Floats
from clm_core.market.panel import Panel, members_of
from clm_core.models import golden
from clm_core.models.contract import Model
from clm_core.models.pooled import view_of

FILE = "activity.json"
MIN_ACTIVE_SHARE = 0.05
"""Least share of the training tail on another side than the commonest."""
MIN_POSITION = 0.01
"""Share of the largest position below which a position counts as flat."""
SIDES = {"short": -1.0, "flat": 0.0, "long": 1.0}

Side = Literal["short", "flat", "long"]


class BundleActivity(BaseModel):
    """Positions of a model on the training tail, the newer half of the training bars."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    bars: int = Field(ge=1)
    """Bars of the tail; of a pool, the bars of all members."""
    commonest_side: Side
    """Side of most of the bars; positions below a hundredth of the largest are flat."""
    active_share: float = Field(ge=0, le=1)
    """Share of the bars on another side."""
    deviation: float = Field(ge=0)
    """Standard deviation of the positions."""

    @property
    def problem(self) -> str | None:
        """Reason against the model in production, or None."""
        if self.active_share >= MIN_ACTIVE_SHARE:
            return None
        return (
            f"the fitted model is {self.commonest_side} on {1 - self.active_share:.1%} of the newest "
            f"{self.bars:,} training bars"
        )

    @property
    def never_trades(self) -> bool:
        """True for a model without a position on any bar of the tail."""
        return self.commonest_side == "flat" and self.active_share == 0.0


def measure(model: Model, bars: Bars | Panel) -> BundleActivity:
    """Activity of a fitted model.

    Args:
        bars: training bars of the model, a panel for a pooled model.
    """
    members = members_of(bars)
    return activity_of(np.concatenate([_tail(model, member) for member in members]))


def activity_of(positions: Floats) -> BundleActivity:
    """
    Args:
        positions: positions in [-1, 1] on the tail, shape (n_bars,), at least one bar.
    """
    sizes = np.abs(positions)
    smallest = max(MIN_POSITION * float(np.max(sizes)), FLAT)
    sides = np.where(sizes < smallest, 0.0, np.sign(positions))
    shares: dict[Side, float] = {
        "short": float(np.mean(sides < 0)),
        "flat": float(np.mean(sides == 0)),
        "long": float(np.mean(sides > 0)),
    }
    commonest = max(shares, key=lambda side: shares[side])
    return BundleActivity(
        bars=len(positions),
        commonest_side=commonest,
        # counted, not the complement: 1 - 0.95 lies below 0.05
        active_share=float(np.mean(sides != SIDES[commonest])),
        deviation=float(np.std(positions)),
    )


def record(model: Model, bars: Bars | Panel, folder: Path) -> None:
    """Write the activity of a fitted model into the folder of a bundle."""
    (folder / FILE).write_text(measure(model, bars).model_dump_json())


def read(folder: Path) -> BundleActivity | None:
    """Activity of a verified bundle; None for a bundle of an earlier release.

    Raises:
        BundleCorrupt: the file is not of this release.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        return BundleActivity.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise BundleCorrupt(
            f"{path} is no record of a model's activity of this release: load the bundle with the release "
            "that wrote it, or train the model again"
        ) from error


def problem_of(folder: Path) -> str | None:
    """Reason against a verified bundle in production, or None."""
    recorded = read(folder)
    if recorded is not None:
        return recorded.problem
    return FLAT_GOLDEN_ROWS if golden.is_flat(folder) else None


def never_trades(folder: Path) -> bool:
    """True for a verified bundle without a position on any bar known: of the tail, or of the golden rows."""
    recorded = read(folder)
    return golden.is_flat(folder) if recorded is None else recorded.never_trades


FLAT_GOLDEN_ROWS = "the fitted model is flat on every golden row"


def _tail(model: Model, bars: Bars) -> Floats:
    """Positions on the newer half of the training bars, shape (n_bars - n_bars // 2,)."""
    return view_of(model, bars.symbol).positions(bars)[len(bars) // 2 :]
