"""The markets that are retrained on a schedule."""

from pydantic import BaseModel, ConfigDict, Field

from clm_core.domain.vocabulary import ModelType


class Market(BaseModel):
    """One series of bars, and the kinds of model kept fresh on it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbol: str
    """As `clm data list` names it: BTCUSD."""
    timeframe: str = "1h"
    model_types: tuple[ModelType, ...] | None = None
    """None: every scheduled kind this installation can train."""
    dataset_span_days: int = Field(default=365, gt=0)
    """Days of bars, counted back from the newest, that a training may see."""
