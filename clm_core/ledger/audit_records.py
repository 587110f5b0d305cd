"""Audit entries about jobs, versions, evaluations and tunings.

Each function belongs last in the transaction of the change: see `audit_log.append`.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from clm_core.decisions.gate_policy import GatePolicy
from clm_core.domain.actors import SYSTEM, Actor
from clm_core.domain.audit import Action, AuditEntry
from clm_core.domain.evaluations import EvaluationResult, Verdict
from clm_core.domain.jobs import Lease, TrainingJob
from clm_core.domain.searches import Tuning
from clm_core.domain.stored_evidence import StoredEvidence
from clm_core.domain.strategy_search import StrategySearch, StrategySearchResult
from clm_core.domain.tuning import TrialState, TuneResult
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus
from clm_core.ledger import audit_log

_REQUEST = {"requested_by", "trigger_reason", "dataset_span_days", "data_snapshot", "training_params", "seed"}
_STUDY = {"requested_by", "dataset_span_days", "data_snapshot", "holdout", "fixed", "seed"}
_LINEAGE = {
    "training_job_id",
    "parent_version",
    "bundle_digest",
    "package_digest",
    "data_hash",
    "code_version",
    "recipe_digest",
}


def record(
    connection: Connection,
    action: Action,
    subject: str,
    at: datetime,
    details: Mapping[str, Any],
    by: Actor = SYSTEM,
) -> None:
    """Append an entry in the caller's transaction."""
    entry = AuditEntry(at=at, actor=by, action=action, subject=subject, details=details)
    audit_log.append(connection, entry)


def job_created(connection: Connection, job: TrainingJob, by: Actor) -> None:
    series = {"series": job.series} if job.series else {}
    members = {"symbols", "data_snapshots"} if job.symbols else set[str]()
    details = {"model_id": job.model_id, **job.model_dump(include=_REQUEST | members), **series}
    record(connection, Action.JOB_CREATED, str(job.id), job.created_at, details, by)


def job_started(connection: Connection, job: TrainingJob, lease: Lease, now: datetime) -> None:
    details = {"model_id": job.model_id, "holder": lease.holder}
    record(connection, Action.JOB_STARTED, str(job.id), now, details)


def job_data_fetched(connection: Connection, job: TrainingJob, now: datetime) -> None:
    series = {"series": job.series} if job.series else {}
    details = {"model_id": job.model_id, "data_snapshot": job.data_snapshot, **series}
    record(connection, Action.JOB_DATA_FETCHED, str(job.id), now, details)


def job_completed(connection: Connection, job: TrainingJob, lease: Lease, now: datetime) -> None:
    details = {"model_id": job.model_id, "holder": lease.holder}
    record(connection, Action.JOB_COMPLETED, str(job.id), now, details)


def job_failed(connection: Connection, job: TrainingJob, lease: Lease, now: datetime) -> None:
    details = {"model_id": job.model_id, "holder": lease.holder, "cause": job.failure_cause}
    record(connection, Action.JOB_FAILED, str(job.id), now, details)


def job_cancelled(connection: Connection, job: TrainingJob, by: Actor, now: datetime) -> None:
    record(connection, Action.JOB_CANCELLED, str(job.id), now, {"model_id": job.model_id}, by)


def version_registered(connection: Connection, version: ModelVersion) -> None:
    details = {"version": version.version, **version.model_dump(include=_LINEAGE)}
    record(connection, Action.VERSION_REGISTERED, version.model_id, version.created_at, details)


def version_judged(
    connection: Connection,
    result: EvaluationResult,
    verdict: Verdict,
    policy: GatePolicy,
    bundle_digest: str,
    evidence: StoredEvidence | None,
) -> None:
    stored = evidence and {
        "evidence_digest": evidence.digest,
        "data_hash": evidence.data_hash,
        "code_digest": evidence.code_digest,
    }
    details = {
        "version": result.version,
        "evaluation": result.id,
        "decision": verdict.decision,
        "score": verdict.score,
        "sharpe_ratio": result.sharpe_ratio,
        "bundle_digest": bundle_digest,
        "terms_digest": result.terms_digest,
        "policy": policy.name,
        "policy_hash": policy.digest,
        **(stored or {}),
    }
    record(connection, Action.VERSION_JUDGED, result.model_id, result.created_at, details)


def status_changed(
    connection: Connection, version: ModelVersion, before: ModelStatus, now: datetime, by: Actor = SYSTEM
) -> None:
    details = {"version": version.version, "from": before, "to": version.status}
    record(connection, Action.VERSION_STATUS_CHANGED, version.model_id, now, details, by)


def tuning_started(
    connection: Connection, tuning: Tuning, trials: int, continued: bool, by: Actor, now: datetime
) -> None:
    definition = tuning.model_dump(include=_STUDY)
    details = {"study": tuning.name, **definition, "trials": trials, "continued": continued}
    record(connection, Action.TUNING_STARTED, tuning.model_id, now, details, by)


def tuning_ended(connection: Connection, tuning: Tuning, result: TuneResult, now: datetime) -> None:
    details = {
        "study": tuning.name,
        "ended": result.ended,
        **{state.value: result.count(state) for state in TrialState},
        "best": result.best,
        "unseen": result.unseen,
    }
    record(connection, Action.TUNING_ENDED, tuning.model_id, now, details)


def strategy_search_started(
    connection: Connection,
    search: StrategySearch,
    generations: int,
    continued: bool,
    by: Actor,
    now: datetime,
) -> None:
    definition = search.model_dump(include=_STUDY | {"families", "population", "objectives"})
    details = {"search": search.name, **definition, "generations": generations, "continued": continued}
    record(connection, Action.STRATEGY_SEARCH_STARTED, search.subject, now, details, by)


def strategy_search_ended(
    connection: Connection, search: StrategySearch, result: StrategySearchResult, now: datetime
) -> None:
    measured = {"interrupted", "candidates", "effective_trials", "overfitting", "loss", "shrinkage"}
    details = {
        "search": search.name,
        **result.model_dump(include=measured),
        "generations": len(result.generations),
        "front": [each.candidate for each in result.front],
    }
    record(connection, Action.STRATEGY_SEARCH_ENDED, search.subject, now, details)
