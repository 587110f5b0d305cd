"""The closed lists of words; their values are what goes over the wire and into the database."""

from enum import StrEnum


class ModelType(StrEnum):
    XGBOOST = "xgboost"
    LIGHTGBM = "lightgbm"
    NHITS = "nhits"
    PATCHTST = "patchtst"
    RL_V2 = "rl_v2"
    RL_V3 = "rl_v3"
    ENSEMBLE = "ensemble"
    """Versions of other models, combined."""
    OTHER = "other"
    """A plug-in's; its name says which."""


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
    VIEWER = "viewer"
    """Reads."""
    OPERATOR = "operator"
    """Retrains, promotes what passed its gate, rolls back."""
    ADMIN = "admin"
    """Also forces what the rules refuse."""

    def includes(self, other: "Role") -> bool:
        """Whether it may do all that the other one may."""
        ranks = list(Role)
        return ranks.index(self) >= ranks.index(other)
