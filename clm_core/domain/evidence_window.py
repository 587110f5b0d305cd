"""Evidence window: the Sharpe ratio that a training window can prove, told before a long training."""

import math

from pydantic import BaseModel, ConfigDict, Field


class ShortTraining(BaseModel):
    """Fits of a walk-forward on fewer bars than the kind of model needs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str = Field(description="Kind of model.")
    bars: int = Field(description="Bars in the training of the shortest fold; 0 if no fold has a whole span.")
    needed_bars: int = Field(description="Bars that a fit needs.")
    needed_days: int | None = Field(
        description="Days of bars to request; null where the setting walk_forward.train_bars is the limit."
    )

    @property
    def sentence(self) -> str:
        """`A fit of xgboost needs 455 bars, and the shortest fold trains on 122: pass --days 1222
        (dataset_span_days), and import older bars where the series is shorter`."""
        trains = f"the shortest fold trains on {self.bars:,}"
        if not self.bars:
            trains = "no fold has a whole training span before it"
        remedy = f"set walk_forward.train_bars to {self.needed_bars} or more"
        if self.needed_days is not None:
            remedy = (
                f"pass --days {self.needed_days} (dataset_span_days), and import older bars where the series "
                "is shorter"
            )
        return f"A fit of {self.kind} needs {self.needed_bars:,} bars, and {trains}: {remedy}"


class EvidenceWindow(BaseModel):
    """Out-of-sample length of a training window, and the result a version must show there to pass."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    days: int = Field(description="Days from the first to the last bar of the window.")
    requested_days: int = Field(description="Days requested; more than `days` where the series is shorter.")
    out_of_sample: float = Field(description="Share of the bars tested out of sample, 0..1.")
    required_sharpe: float | None = Field(
        description="Annualised Sharpe ratio that a version must show out of sample to pass the gate's "
        "evidence; null if no ratio suffices."
    )
    record_days: int | None = Field(
        default=None,
        description="Days of the recipe's record so far, which the judgement continues; null for a recipe "
        "without a record.",
    )
    longer_days: int | None = Field(default=None, description="A longer window for comparison.")
    longer_sharpe: float | None = Field(
        default=None, description="Sharpe ratio to show with `longer_days` days of bars."
    )
    too_short: ShortTraining | None = Field(
        default=None,
        description="Bars missing for a fit of the kind of model; null if they suffice, for a pool, and for "
        "a kind that does not state what a fit needs.",
    )

    @property
    def sentence(self) -> str:
        """`58 % of 365 days out of sample: a version must show a Sharpe ratio of 4.3 to pass; with 1,825 days
        1.9`."""
        short = ""
        if self.days < 0.98 * self.requested_days:
            short = f"The series has {self.days:,} of the {self.requested_days:,} days requested. "
        if self.too_short is not None:
            return f"{short}{self.too_short.sentence}"
        tested = f"{100 * self.out_of_sample:.0f} % of {self.days:,} days out of sample: "
        if self.record_days is not None:
            tested = f"The recipe has a record of {self.record_days:,} days out of sample: "
        required = "no Sharpe ratio is enough to pass"
        if self.required_sharpe is not None:
            required = (
                f"a version must show a Sharpe ratio of {_rounded_up(self.required_sharpe):.1f} to pass"
            )
        longer = ""
        if self.longer_days is not None and self.longer_sharpe is not None:
            longer = f"; with {self.longer_days:,} days {_rounded_up(self.longer_sharpe):.1f}"
        return f"{short}{tested}{required}{longer}"


def _rounded_up(sharpe: float) -> float:
    """The ratio with one decimal, never below the required ratio."""
    return math.ceil(10 * sharpe) / 10
