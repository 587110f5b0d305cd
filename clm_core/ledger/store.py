"""The ledger: every record of jobs, versions, evaluations, promotions and requests."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from clm_core.domain.actors import Actor
from clm_core.domain.audit import Action
from clm_core.domain.events import AuditAnchored, EventType, MarketRegimeChanged
from clm_core.domain.versions import Lineage
from clm_core.ledger import audit_log, audit_records, counts, events
from clm_core.ledger.allocations import AllocationStore
from clm_core.ledger.candidates import CandidateStore
from clm_core.ledger.clock import read_clock
from clm_core.ledger.counts import Counts
from clm_core.ledger.drift_history import DriftStore
from clm_core.ledger.evaluations import EvaluationStore
from clm_core.ledger.exemptions import ExemptionStore
from clm_core.ledger.fills import FillStore
from clm_core.ledger.hash_chain import Anchor, Recorded
from clm_core.ledger.jobs import JobStore
from clm_core.ledger.labels import LabelStore
from clm_core.ledger.learning_values import LearningValueStore
from clm_core.ledger.market_costs import MarketCostStore
from clm_core.ledger.metrics import MetricStore
from clm_core.ledger.overviews import OverviewStore
from clm_core.ledger.passes import PassStore
from clm_core.ledger.promotions import PromotionStore
from clm_core.ledger.removed_files import RemovedFilesStore
from clm_core.ledger.replies import ReplyStore
from clm_core.ledger.shadow_decisions import ShadowDecisionStore
from clm_core.ledger.shadows import ShadowStore
from clm_core.ledger.standings import StandingStore
from clm_core.ledger.strategy_searches import StrategySearchStore
from clm_core.ledger.tokens import TokenStore
from clm_core.ledger.trials import TrialStore
from clm_core.ledger.triggers import TriggerStore
from clm_core.ledger.tunings import TuningStore
from clm_core.ledger.variants import VariantStore
from clm_core.ledger.versions import VersionStore


class Ledger(JobStore, VersionStore, EvaluationStore):
    """Jobs, versions and evaluations, and the stores of all other records. Every method is a transaction.

    Every change is an entry of the audit, written last in the transaction of the change.

    While a job is in progress, only the holder of the job's lease may write about the job, its versions and
    their evaluations. Other writers are refused with IllegalTransition, former holders with LeaseLost.
    """

    def __init__(self, engine: Engine, clock: Callable[[], datetime] | None = None) -> None:
        """
        Args:
            clock: clock of a replay; None for the clock of the database.
        """
        self._engine = engine
        self._clock = clock
        self.promotions = PromotionStore(engine)
        self.removed_files = RemovedFilesStore(engine)
        self.labels = LabelStore(engine)
        self.triggers = TriggerStore(engine)
        self.candidates = CandidateStore(engine)
        self.variants = VariantStore(engine)
        self.trials = TrialStore(engine)
        self.tunings = TuningStore(engine)
        self.strategy_searches = StrategySearchStore(engine)
        self.shadows = ShadowStore(engine)
        self.shadow_decisions = ShadowDecisionStore(engine)
        self.drift = DriftStore(engine)
        self.exemptions = ExemptionStore(engine)
        self.allocations = AllocationStore(engine)
        self.fills = FillStore(engine)
        self.market_costs = MarketCostStore(engine)
        self.tokens = TokenStore(engine)
        self.replies = ReplyStore(engine)
        self.passes = PassStore(engine)
        self.overviews = OverviewStore(engine)
        self.metrics = MetricStore(engine)
        self.standings = StandingStore(engine)
        self.learning_values = LearningValueStore(engine)

    def require_reachable(self) -> None:
        """
        Raises:
            sqlalchemy.exc.OperationalError: the database does not answer.
        """
        with self._engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def now(self) -> datetime:
        """Present time by the clock of the database, in UTC; in a replay, the time replayed.

        Raises:
            sqlalchemy.exc.OperationalError: the database does not answer.
        """
        return read_clock(self._engine) if self._clock is None else self._clock()

    def lineage(self, model_id: str, label: str) -> Lineage:
        """
        Raises:
            NotFound: the model has no such version.
        """
        version = self.version(model_id, label)
        return Lineage.of(version, self.job(version.training_job_id))

    def audit_after(self, seq: int, limit: int) -> list[Recorded]:
        """Entries of the audit after a number, oldest first."""
        return audit_log.entries_after(self._engine, seq, limit)

    def record_requested_run(
        self, subject: str, details: Mapping[str, Any], actor: Actor, now: datetime
    ) -> None:
        """Record a request of a person for a pass or a search in the audit."""
        with self._engine.begin() as connection:
            audit_records.record(connection, Action.RUN_REQUESTED, subject, now, details, actor)

    def anchor(self, folder: Path, now: datetime) -> Anchor | None:
        """Anchor the audit's newest entry outside the database; None if the entry is anchored already.

        Raises:
            AuditBroken: the last anchored entry is missing from the log, or differs.
        """
        return audit_log.anchor(self._engine, folder, now)

    def newest_audit_number(self) -> int:
        """Number of the newest entry of the audit; 0 for none."""
        return audit_log.newest_number(self._engine)

    def broken_entry(self, after: int, limit: int) -> audit_log.BrokenEntry | None:
        """First entry of a part of the audit that was changed, or is not in its place, if any."""
        return audit_log.broken_entry(self._engine, after, limit)

    def require_anchored(self, anchors: Sequence[Anchor], place: str) -> None:
        """Compare the audit with the anchors of a place outside the home.

        Raises:
            AuditBroken: an anchored entry is missing from the log, or differs.
        """
        audit_log.require_held(self._engine, anchors, place)

    def announce_anchor(self, anchor: AuditAnchored, now: datetime) -> bool:
        """Record the event about an anchor; False if the event is recorded already."""
        with self._engine.begin() as connection:
            if events.is_announced(connection, anchor):
                return False
            events.record(connection, EventType.AUDIT_ANCHORED, anchor, now)
        return True

    def announce_regime(self, change: MarketRegimeChanged, now: datetime) -> bool:
        """Record the event about a changed regime; False if the event is recorded already."""
        with self._engine.begin() as connection:
            if events.is_regime_known(connection, change):
                return False
            events.record(connection, EventType.MARKET_REGIME_CHANGED, change, now)
        return True

    def counts(self) -> Counts:
        with self._engine.begin() as connection:
            return counts.count(connection)
