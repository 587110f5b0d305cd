"""Decisions on versions under shadow testing, and the places of recipes there."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from clm_core.domain import measures
from clm_core.domain.evaluations import IntervalEstimate

SINGLE_LOOK = "not valid when looked at repeatedly"
Level = Annotated[float, Field(gt=0, lt=1)]


class ShadowAction(StrEnum):
    PROMOTE = "promote"
    """The shadow has earned the version a place in production."""
    RETIRE = "retire"
    """The shadow has refuted the version, or a later version of the recipe took over."""
    CONTINUE = "continue"
    EXPIRE = "expire"
    """The shadow could not decide in time."""


class PlaceOutcome(StrEnum):
    PROMOTED = "promoted"
    RETIRED = "retired"
    EXPIRED = "expired"


class TTest(BaseModel):
    """Two-sided test of a lead of 0."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    statistic: float
    """Mean over its standard error."""
    degrees_of_freedom: float
    p_value: float
    """Probability, 0..1, of a statistic as far from 0 without a lead."""
    low_bps: float
    """Lower end of the interval of 95 % of the lead, basis points a day."""
    high_bps: float


class SingleLookTests(BaseModel):
    """Usual tests of the lead over the champion, on the days compared by the decision.

    Valid for one look at a number of days fixed before, not when looked at repeatedly: shown beside the
    decision, without a part in the rule.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    days: int
    """Days compared."""
    lead_bps: float
    """Mean lead at equal volatility, basis points a day."""
    paired: TTest
    """Student's t-test of the differences of the days."""
    welch: TTest | None
    """Welch's t-test, as if the two versions had traded independently; None where not measurable."""
    sharpe_difference: IntervalEstimate | None
    """Annualised Sharpe ratio minus the champion's, with an interval of 95 % by the stationary bootstrap;
    None where not measurable."""

    @property
    def sentence(self) -> str:
        """Tests with the warning, as a clause."""
        first = self.paired
        parts = [
            f"lead {self.lead_bps:+.2f} bps a day ({first.low_bps:+.2f} to {first.high_bps:+.2f}), "
            f"paired t-test p = {first.p_value:.3f}"
        ]
        if self.welch is not None:
            parts.append(f"Welch's t-test p = {self.welch.p_value:.3f}")
        if self.sharpe_difference is not None:
            ratio = self.sharpe_difference.text(measures.signed_ratio)
            parts.append(f"Sharpe ratio minus the champion's by bootstrap {ratio}")
        return f"{SINGLE_LOOK}: {', '.join(parts)}, on {self.days} days"


class ShadowFigures(BaseModel):
    """Measurements behind a decision; None where not measured or not asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    days: float | None = None
    """Days since the start of the shadow."""
    bars: int = 0
    """Bars earned on positions recorded in time."""
    trades: int = 0
    """Closed trades with every bar earned on such positions."""
    lead_days: int = 0
    """Days compared with the champion."""
    level: float | None = None
    """Probability, 0..1, of ever calling a shadow better without being better than the champion."""
    lead_low_bps: float | None = None
    """Lower bound of the lead over the champion at equal volatility, basis points a day, at `level`."""
    lead_high_bps: float | None = None
    """Upper bound at a level of 5 %."""
    chance_of_bad_luck: float | None = None
    """Lowest probability at the looks so far, 0..1, of a shadow as low by bad luck."""
    single_look: SingleLookTests | None = None
    """Usual tests of the lead, not valid when looked at repeatedly; None before a comparison."""


class ShadowDecision(BaseModel):
    """Answer of the shadow's rule about a version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: ShadowAction
    reasons: tuple[str, ...]
    progress: str
    """Days and trades, or the lead, reached so far and needed, as a clause."""
    waits_for: str = ""
    """Obstacle to the promotion, as a clause; empty: none."""
    needs_approval: bool = False
    """True if the obstacle is the approval of a person that the policy asks for."""
    figures: ShadowFigures = ShadowFigures()

    @property
    def sentence(self) -> str:
        """The action with the obstacle, the reasons and the progress."""
        waits = f" ({self.waits_for})" if self.waits_for else ""
        return f"{self.action}{waits}: {'; '.join((*self.reasons, self.progress))}"


class ShadowPlace(BaseModel):
    """Place of a recipe under shadow testing, held by the newest version of the recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int
    model_id: str
    recipe: str
    """Digest of the recipe; the version's label for a version without a digest."""
    started_at: datetime
    year: int | None = None
    """Calendar year (UTC) whose error budget the place draws on; None before a comparison with a champion."""
    rank: int | None = None
    """Number among the recipes of the model compared with a champion in the year, from 1."""
    level: Level | None = None
    """Probability of a false replacement, taken from the budget."""
    closed_at: datetime | None = None
    outcome: PlaceOutcome | None = None


class RecordedDecision(BaseModel):
    """A recorded decision on a version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int
    place_id: int | None
    """None for a refresh of the champion's recipe: a refresh holds no place."""
    model_id: str
    version: str
    champion: str | None
    """Production version at the time."""
    decision: ShadowDecision
    at: datetime
