"""Expected gain and cost of a retrain."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DailyRecord:
    """Net returns of days, as fractions."""

    mean: float
    deviation: float
    """Standard deviation; above 0 for a judged record."""
    days: float


@dataclass(frozen=True)
class ServingVersion:
    """The production version at the time of a request."""

    version: str
    age_days: float
    """Days since the training."""
    returns: DailyRecord | None
    """Returns since the promotion; None before the first measurement."""
    exposure: float
    """Mean absolute exposure, as a fraction of equity."""


@dataclass(frozen=True)
class RetrainEvidence:
    """Measurements behind the expected gain and the cost of a retrain."""

    judged: DailyRecord
    """Judged record of the newest version."""
    days_since_training: float
    """Days since the newest training of the model, promoted or not."""
    serving: ServingVersion | None
    """None without a production version: nothing is earned."""
    drift_score: float | None
    """Drift observed by the request; above 1 beyond the training."""
    retrains: int
    """Newest retrains, the number behind `promoted`."""
    promoted: int
    """Number of these retrains with a promoted version."""
    trials: float
    """Trials of the market counted so far, at least 1."""
    trials_after: float
    """Trials counted after the retrain."""
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
