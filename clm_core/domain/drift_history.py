"""Measured drift of a version, kept by day."""

from datetime import date

from pydantic import BaseModel, ConfigDict

SHAP = "SHAP of "
"""Beginning of the names under which the drift of SHAP values is kept."""
PREDICTION = "prediction"
"""Name under which the drift of the version's own positions is kept."""


class DriftMeasurement(BaseModel):
    """Drift of a feature, or of the predictions, at the first watch of a day."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    day: date
    """Day of the watch (UTC)."""
    name: str
    """Feature; of a pool with the member before, as ETHUSDT/rsi_14. `PREDICTION`: the version's positions;
    `SHAP` and a feature: the SHAP values of the feature, what the version uses."""
    score: float
    """Distance to the training in units of the largest distance within the training."""
    p_value: float
    """Probability of a distance as large without drift."""
    psi: float | None = None
    """Population stability index against the training; None in a measurement of a release without it."""
    ks: float | None = None
    """Kolmogorov-Smirnov statistic against the training, 0..1; None as `psi`."""


class FeatureHistory(BaseModel):
    """Kept drift of a feature, or of the predictions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    drifted: bool
    """True if the newest measurement is a discovery, at a false-discovery rate of 5 %."""
    measurements: tuple[DriftMeasurement, ...]
    """Oldest first; at most one a day."""


class DriftHistory(BaseModel):
    """Kept drift of a production version, the most drifted feature first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_id: str
    version: str
    newest_day: date | None
    """Day of the newest measurement (UTC); None: the watch has measured none yet."""
    features: tuple[FeatureHistory, ...]
