"""Measured drift of a version, kept by day."""

from datetime import date

from pydantic import BaseModel, ConfigDict

PREDICTION = "prediction"
"""Name under which the drift of the version's own positions is kept."""


class DriftMeasurement(BaseModel):
    """Drift of a feature, or of the predictions, at the first watch of a day."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    day: date
    """Day of the watch (UTC)."""
    name: str
    """Feature; of a pool with the member before, as ETHUSDT/rsi_14. `PREDICTION`: the version's positions."""
    score: float
    """Distance to the training in units of the largest distance within the training."""
    p_value: float
    """Probability of a distance as large without drift."""
