"""Paper record of a version for people and programs, and the value of continuous learning."""

from pydantic import AwareDatetime, BaseModel, ConfigDict

from clm_core.domain import measures
from clm_core.domain.evaluations import IntervalEstimate
from clm_core.domain.listings import Listing, Page

FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PaperQuery(Listing):
    """Recorded bars of a version by open time."""

    symbol: str | None = None
    """Member of a pool, whose portfolio is shown without a symbol."""


class PaperBar(BaseModel):
    """A closed bar with the position after the bar, and the return earned on the position before."""

    model_config = FROZEN

    time: AwareDatetime
    """Open time of the bar."""
    position: float
    """Target position recorded after the bar, -1..1; of a pool, the mean over the members."""
    net_return: float
    """Return of the bar after costs, a fraction of the equity before the bar."""
    cost: float
    """Fees, slippage and costs of holding within the net return, a fraction of the equity before the bar."""
    late: bool
    """True for a position recorded more than a bar after the close of the bar."""
    evidence: bool
    """True if the net return was earned on a position recorded in time."""


class PaperRecord(Page[PaperBar]):
    """Part of a version's paper record, traded from flat since the registration."""

    model_id: str
    version: str
    symbol: str
    """Market, member of a pool, or the pool."""
    costs: str
    """Costs of the returns as a clause: the costs of the home in force, equal for all versions."""
    bars: int
    """Number of recorded bars in the whole record."""
    late: int
    """Number of positions recorded late in the whole record."""


class LearningValue(BaseModel):
    """Value of continuous learning: production against the first champion, frozen.

    Both are paper records on the same bars, from the moment the first champion was replaced. A bar counts if
    earned on positions recorded in time on both sides.
    """

    model_config = FROZEN

    model_id: str
    frozen: str
    """Version label of the first champion."""
    production: str | None
    """Version label of the production version; None while nothing serves."""
    at: AwareDatetime
    """Time of the measurement."""
    since: AwareDatetime | None = None
    """Time the first champion was replaced; None while the first champion has served all along."""
    until: AwareDatetime | None = None
    """Open time of the newest counted bar; None without a bar."""
    bars: int = 0
    """Number of counted bars."""
    production_return: float | None = None
    """Total return of production on the counted bars after costs, a fraction; None without a bar."""
    frozen_return: float | None = None
    """Total return of the frozen champion on the counted bars after costs, a fraction; None without a bar."""
    return_difference: IntervalEstimate | None = None
    """Total return of production minus the frozen champion's, a fraction, with an interval of 95 % by the
    stationary bootstrap, valid for a single look; None with too few bars or equal returns."""
    sharpe_difference: IntervalEstimate | None = None
    """Annualised Sharpe ratio of production minus the frozen champion's at equal trailing volatility, with
    an interval of 95 % valid at every look; None with too few days or equal returns."""
    reason: str | None = None
    """Reason for a missing difference; None with both differences."""

    @property
    def sentence(self) -> str:
        """Differences with intervals, or the reason why there is none."""
        if self.since is None:
            return f"continuous learning: {self.reason}"
        parts = [f"continuous learning: {self.production or 'no version'} in production, {self._span()}"]
        if self.sharpe_difference is not None:
            ratio = self.sharpe_difference.text(measures.signed_ratio)
            parts.append(f"Sharpe ratio minus the frozen champion's at equal volatility {ratio}")
        if self.production_return is not None and self.frozen_return is not None:
            totals = f"total return {self.production_return:+.1%} against {self.frozen_return:+.1%}"
            difference = self.return_difference
            between = None if difference is None else difference.text(measures.signed_percent)
            parts.append(totals if between is None else f"{totals}, difference {between}")
        return "; ".join([*parts, *([self.reason] if self.reason else [])])

    @property
    def conclusion(self) -> str:
        """Reading of the interval of the Sharpe ratios, valid at every look; empty without an interval."""
        if self.sharpe_difference is None:
            return ""
        if self.sharpe_difference.low > 0.0:
            return "Learning has paid off: the whole interval is above zero."
        if self.sharpe_difference.high < 0.0:
            return "Learning has cost: the whole interval is below zero."
        return "Nothing is proved so far: the interval includes zero."

    def _span(self) -> str:
        return (
            f"the first champion {self.frozen} frozen since {self.since:%Y-%m-%d %H:%M} UTC, "
            f"{self.bars:,} common bars"
        )
