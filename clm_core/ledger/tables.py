"""Tables of the ledger."""

import math
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    Text,
    TypeDecorator,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from clm_core.domain.allocations import AllocationEnd
from clm_core.domain.deliveries import StreamName
from clm_core.domain.events import EventType
from clm_core.domain.promotions import PromotionKind, PromotionState
from clm_core.domain.shadow_decisions import PlaceOutcome
from clm_core.domain.trials import TrialSource
from clm_core.domain.triggers import Reply
from clm_core.domain.vocabulary import CandidateOrigin, JobStatus, ModelStatus, ModelType, Role, TriggerReason


class Moment(TypeDecorator[datetime]):
    """A point in time: refused without a time zone, read in UTC regardless of the server's zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    @property
    def python_type(self) -> type[datetime]:
        return datetime

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError(f"{value} has no time zone: use datetime.now(UTC), or attach the intended zone")
        return value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)


class Measured(TypeDecorator[Any]):
    """JSON with NaN and infinite numbers, written as the strings "nan", "inf" and "-inf" because JSON has no
    such numbers; `float` and the domain's models read the strings back."""

    impl = JSONB
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return _written(value)


def _written(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case dict():
            return {name: _written(item) for name, item in value.items()}
        case list() | tuple():
            return [_written(item) for item in value]
    return value


def storable(text: str) -> str:
    """Text with escapes for NUL and lone surrogates, which PostgreSQL cannot store."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def _one_of(values: type[StrEnum], column: str) -> CheckConstraint:
    """Check on a text column: values of a PostgreSQL enum type could never be removed."""
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def _named_plugin() -> CheckConstraint:
    return CheckConstraint("(plugin IS NOT NULL) = (model_type = 'other')", name="plugin")


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it as a plain class attribute
        datetime: Moment,
        float: Double,
        str: Text,
    }


class JobRow(Base):
    """A `TrainingJob`."""

    __tablename__ = "training_jobs"
    __table_args__ = (
        _one_of(ModelType, "model_type"),
        _one_of(TriggerReason, "trigger_reason"),
        _one_of(JobStatus, "status"),
        _named_plugin(),
        CheckConstraint("dataset_span_days > 0", name="span"),
        CheckConstraint("cardinality(symbols) = cardinality(data_snapshots)", name="members"),
        CheckConstraint("(started_at IS NULL) = (status = 'pending')", name="started"),
        CheckConstraint("(finished_at IS NOT NULL) = (status IN ('completed', 'failed'))", name="finished"),
        CheckConstraint("(failure_cause IS NOT NULL) = (status = 'failed')", name="cause"),
        CheckConstraint("cancelled_by IS NULL OR status = 'failed'", name="cancelled"),
        Index(None, "model_id", "created_at"),
        Index(None, "status"),
        Index(None, "created_at", "id"),
        Index("ix_training_jobs_pools", "symbol", postgresql_where=text("symbols <> '{}'")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    model_id: Mapped[str]
    """Model id made from the kind, symbol and timeframe; stored for searches."""
    model_type: Mapped[str]
    plugin: Mapped[str | None]
    symbol: Mapped[str]
    symbols: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))
    timeframe: Mapped[str]
    dataset_span_days: Mapped[int]
    data_snapshot: Mapped[str]
    series: Mapped[dict[str, str]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    data_snapshots: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))
    trigger_reason: Mapped[str]
    training_params: Mapped[dict[str, Any]] = mapped_column(JSONB)
    seed: Mapped[int] = mapped_column(BigInteger)
    requested_by: Mapped[str]
    recipe_from: Mapped[str | None]
    candidate_id: Mapped[UUID | None] = mapped_column(ForeignKey("strategy_candidates.id"))
    status: Mapped[str]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    failure_cause: Mapped[str | None]
    cancelled_by: Mapped[str | None]


class LeaseRow(Base):
    """The `Lease` of a job in progress; deleted at the end of the job."""

    __tablename__ = "job_leases"
    __table_args__ = (Index(None, "expires_at"),)

    job_id: Mapped[UUID] = mapped_column(ForeignKey("training_jobs.id"), primary_key=True)
    holder: Mapped[str]
    token: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    expires_at: Mapped[datetime]
    seconds: Mapped[float] = mapped_column(server_default=text("60"))


class VersionRow(Base):
    """A `ModelVersion`, with ranks by the results of the newest evaluation."""

    __tablename__ = "model_versions"
    __table_args__ = (
        _one_of(ModelType, "model_type"),
        _named_plugin(),
        _one_of(ModelStatus, "status"),
        ForeignKeyConstraint(
            ["model_id", "parent_version"], ["model_versions.model_id", "model_versions.version"]
        ),
        # PostgreSQL sorts NaN above every number: NaN would rank best
        CheckConstraint("sharpe_rank <> 'NaN' AND score_rank <> 'NaN'", name="ranks"),
        Index(None, "model_id", "created_at"),
        Index(None, "status"),
        Index(None, "created_at", "model_id", "version"),
        Index(None, "sharpe_rank", "model_id", "version"),
        Index(None, "score_rank", "model_id", "version"),
        Index(None, "training_job_id"),
        Index(None, "recipe_digest", "created_at"),
        Index(
            "ix_model_versions_production",
            "model_id",
            unique=True,
            postgresql_where=text("status = 'production'"),
        ),
    )

    model_id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True)
    model_type: Mapped[str]
    plugin: Mapped[str | None]
    symbol: Mapped[str]
    timeframe: Mapped[str]
    status: Mapped[str]
    training_job_id: Mapped[UUID] = mapped_column(ForeignKey("training_jobs.id"))
    parent_version: Mapped[str | None]
    model_path: Mapped[str]
    mlflow_version: Mapped[int]
    mlflow_run_id: Mapped[str]
    bundle_digest: Mapped[str]
    package_digest: Mapped[str | None]
    data_hash: Mapped[str]
    code_version: Mapped[str]
    recipe_digest: Mapped[str | None]
    seed: Mapped[int] = mapped_column(BigInteger)
    params: Mapped[dict[str, Any]] = mapped_column(JSONB)
    environment: Mapped[dict[str, str]] = mapped_column(JSONB)
    train_metrics: Mapped[dict[str, float]] = mapped_column(Measured)
    validation_metrics: Mapped[dict[str, float]] = mapped_column(Measured)
    created_at: Mapped[datetime]
    sharpe_rank: Mapped[float] = mapped_column(server_default=text("'-Infinity'"))
    """Sharpe ratio of the newest evaluation; -infinity if missing or NaN."""
    score_rank: Mapped[float] = mapped_column(server_default=text("'-Infinity'"))
    """Promotion score of the newest evaluation; -infinity if missing."""


class TrialRow(Base):
    """A `Trial` with daily returns. Append-only: a counted trial counts for ever."""

    __tablename__ = "trials"
    __table_args__ = (
        _one_of(TrialSource, "source"),
        CheckConstraint("bars >= 0", name="bars"),
        Index(None, "symbol", "timeframe", "at"),
        Index(None, "job_id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    source: Mapped[str]
    model_id: Mapped[str]
    symbol: Mapped[str]
    timeframe: Mapped[str]
    job_id: Mapped[UUID | None] = mapped_column(ForeignKey("training_jobs.id"))
    params: Mapped[dict[str, Any]] = mapped_column(JSONB)
    seed: Mapped[int] = mapped_column(BigInteger)
    sharpe: Mapped[float]
    skewness: Mapped[float]
    kurtosis: Mapped[float]
    bars: Mapped[int]
    effective_bars: Mapped[float]
    period_start: Mapped[datetime]
    period_end: Mapped[datetime]
    first_day: Mapped[int]
    """Days since 1970-01-01 UTC."""
    daily_returns: Mapped[bytes]
    """Return of every day from the first day on, float32, little endian."""
    at: Mapped[datetime]


class BegunTrialRow(Base):
    """A started trial, which counts as a trial with unknown returns until a row in `trials` has the same id.
    Append-only."""

    __tablename__ = "begun_trials"
    __table_args__ = (Index(None, "symbol", "timeframe", "at"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    symbol: Mapped[str]
    timeframe: Mapped[str]
    first_day: Mapped[int]
    """Days since 1970-01-01 UTC of the first test bar."""
    at: Mapped[datetime]


class TuningRow(Base):
    """A `Tuning`. Append-only: the definition of a study never changes."""

    __tablename__ = "tunings"
    __table_args__ = (Index(None, "model_id", "created_at"),)

    name: Mapped[str] = mapped_column(primary_key=True)
    model_id: Mapped[str]
    definition: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """The whole `Tuning`; the columns for searches are repeated beside."""
    created_at: Mapped[datetime]


class StrategySearchRow(Base):
    """A `StrategySearch`. Append-only: the definition of a search never changes."""

    __tablename__ = "strategy_searches"
    __table_args__ = (Index(None, "symbol", "timeframe", "created_at"),)

    name: Mapped[str] = mapped_column(primary_key=True)
    symbol: Mapped[str]
    timeframe: Mapped[str]
    definition: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """The whole `StrategySearch`; the columns for searches are repeated beside."""
    created_at: Mapped[datetime]


class StrategyTrialsRow(Base):
    """The trials of a generation, counted as a batch. Append-only."""

    __tablename__ = "strategy_trials"
    __table_args__ = (CheckConstraint("trials > 0", name="trials"),)

    search: Mapped[str] = mapped_column(ForeignKey("strategy_searches.name"), primary_key=True)
    batch: Mapped[int] = mapped_column(primary_key=True)
    """Number of the generation; negative for the look at the held-out bars after generation -batch - 1."""
    trials: Mapped[int]
    genes: Mapped[bytes]
    """Genes of each candidate, little-endian float64, in rows."""
    scores: Mapped[bytes]
    """Scores of each candidate, little-endian float64, in rows; the metrics of the look at held-out bars."""
    highest: Mapped[bytes]
    """Largest statistic of chance in each draw, little-endian float32; see `TrialSketch`."""
    lowest: Mapped[bytes]
    """Smallest statistic of chance in each draw."""
    at: Mapped[datetime]


class StrategySearchResultRow(Base):
    """Result of a command that worked on a search. Append-only."""

    __tablename__ = "strategy_search_results"

    search: Mapped[str] = mapped_column(ForeignKey("strategy_searches.name"), primary_key=True)
    at: Mapped[datetime] = mapped_column(primary_key=True)
    result: Mapped[dict[str, Any]] = mapped_column(JSONB)


class EvaluationRow(Base):
    """An `EvaluationResult` with the verdict, the policy, the judged bundle and the counted trial."""

    __tablename__ = "evaluations"
    __table_args__ = (
        ForeignKeyConstraint(["model_id", "version"], ["model_versions.model_id", "model_versions.version"]),
        CheckConstraint("trades >= 0", name="trades"),
        # PostgreSQL sorts NaN above every number, so that NaN is refused too
        CheckConstraint("promotion_score BETWEEN 0 AND 100", name="score"),
        CheckConstraint("passed = (verdict ->> 'decision' = 'pass')", name="verdict"),
        CheckConstraint("(terms IS NULL) = (terms_digest IS NULL)", name="terms"),
        Index(None, "model_id", "version", "created_at"),
        Index(None, "created_at"),
        Index(None, "trial_id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    model_id: Mapped[str]
    version: Mapped[str]
    bundle_digest: Mapped[str]
    """SHA-256 of the judged bundle's manifest, hexadecimal."""
    sharpe_ratio: Mapped[float]
    sortino_ratio: Mapped[float]
    calmar_ratio: Mapped[float]
    win_rate: Mapped[float]
    profit_factor: Mapped[float]
    max_drawdown: Mapped[float]
    total_pnl: Mapped[float]
    trades: Mapped[int]
    period_start: Mapped[datetime]
    period_end: Mapped[datetime]
    fee_bps: Mapped[float]
    slippage_bps: Mapped[float]
    terms: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    """`EvaluationTerms`; NULL for an evaluation by release 0.1.0."""
    terms_digest: Mapped[str | None]
    """SHA-256 of the terms, hexadecimal."""
    passed: Mapped[bool]
    promotion_score: Mapped[float]
    failure_reason: Mapped[str | None]
    verdict: Mapped[dict[str, Any]] = mapped_column(Measured)
    decision: Mapped[str | None] = mapped_column(Computed("verdict ->> 'decision'"))
    """`Decision` of the verdict, for counts."""
    policy: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created_at: Mapped[datetime]
    trial_id: Mapped[UUID] = mapped_column(ForeignKey("trials.id"))


class EvidenceRow(Base):
    """The `StoredEvidence` of an evaluation. Append-only: a promotion judges what the verdict judged."""

    __tablename__ = "evaluation_evidence"

    evaluation_id: Mapped[UUID] = mapped_column(ForeignKey("evaluations.id"), primary_key=True)
    digest: Mapped[str]
    """SHA-256 of the content, hexadecimal."""
    content: Mapped[bytes]
    data_hash: Mapped[str]
    code_digest: Mapped[str]


class MarketCostsRow(Base):
    """Costs of a market from a moment on. Append-only."""

    __tablename__ = "market_costs"
    __table_args__ = (Index(None, "symbol", "number"),)

    number: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    symbol: Mapped[str]
    costs: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """`MarketCosts` of the settings of the home."""
    at: Mapped[datetime]


class HardStopExemptionRow(Base):
    """A version whose hard stop a person switched off until a moment. Append-only."""

    __tablename__ = "hard_stop_exemptions"
    __table_args__ = (
        ForeignKeyConstraint(["model_id", "version"], ["model_versions.model_id", "model_versions.version"]),
        CheckConstraint("reason <> ''", name="reason"),
        Index(None, "model_id", "version"),
    )

    number: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    model_id: Mapped[str]
    version: Mapped[str]
    until: Mapped[datetime]
    actor: Mapped[str]
    reason: Mapped[str]
    at: Mapped[datetime]


class StandingRow(Base):
    """The newest `ProductionStanding` of a model, replaced by each watch."""

    __tablename__ = "production_standings"
    __table_args__ = (
        ForeignKeyConstraint(["model_id", "version"], ["model_versions.model_id", "model_versions.version"]),
    )

    model_id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str]
    at: Mapped[datetime]
    standing: Mapped[dict[str, Any]] = mapped_column(JSONB)


class LearningValueRow(Base):
    """The newest `LearningValue` of a model, replaced by each shadow pass."""

    __tablename__ = "learning_values"
    __table_args__ = (
        ForeignKeyConstraint(["model_id", "frozen"], ["model_versions.model_id", "model_versions.version"]),
    )

    model_id: Mapped[str] = mapped_column(primary_key=True)
    frozen: Mapped[str]
    at: Mapped[datetime]
    value: Mapped[dict[str, Any]] = mapped_column(JSONB)


class DriftMeasurementRow(Base):
    """A `DriftMeasurement` of a version. Append-only."""

    __tablename__ = "drift_measurements"
    __table_args__ = (
        ForeignKeyConstraint(["model_id", "version"], ["model_versions.model_id", "model_versions.version"]),
        CheckConstraint("score >= 0", name="score"),
        CheckConstraint("p_value BETWEEN 0 AND 1", name="p_value"),
        CheckConstraint("ks BETWEEN 0 AND 1", name="ks"),
    )

    model_id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    score: Mapped[float]
    p_value: Mapped[float]
    psi: Mapped[float | None]
    ks: Mapped[float | None]


class ShadowPositionRow(Base):
    """Target position of a shadow version after a bar, recorded at the time. Append-only: positions chosen
    afterwards would prove nothing."""

    __tablename__ = "shadow_positions"
    __table_args__ = (
        ForeignKeyConstraint(["model_id", "version"], ["model_versions.model_id", "model_versions.version"]),
        # PostgreSQL sorts NaN above every number, so that NaN is refused too
        CheckConstraint("position BETWEEN -1 AND 1", name="position"),
    )

    model_id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True)
    symbol: Mapped[str] = mapped_column(primary_key=True, server_default=text("''"))
    """Member of a pool; empty for a version of one market."""
    bar_time: Mapped[datetime] = mapped_column(primary_key=True)
    """Open time of the bar before the position."""
    position: Mapped[float]
    recorded_at: Mapped[datetime]


class ShadowCheckRow(Base):
    """A `RecordCheck`: the newest of each version and market."""

    __tablename__ = "shadow_checks"
    __table_args__ = (
        ForeignKeyConstraint(["model_id", "version"], ["model_versions.model_id", "model_versions.version"]),
        CheckConstraint("corrections >= 0 AND explained >= 0", name="counts"),
    )

    model_id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True)
    symbol: Mapped[str] = mapped_column(primary_key=True, server_default=text("''"))
    """Member of a pool; empty for a version of one market."""
    checked_at: Mapped[datetime]
    corrections: Mapped[int]
    explained: Mapped[int]
    problem: Mapped[str | None]


class ShadowPlaceRow(Base):
    """A `ShadowPlace`."""

    __tablename__ = "shadow_places"
    __table_args__ = (
        CheckConstraint("rank > 0", name="rank"),
        CheckConstraint("level > 0 AND level < 1", name="level"),
        _one_of(PlaceOutcome, "outcome"),
        CheckConstraint(
            "(year IS NULL) = (rank IS NULL) AND (year IS NULL) = (level IS NULL)", name="budget"
        ),
        CheckConstraint("(closed_at IS NULL) = (outcome IS NULL)", name="closed"),
        UniqueConstraint("model_id", "year", "rank"),
        Index(
            "ix_shadow_places_open",
            "model_id",
            "recipe",
            unique=True,
            postgresql_where=text("closed_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    model_id: Mapped[str]
    recipe: Mapped[str]
    started_at: Mapped[datetime]
    year: Mapped[int | None]
    rank: Mapped[int | None]
    level: Mapped[float | None]
    closed_at: Mapped[datetime | None]
    outcome: Mapped[str | None]


class ShadowDecisionRow(Base):
    """A `RecordedDecision`. Append-only."""

    __tablename__ = "shadow_decisions"
    __table_args__ = (
        ForeignKeyConstraint(["model_id", "version"], ["model_versions.model_id", "model_versions.version"]),
        Index(None, "model_id", "version", "id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    place_id: Mapped[int | None] = mapped_column(ForeignKey("shadow_places.id"))
    model_id: Mapped[str]
    version: Mapped[str]
    champion: Mapped[str | None]
    decision: Mapped[dict[str, Any]] = mapped_column(JSONB)
    at: Mapped[datetime]


class AllocationRow(Base):
    """Start of an `AllocationRun`. Append-only."""

    __tablename__ = "allocations"
    __table_args__ = (
        CheckConstraint("cardinality(arms) >= 2", name="arms"),
        CheckConstraint("observed IN ('paper', 'fills')", name="observed"),
        Index(None, "model_id", "id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    model_id: Mapped[str]
    arms: Mapped[list[str]] = mapped_column(ARRAY(Text))
    """Version labels, the production version first; foreign keys cannot refer from an array."""
    observed: Mapped[str]
    started_at: Mapped[datetime]
    started_by: Mapped[str]
    reason: Mapped[str]
    forced: Mapped[bool]


class AllocationWeightsRow(Base):
    """A `RecordedWeights`. Append-only."""

    __tablename__ = "allocation_weights"
    __table_args__ = (Index(None, "allocation_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    allocation_id: Mapped[int] = mapped_column(ForeignKey("allocations.id"))
    at: Mapped[datetime]
    arms: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    reasons: Mapped[list[str]] = mapped_column(ARRAY(Text))


class AllocationEndRow(Base):
    """End of an `AllocationRun`; an allocation without one is running. Append-only."""

    __tablename__ = "allocation_ends"
    __table_args__ = (_one_of(AllocationEnd, "outcome"), CheckConstraint("reason <> ''", name="reason"))

    allocation_id: Mapped[int] = mapped_column(ForeignKey("allocations.id"), primary_key=True)
    outcome: Mapped[str]
    at: Mapped[datetime]
    actor: Mapped[str]
    reason: Mapped[str]


class AllocationServedRow(Base):
    """Arm that a trader says to have traded after a bar. Append-only."""

    __tablename__ = "allocation_served"

    allocation_id: Mapped[int] = mapped_column(ForeignKey("allocations.id"), primary_key=True)
    bar_time: Mapped[datetime] = mapped_column(primary_key=True)
    """Open time of the bar."""
    version: Mapped[str]
    reported_by: Mapped[str]
    at: Mapped[datetime]


class FillRow(Base):
    """A `RecordedFill`. Append-only."""

    __tablename__ = "fills"
    __table_args__ = (
        ForeignKeyConstraint(["model_id", "version"], ["model_versions.model_id", "model_versions.version"]),
        CheckConstraint("change BETWEEN -2 AND 2 AND change <> 0", name="change"),
        CheckConstraint("price > 0 AND price < 'Infinity'", name="price"),
        Index(None, "model_id", "time", "id"),
    )

    model_id: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str]
    symbol: Mapped[str]
    time: Mapped[datetime]
    change: Mapped[float]
    price: Mapped[float]
    fee_bps: Mapped[float | None]
    resting: Mapped[bool]
    reported_by: Mapped[str]
    at: Mapped[datetime]


class RemovedFilesRow(Base):
    """`RemovedFiles` of a version. Append-only."""

    __tablename__ = "removed_files"
    __table_args__ = (
        ForeignKeyConstraint(["model_id", "version"], ["model_versions.model_id", "model_versions.version"]),
        CheckConstraint("files >= 0", name="files"),
        CheckConstraint("size >= 0", name="size"),
    )

    model_id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True)
    files: Mapped[int]
    size: Mapped[int] = mapped_column(BigInteger)
    by: Mapped[str]
    at: Mapped[datetime]


class AuditRow(Base):
    """An `AuditEntry` with number and hashes. Append-only."""

    __tablename__ = "audit_log"
    __table_args__ = (
        _one_of(Role, "role"),
        CheckConstraint("seq > 0", name="seq"),
        Index(None, "subject", "seq"),
    )

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    """1, 2, 3, ...: counted by the appending transaction, because a PostgreSQL sequence leaves gaps."""
    at: Mapped[datetime]
    actor: Mapped[str]
    role: Mapped[str]
    action: Mapped[str]
    subject: Mapped[str]
    details: Mapped[dict[str, Any]] = mapped_column(JSONB)
    prev_hash: Mapped[str]
    hash: Mapped[str]


class PromotionRow(Base):
    """A `Promotion`."""

    __tablename__ = "promotions"
    __table_args__ = (
        _one_of(PromotionKind, "kind"),
        _one_of(PromotionState, "state"),
        _one_of(Role, "role"),
        CheckConstraint("(kind = 'alias_moved') = (state = 'alias_moved')", name="alias_moved"),
        CheckConstraint(
            "kind = 'alias_moved' OR (to_version IS NULL) = (kind IN ('loss', 'halt'))",
            name="target",
        ),
        CheckConstraint(
            "forced = (expires_at IS NOT NULL) AND (NOT forced OR reason <> '' "
            "AND (role = 'admin' OR role = 'operator' AND kind = 'rollback'))",
            name="forced",
        ),
        CheckConstraint(
            "state = 'alias_moved' OR (finished_at IS NULL) = (state = 'intent')", name="finished"
        ),
        ForeignKeyConstraint(
            ["model_id", "from_version"], ["model_versions.model_id", "model_versions.version"]
        ),
        ForeignKeyConstraint(
            ["model_id", "to_version"], ["model_versions.model_id", "model_versions.version"]
        ),
        Index(None, "model_id", "id"),
        Index(
            "ix_promotions_under_way", "model_id", unique=True, postgresql_where=text("finished_at IS NULL")
        ),
        Index("ix_promotions_request_key", "request_key", postgresql_where=text("request_key IS NOT NULL")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    model_id: Mapped[str]
    kind: Mapped[str]
    state: Mapped[str]
    from_version: Mapped[str | None]
    to_version: Mapped[str | None]
    expected: Mapped[bool]
    actor: Mapped[str]
    role: Mapped[str]
    reason: Mapped[str]
    forced: Mapped[bool]
    expires_at: Mapped[datetime | None]
    confirmations: Mapped[int] = mapped_column(server_default=text("0"))
    at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    said_by: Mapped[str | None]
    request_key: Mapped[str | None]
    """Caller and `Idempotency-Key` of the request for the change."""


class OutboxRow(Base):
    """An `Event`, delivered at least once in the order of `seq`, after the change is committed.

    A trigger serialises transactions that add rows to this table or to `alerts`, so that no greater `seq` is
    visible before a smaller `seq`: the position alone determines a receiver's progress.
    """

    __tablename__ = "outbox"
    __table_args__ = (
        _one_of(EventType, "type"),
        Index(None, "seq", unique=True),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    type: Mapped[str]
    payload: Mapped[dict[str, Any]] = mapped_column(Measured)
    at: Mapped[datetime]


class CandidateRow(Base):
    """A `StrategyCandidate`."""

    __tablename__ = "strategy_candidates"
    __table_args__ = (
        _one_of(ModelType, "model_type"),
        _named_plugin(),
        _one_of(CandidateOrigin, "origin"),
        CheckConstraint("fitness_rank <> 'NaN'", name="rank"),
        CheckConstraint(
            "fitness_score IS NULL OR NOT (awaits_evaluation OR failure_cause IS NOT NULL)", name="evaluated"
        ),
        Index(
            "ix_strategy_candidates_waiting", "created_at", "id", postgresql_where=text("awaits_evaluation")
        ),
        Index(None, "created_at", "id"),
        Index(None, "fitness_rank", "id"),
        Index(None, "base_strategy"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    base_strategy: Mapped[str]
    model_type: Mapped[str]
    plugin: Mapped[str | None]
    symbol: Mapped[str]
    timeframe: Mapped[str]
    params: Mapped[dict[str, Any]] = mapped_column(JSONB)
    origin: Mapped[str]
    parents: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    """Ids of other candidates; foreign keys cannot refer from an array."""
    fitness_score: Mapped[float | None]
    fitness_low: Mapped[float | None]
    fitness_high: Mapped[float | None]
    fitness_rank: Mapped[float] = mapped_column(
        Computed("coalesce(fitness_score, '-Infinity')", persisted=True)
    )
    awaits_evaluation: Mapped[bool] = mapped_column(server_default=text("false"))
    failure_cause: Mapped[str | None]
    created_at: Mapped[datetime]


class ProposedVariantsRow(Base):
    """`ProposedVariants`."""

    __tablename__ = "proposed_variants"
    __table_args__ = (
        ForeignKeyConstraint(["model_id", "version"], ["model_versions.model_id", "model_versions.version"]),
        CheckConstraint("(ended_at IS NULL) = (outcome IS NULL)", name="outcome"),
        CheckConstraint("job_id IS NULL OR ended_at IS NOT NULL", name="job"),
        Index(
            "ix_proposed_variants_unanswered", "opened_at", "id", postgresql_where=text("ended_at IS NULL")
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    model_id: Mapped[str]
    version: Mapped[str]
    because: Mapped[str]
    search: Mapped[dict[str, Any]] = mapped_column(JSONB)
    candidates: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    """Ids of candidates; foreign keys cannot refer from an array."""
    opened_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    job_id: Mapped[UUID | None] = mapped_column(ForeignKey("training_jobs.id"))


class AlertRow(Base):
    """A `RaisedAlert`; `kind` has no check, so that a new kind needs no migration."""

    __tablename__ = "alerts"
    __table_args__ = (
        Index("ix_alerts_lasting", "kind", "subject", unique=True, postgresql_where=text("ended_at IS NULL")),
    )

    seq: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    kind: Mapped[str]
    subject: Mapped[str]
    message: Mapped[str]
    at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    recovers: Mapped[int | None] = mapped_column(ForeignKey("alerts.seq", ondelete="CASCADE"))
    """Alert whose condition has ended; None for an alert."""


class ReceiverRow(Base):
    """Position and failures of a receiver of events or alerts; the sender locks the row."""

    __tablename__ = "receivers"
    __table_args__ = (_one_of(StreamName, "stream"),)

    name: Mapped[str] = mapped_column(primary_key=True)
    stream: Mapped[str]
    position: Mapped[int] = mapped_column(BigInteger)
    """`seq` of the last event or alert that was accepted or became a dead letter."""
    failures: Mapped[int]
    """Consecutive failures; 0 after a success."""
    failing_since: Mapped[datetime | None]
    retry_at: Mapped[datetime | None]
    """Earliest time of the next attempt; None: at once."""
    last_error: Mapped[str | None]


class DeadLetterRow(Base):
    """A `DeadLetter`; deleted after a successful retry, or by `clm deliveries forget`."""

    __tablename__ = "dead_letters"

    receiver: Mapped[str] = mapped_column(ForeignKey("receivers.name"), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    about: Mapped[str]
    happened_at: Mapped[datetime]
    attempts: Mapped[int]
    error: Mapped[str]
    given_up_at: Mapped[datetime]
    retry_asked: Mapped[bool]


class InboxRow(Base):
    """A received `Message`, kept to recognise duplicates."""

    __tablename__ = "inbox"
    __table_args__ = (
        UniqueConstraint("source", "message_id"),
        CheckConstraint("error IS NULL OR processed_at IS NOT NULL", name="error"),
        Index("ix_inbox_waiting", "number", postgresql_where=text("processed_at IS NULL")),
        Index(None, "processed_at"),
    )

    number: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    source: Mapped[str]
    message_id: Mapped[str]
    body: Mapped[bytes] = mapped_column(LargeBinary)
    body_hash: Mapped[str]
    """SHA-256 of the body, hexadecimal."""
    received_at: Mapped[datetime]
    processed_at: Mapped[datetime | None]
    error: Mapped[str | None]


class TriggerRow(Base):
    """An `Answer`: every request to retrain, accepted or not."""

    __tablename__ = "trigger_requests"
    __table_args__ = (
        _one_of(TriggerReason, "trigger_reason"),
        _one_of(Reply, "reply"),
        CheckConstraint("(job_id IS NULL) = (reply = 'rejected')", name="job"),
        Index(None, "model_id", "at"),
        Index(None, "at"),
        Index(None, "key"),
        Index(
            "ix_trigger_requests_accepted", "job_id", unique=True, postgresql_where=text("reply = 'accepted'")
        ),
    )

    number: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    model_id: Mapped[str]
    trigger_reason: Mapped[str]
    key: Mapped[str | None]
    request: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """The whole `TriggerRequest`; the columns for searches are repeated beside."""
    at: Mapped[datetime]
    reply: Mapped[str]
    because: Mapped[str]
    job_id: Mapped[UUID | None] = mapped_column(ForeignKey("training_jobs.id"))
    waits_for: Mapped[UUID | None] = mapped_column(ForeignKey("training_jobs.id"))
    inbox_number: Mapped[int | None] = mapped_column(ForeignKey("inbox.number", ondelete="SET NULL"))
    """Message with the request; None for other channels."""
    received_at: Mapped[datetime | None]
    """Time of the receipt of the message; None for other channels."""


class StartRow(Base):
    """Prefect run started for a job, or run that created the job."""

    __tablename__ = "job_runs"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("training_jobs.id"), primary_key=True)
    run_id: Mapped[UUID]
    at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    """Deadline for a run that created the job to start the job; None: Prefect knows the state of the run."""


class TokenRow(Base):
    """A `Token`, and the SHA-256 of the secret."""

    __tablename__ = "api_tokens"
    __table_args__ = (
        _one_of(Role, "role"),
        CheckConstraint("expires_at > created_at", name="expiry"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str]
    name: Mapped[str]
    role: Mapped[str]
    created_by: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class ReplyRow(Base):
    """A `KeptReply`, repeated to the same request; kept for a day. No status while the work is being done."""

    __tablename__ = "api_replies"
    __table_args__ = (
        CheckConstraint(
            "(status IS NULL) = (body IS NULL) AND (status IS NULL) = (media_type IS NULL)", name="reply"
        ),
        Index(None, "at"),
    )

    caller: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_hash: Mapped[str]
    status: Mapped[int | None]
    media_type: Mapped[str | None]
    body: Mapped[str | None]
    at: Mapped[datetime]


class ScheduledPassRow(Base):
    """A `ScheduledPass`; without a schedule until the schedule was seen in Prefect."""

    __tablename__ = "scheduled_passes"
    __table_args__ = (
        CheckConstraint("every_seconds > 0", name="every"),
        CheckConstraint("(every_seconds IS NULL) = (expected_since IS NULL)", name="schedule"),
    )

    name: Mapped[str] = mapped_column(primary_key=True)
    every_seconds: Mapped[float | None]
    paused: Mapped[bool]
    expected_since: Mapped[datetime | None]
    succeeded_at: Mapped[datetime | None]
