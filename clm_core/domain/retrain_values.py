"""Expected gain and cost of a retrain."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EarnedSpan:
    """Net return of the versions of a recipe over one or more days."""

    days_ago: float
    """Days from the middle of the span to the request."""
    days: float
    """Length of the span, above 0."""
    age_days: float
    """Days from the training of the version to the middle of the span."""
    growth: float
    """Mean log return of a day."""
    serves: bool = False
    """True for the version replaced by a promotion."""


@dataclass(frozen=True)
class ServingVersion:
    """The version replaced by a promotion: the production version, or, without a version in production, the
    newest version awaiting a decision."""

    version: str
    age_days: float
    """Days since the training."""
    exposure: float
    """Mean absolute exposure, as a fraction of equity; 0 for a version not in production."""


@dataclass(frozen=True)
class RetrainEvidence:
    """Measurements behind the expected gain and the cost of a retrain."""

    earned: tuple[EarnedSpan, ...]
    """Judged record of the newest version; days after the record, where no version is in production or awaits
    a decision; returns of production beyond the record."""
    record_growth: float
    """Log return of the judged record and the days after the record."""
    required_growth: float
    """Lowest log return of a record that passes the gate, with all days up to the request."""
    deviation: float
    """Standard deviation of the return of a day in the judged record, above 0."""
    days_since_training: float
    """Days since the newest training of the model, promoted or not."""
    unseen_days: float
    """Days since the newest training beyond those of `record_growth`."""
    serving: ServingVersion | None
    """None without a production version and a version awaiting a decision: nothing is earned."""
    drift_score: float | None
    """Drift observed by the request; above 1 beyond the training."""
    retrains: int
    """Newest retrains, the number behind `promoted`."""
    promoted: int
    """Number of these retrains with a promoted version."""
    trials: float
    """Trials of the market counted so far, at least 1."""
    trials_after: float
    """Trials counted after the retrain, each new trial by the share of days beyond the earlier records."""
    hours: float
    """Hours of a retrain."""
    side_bps: float
    """Cost of a trade on each side, basis points of the traded value."""


@dataclass(frozen=True)
class RetrainValue:
    """Expected gain and cost of a retrain, in basis points of the capital."""

    improvement_bps: float
    """Expected improvement a day by a promoted version."""
    probability: float
    """Probability that the retrain leads to a promotion, 0..1."""
    days: float
    """Days over which the gain is counted."""
    compute_bps: float
    turnover_bps: float
    trials_bps: float

    @property
    def gain_bps(self) -> float:
        return self.improvement_bps * self.probability * self.days

    @property
    def cost_bps(self) -> float:
        return self.compute_bps + self.turnover_bps + self.trials_bps

    @property
    def pays(self) -> bool:
        # a gain that is not a number does not pay
        return self.gain_bps >= self.cost_bps

    @property
    def sentence(self) -> str:
        """`the expected gain of 0.20 bps a day over 7.0 days does not pay for 2.60 bps: compute ...`."""
        return (
            f"the expected gain of {self.improvement_bps * self.probability:.2f} bps a day over "
            f"{self.days:.1f} days {'pays' if self.pays else 'does not pay'} for {self.cost_bps:.2f} bps: "
            f"compute {self.compute_bps:.2f}, turnover {self.turnover_bps:.2f}, trials "
            f"{self.trials_bps:.2f} (probability of a promotion {self.probability:.2f})"
        )
