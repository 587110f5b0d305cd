"""Walk-forward plan: how a series is cut into training and test rows."""

from pydantic import BaseModel, ConfigDict, Field


class WalkForwardPlan(BaseModel):
    """How a series is cut into training and test rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folds: int = Field(default=5, ge=1, le=100)
    """Models fitted one after the other; the test rows are shared out evenly among them."""
    first_train_fraction: float = Field(default=0.4, gt=0, lt=1)
    """Share of the bars before the first test row."""
    embargo_bars: int = Field(default=24, ge=0)
    """Bars left out between training and test: a live model, too, starts some time after its data ended."""
    seeds: int | None = Field(default=None, ge=1, le=50)
    """How often all of it is done, each time with another seed; None: as often as the kind of model needs."""
    train_bars: int | None = Field(default=None, ge=1)
    """Bars each model is trained on, the newest before the embargo; None: all of them (expanding)."""
