"""Standing of a production version since its promotion, as the watch measured it last."""

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
BAND_LEVEL = 0.9
"""Probability, 0..1, of an equity inside the band on a given day."""


class BandPlace(StrEnum):
    """Place of the equity against the band of the backtest."""

    BELOW = "below"
    INSIDE = "inside"
    ABOVE = "above"


class EquityPoint(BaseModel):
    """Equity at a moment, as a multiple of the equity at the promotion."""

    model_config = FROZEN

    days: float
    """Calendar days since the promotion."""
    equity: float


class BandPoint(BaseModel):
    """Equity to expect at a moment, as multiples of the equity at the promotion."""

    model_config = FROZEN

    days: float
    """Calendar days since the promotion."""
    low: float
    middle: float
    high: float


class ProductionStanding(BaseModel):
    """Production version since the promotion: equity after costs, beside the band of its backtest."""

    model_config = FROZEN

    model_id: str
    version: str
    since: datetime
    """Time of the promotion."""
    at: datetime
    """Time of the measurement."""
    bars: int
    """Bars closed since the promotion."""
    trades: int
    """Trades closed since the promotion."""
    drawdown: float | None
    """Fall of equity below its peak since the promotion, 0..1; None without a bar."""
    hard_stop: float
    """Drawdown of the hard stop of the protection, 0..1."""
    equity: tuple[EquityPoint, ...]
    """Ascending; thinned, with the extremes kept. Empty without a bar."""
    band: tuple[BandPoint, ...]
    """Ascending, from the promotion to some time ahead; empty without a backtest of 60 days."""
    expected: BandPoint | None
    """Band at the last point of the equity; None without a bar or a band."""
    sentences: tuple[str, ...]
    """Findings of the watch and the protection."""
    fills: tuple[str, ...] = ()
    """Sentence on the reported fills of each market: slippage, fees, realised against paper returns."""

    @property
    def total_return(self) -> float | None:
        """Return since the promotion, a fraction; None without a bar."""
        return self.equity[-1].equity - 1.0 if self.equity else None

    @property
    def place(self) -> BandPlace | None:
        """Place of the last equity; None without a bar or a band."""
        if self.expected is None or not self.equity:
            return None
        now = self.equity[-1].equity
        if now < self.expected.low:
            return BandPlace.BELOW
        return BandPlace.ABOVE if now > self.expected.high else BandPlace.INSIDE
