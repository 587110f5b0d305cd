"""Walk-forward plan: the split of a series into training and test rows."""

from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

EQUAL_FOLDS = 5
"""Number of equal folds of a search, and of jobs before folds began at fixed dates."""
MAX_FOLDS = 13
"""Most fits of a walk-forward on the grid chosen by itself: quarters for three years out of sample."""
ENOUGH_OF_SPAN = 0.75
"""Share of the requested days below which a series counts as shorter than requested."""
SHORT_SPAN_DAYS = 365
"""Requested days below which the registered model is fitted on all of them: a share of so few bars teaches
little, and no length of so short a record proves anything."""
YEARS_OF_SPANS = (50, 30, 20, 15, 10, 7, 5, 3, 2, 1)
SHORTER_SPANS = (*(365 * years for years in YEARS_OF_SPANS), 180, 90, 60, 30, 14, 7)
"""Days of the spans that stand in for a request longer than the series: a series that grows day by day must
not change the recipe day by day."""
COVERING_SHARE = 0.98
"""Share of a shorter span from which on a series covers the span: a year of a market that closes begins after
a holiday and ends before one."""


class FoldGrid(StrEnum):
    """Calendar on which folds begin, in UTC."""

    YEAR = "year"
    HALF_YEAR = "half_year"
    """1 January and 1 July."""
    QUARTER = "quarter"
    MONTH = "month"
    WEEK = "week"
    """Mondays."""
    DAY = "day"

    @property
    def days(self) -> float:
        """Mean length in days."""
        return _DAYS[self]


_DAYS = {
    FoldGrid.YEAR: 365.25,
    FoldGrid.HALF_YEAR: 365.25 / 2,
    FoldGrid.QUARTER: 365.25 / 4,
    FoldGrid.MONTH: 365.25 / 12,
    FoldGrid.WEEK: 7.0,
    FoldGrid.DAY: 1.0,
}


class WalkForwardPlan(BaseModel):
    """Split of a series into training and test rows.

    A fold begins at every date of the grid after a whole training span of bars, and ends at the next date;
    the model of a fold is fitted on the training span less the embargo. So neither the bars that a run loads
    nor the day of the run changes the fold of a past date. With `folds`, the test rows are cut into equal
    shares instead, and every fold moves with the loaded bars.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folds: int | None = Field(default=None, ge=1, le=100)
    """Number of equal folds in place of folds at fixed dates; None for the dates of the grid."""
    first_train_fraction: float = Field(default=0.4, gt=0, lt=1)
    """Training span as a share of the requested days, 0..1; with `folds`, the share of the bars before the
    first test row."""
    embargo_bars: int = Field(default=24, ge=0)
    """Bars left out between training and test: a live model also starts some time after its newest data."""
    seeds: int | None = Field(default=None, ge=1, le=50)
    """Number of repetitions with different seeds; None for the number that the model type needs."""
    train_bars: int | None = Field(default=None, ge=1)
    """Bars each model is trained on, the newest before the embargo; None for the training span, and with
    `folds` for all bars before the fold (expanding window)."""
    grid: FoldGrid | None = None
    """Calendar of the folds; None for the finest with at most as many fits for the requested days as the kind
    of model allows: quarters for five years."""
    span_days: int | None = Field(default=None, ge=1)
    """Requested days of bars; a run fills in the days of its request."""

    @property
    def on_dates(self) -> bool:
        """True if folds begin at fixed dates."""
        return self.folds is None

    @property
    def equal_folds(self) -> int:
        return self.folds or EQUAL_FOLDS

    @property
    def train_days(self) -> float:
        """Days in the training span of a plan with `span_days`."""
        assert self.span_days is not None
        return self.first_train_fraction * self.span_days

    @property
    def final_days(self) -> float:
        """Days that the registered model is fitted on: those of a fold, or all days of a short request."""
        assert self.span_days is not None
        return self.train_days if self.span_days >= SHORT_SPAN_DAYS else self.span_days

    def training_span(self, requested_days: int) -> str:
        """Bars that a fit sees, in words: "730 days of 1825".

        Args:
            requested_days: days of the request, for a plan in equal folds.
        """
        if self.on_dates:
            assert self.span_days is not None
            newest = f"{self.train_days:g} days" if self.train_bars is None else f"{self.train_bars} bars"
            return f"{newest} of {self.span_days}"
        newest = "all" if self.train_bars is None else f"{self.train_bars}"
        return f"{newest} bars of {requested_days} days"

    def in_equal_folds(self) -> Self:
        """The plan of a search, whose folds compare parameters with each other and are not kept."""
        return self.model_copy(update={"folds": self.equal_folds, "grid": None, "span_days": None})

    def for_request(self, requested_days: int, series_days: float, max_folds: int = MAX_FOLDS) -> Self:
        """The plan with the grid and the days of a request; a plan in equal folds unchanged.

        Args:
            series_days: days of the loaded bars; fewer than requested where the series is shorter.
            max_folds: most fits on a grid chosen here.
        """
        if not self.on_dates:
            return self
        span = self.span_days or effective_span(requested_days, series_days)
        tested = (1.0 - self.first_train_fraction) * span
        fine = (grid for grid in reversed(FoldGrid) if tested / grid.days <= max_folds)
        grid = self.grid or next(fine, FoldGrid.YEAR)
        return self.model_copy(update={"span_days": span, "grid": grid})

    def recorded(self) -> dict[str, Any]:
        """Values for a digest; a plan in equal folds has the values of releases without dates."""
        values = self.model_dump(mode="json")
        if not self.on_dates:
            del values["grid"], values["span_days"]
        return values


def effective_span(requested_days: int, series_days: float) -> int:
    """Requested days, or those of the longest shorter span that the series covers.

    Three quarters of the requested days are enough: the first folds are missing then.
    """
    if series_days >= ENOUGH_OF_SPAN * requested_days:
        return requested_days
    longest = min(series_days / COVERING_SHARE, requested_days)
    shorter = (days for days in SHORTER_SPANS if days <= longest)
    return next(shorter, max(1, int(series_days)))
