"""What the audit says of jobs, versions and tunings; call it last in the transaction of the change."""

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
from clm_core.domain.tuning import TrialState, TuneResult
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus
from clm_core.ledger import audit_log

_ASKED = {"requested_by", "trigger_reason", "dataset_span_days", "data_snapshot", "training_params", "seed"}
_TUNED = {"requested_by", "dataset_span_days", "data_snapshot", "holdout", "fixed", "seed"}
_LINEAGE = {
    "training_job_id",
    "parent_version",
    "bundle_digest",
    "package_digest",
    "data_hash",
    "code_version",
}


def created(connection: Connection, job: TrainingJob, by: Actor) -> None:
    _job(connection, Action.JOB_CREATED, job, job.created_at, job.model_dump(include=_ASKED), by)


def started(connection: Connection, job: TrainingJob, lease: Lease, now: datetime) -> None:
    _job(connection, Action.JOB_STARTED, job, now, {"holder": lease.holder})


def completed(connection: Connection, job: TrainingJob, lease: Lease, now: datetime) -> None:
    _job(connection, Action.JOB_COMPLETED, job, now, {"holder": lease.holder})


def failed(connection: Connection, job: TrainingJob, lease: Lease, now: datetime) -> None:
    told = {"holder": lease.holder, "cause": job.failure_cause}
    _job(connection, Action.JOB_FAILED, job, now, told)


def registered(connection: Connection, version: ModelVersion) -> None:
    told = version.model_dump(include=_LINEAGE)
    _version(connection, Action.VERSION_REGISTERED, version, version.created_at, told)


def judged(
    connection: Connection,
    version: ModelVersion,
    result: EvaluationResult,
    verdict: Verdict,
    policy: GatePolicy,
    bundle_digest: str,
) -> None:
    told = {
        "evaluation": result.id,
        "decision": verdict.decision,
        "score": verdict.score,
        "sharpe_ratio": result.sharpe_ratio,
        "bundle_digest": bundle_digest,
        "policy": policy.name,
        "policy_hash": policy.digest,
    }
    _version(connection, Action.VERSION_JUDGED, version, result.created_at, told)


def moved(
    connection: Connection, version: ModelVersion, before: ModelStatus, now: datetime, by: Actor = SYSTEM
) -> None:
    told = {"from": before, "to": version.status}
    _version(connection, Action.VERSION_STATUS_CHANGED, version, now, told, by)


def tuning_started(
    connection: Connection, tuning: Tuning, trials: int, continued: bool, by: Actor, now: datetime
) -> None:
    asked = tuning.model_dump(include=_TUNED)
    told = {"study": tuning.name, **asked, "trials": trials, "continued": continued}
    _append(connection, Action.TUNING_STARTED, tuning.model_id, now, told, by)


def tuning_ended(connection: Connection, tuning: Tuning, result: TuneResult, now: datetime) -> None:
    told = {
        "study": tuning.name,
        "ended": result.ended,
        **{state.value: result.count(state) for state in TrialState},
        "best": result.best,
        "unseen": result.unseen,
    }
    _append(connection, Action.TUNING_ENDED, tuning.model_id, now, told, SYSTEM)


def _job(
    connection: Connection,
    action: Action,
    job: TrainingJob,
    at: datetime,
    details: Mapping[str, Any],
    by: Actor = SYSTEM,
) -> None:
    _append(connection, action, str(job.id), at, {"model_id": job.model_id, **details}, by)


def _version(
    connection: Connection,
    action: Action,
    version: ModelVersion,
    at: datetime,
    details: Mapping[str, Any],
    by: Actor = SYSTEM,
) -> None:
    _append(connection, action, version.model_id, at, {"version": version.version, **details}, by)


def _append(
    connection: Connection, action: Action, subject: str, at: datetime, details: Mapping[str, Any], by: Actor
) -> None:
    entry = AuditEntry(at=at, actor=by, action=action, subject=subject, details=details)
    audit_log.append(connection, entry)
