"""Rules of the protection: when a production version is taken out of production."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ProtectionRules(BaseModel):
    """Limits of the protection; `protection` of a policy document, by preset, market or model."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mode: Literal["auto", "classic", "off"] = "auto"
    """"classic" adds the plain rule on the first trades; "off" leaves the production version to people."""
    max_drawdown: float = Field(default=0.20, gt=0, le=1)
    """Hard stop: largest fall of equity below its peak since the promotion, a fraction."""
    min_sharpe: float = Field(default=0.5, ge=-10, le=10)
    """Least annualised Sharpe ratio over the first trades, of "classic"."""
    first_trades: int = Field(default=100, ge=1)
    """Closed trades since the promotion for the look of "classic"."""
    hold_days: float = Field(default=7.0, ge=0, le=3650)
    """Days without action of an alarm after a person's decision on the production version."""
    max_serving_days: float | None = Field(default=None, gt=0, le=3650)
    """Age of a production version, in days since the registration, at which the model is halted; None: no
    limit."""
    max_rollbacks: int = Field(default=3, ge=0, le=100)
    """Rollbacks by the protection in a row, without a promotion or a decision of a person between."""
