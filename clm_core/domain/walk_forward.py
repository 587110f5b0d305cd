"""Walk-forward plan: the split of a series into training and test rows."""

from pydantic import BaseModel, ConfigDict, Field


class WalkForwardPlan(BaseModel):
    """Split of a series into training and test rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folds: int = Field(default=5, ge=1, le=100)
    """Number of models fitted one after the other, each tested on an equal share of the test rows."""
    first_train_fraction: float = Field(default=0.4, gt=0, lt=1)
    """Share of the bars before the first test row, 0..1."""
    embargo_bars: int = Field(default=24, ge=0)
    """Bars left out between training and test: a live model also starts some time after its newest data."""
    seeds: int | None = Field(default=None, ge=1, le=50)
    """Number of repetitions with different seeds; None for the number that the model type needs."""
    train_bars: int | None = Field(default=None, ge=1)
    """Bars each model is trained on, the newest before the embargo; None for all bars (expanding window)."""
