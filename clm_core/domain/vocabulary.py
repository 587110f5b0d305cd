"""Enumerations whose values are stored in the database and sent over the wire."""

from enum import StrEnum


class ModelType(StrEnum):
    XGBOOST = "xgboost"
    LIGHTGBM = "lightgbm"
    NHITS = "nhits"
    PATCHTST = "patchtst"
    RL_V2 = "rl_v2"
    RL_V3 = "rl_v3"
    ENSEMBLE = "ensemble"
    """Combined versions of other models."""
    OTHER = "other"
    """A plug-in or a rule strategy, identified by name."""


class RuleFamily(StrEnum):
    """Built-in rule strategies: kinds of model of type OTHER, in the place of a plug-in's name."""

    MOMENTUM = "momentum"
    BREAKOUT = "breakout"
    MEAN_REVERSION = "mean_reversion"
    MA_CROSS = "ma_cross"
    VOLATILITY_TREND = "volatility_trend"


class MarketRegime(StrEnum):
    """States of a market (`market.regimes`), in the order of their labels."""

    CALM = "calm"
    TURBULENT = "turbulent"


class ModelStatus(StrEnum):
    TRAINING = "training"
    SHADOW = "shadow"
    CANDIDATE = "candidate"
    PRODUCTION = "production"
    RETIRED = "retired"
    FAILED = "failed"


class TriggerReason(StrEnum):
    DRIFT_DETECTED = "drift_detected"
    PERFORMANCE_DEGRADED = "performance_degraded"
    PERIODIC = "periodic"
    MANUAL = "manual"
    REGIME_CHANGE = "regime_change"
    DATA_THRESHOLD = "data_threshold"
    STRATEGY_EVOLUTION = "strategy_evolution"


class VersionOrder(StrEnum):
    CREATED_AT = "created_at"
    SHARPE_RATIO = "sharpe_ratio"
    PROMOTION_SCORE = "promotion_score"


class CandidateOrder(StrEnum):
    CREATED_AT = "created_at"
    FITNESS_SCORE = "fitness_score"


class CandidateOrigin(StrEnum):
    MANUAL = "manual"
    MUTATION = "mutation"
    CROSSOVER = "crossover"
    RANDOM = "random"
    REGIME_ADAPTATION = "regime_adaptation"


class JobStatus(StrEnum):
    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"


class Role(StrEnum):
    REPORTER = "reporter"
    """May report fills and traded bars, and read nothing: the role of a trader's machine."""
    SCRAPER = "scraper"
    """May read the metrics, and nothing else: the role of a monitoring server."""
    VIEWER = "viewer"
    """May read."""
    OPERATOR = "operator"
    """May also retrain, promote versions that passed the gate, and roll back."""
    ADMIN = "admin"
    """May also overrule refusals."""

    def includes(self, other: "Role") -> bool:
        """True if the role has every permission of the other role; a viewer reports nothing."""
        if self in (Role.OPERATOR, Role.ADMIN):
            ranks = list(Role)
            return ranks.index(self) >= ranks.index(other)
        return self is other or (self, other) == (Role.VIEWER, Role.SCRAPER)


class PassInterval(StrEnum):
    """Time between two passes of watch and shadow in a replay."""

    DAILY = "daily"
    HOURLY = "hourly"
    """As the deployments of `clm up`."""

    @property
    def hours(self) -> int:
        return 24 if self is PassInterval.DAILY else 1


class KnownWorld(StrEnum):
    """Made-up market with a known edge."""

    PLANTED = "planted"
    """The edge lives to the end."""
    DYING = "dying"
    """The edge is gone from a day on: the price runs ahead of the volume and falls back."""
    MOVING = "moving"
    """From a day on the volume announces the opposite."""
    TURNING = "turning"
    """The volume announces less and less, the range of the bars more and more, and back: a turn in four
    years."""
    NONE = "none"
    """No edge: whatever is earned is luck."""

    @property
    def symbol(self) -> str:
        return {KnownWorld.NONE: "NOEDGE"}.get(self, self.value.upper())

    @property
    def changes(self) -> bool:
        return self in (KnownWorld.DYING, KnownWorld.MOVING)
