"""Evaluations of versions: the measured results, the verdict, the policy and the judged bundle."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, ScalarSelect, insert, select, text

from clm_core.decisions.gate_policy import ALTERNATIVES, GatePolicy
from clm_core.domain.errors import EvidenceChanged, NotFound
from clm_core.domain.evaluations import DERIVED, EvaluationResult, Verdict
from clm_core.domain.events import EventType, ModelEvaluated
from clm_core.domain.jobs import Lease
from clm_core.domain.stored_evidence import StoredEvidence
from clm_core.ledger import audit_records, events, leases, rows, versions
from clm_core.ledger.tables import Base, EvaluationRow, EvidenceRow, TrialRow

_DERIVED: Any = {
    "legs": True,
    "headline": True,
    "checks": {"__all__": set(DERIVED)},
    "folds": {"__all__": {"skill"}},
}
"""Fields of a verdict that follow from the others, and are not stored."""
_EVALUATIONS = Base.metadata.tables[EvaluationRow.__tablename__]
_TRIALS = Base.metadata.tables[TrialRow.__tablename__]
_EVIDENCE = Base.metadata.tables[EvidenceRow.__tablename__]
# an evaluation that is added late need not be the newest
_RANK = text("""
UPDATE model_versions SET
    sharpe_rank = CASE newest.sharpe_ratio WHEN 'NaN' THEN '-Infinity' ELSE newest.sharpe_ratio END,
    score_rank = newest.promotion_score
FROM (
    SELECT sharpe_ratio, promotion_score FROM evaluations WHERE model_id = :model_id AND version = :version
    ORDER BY created_at DESC, id DESC LIMIT 1
) newest
WHERE model_id = :model_id AND version = :version
""")


def stored_verdict(verdict: Verdict) -> dict[str, Any]:
    """Verdict as the ledger stores it, without the fields that follow from others."""
    return verdict.model_dump(exclude=_DERIVED)


class EvaluationStore:
    """Evaluations of versions. Every method is a transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add_evaluation(
        self,
        result: EvaluationResult,
        verdict: Verdict,
        policy: GatePolicy,
        bundle_digest: str,
        lease: Lease | None = None,
        evidence: StoredEvidence | None = None,
        validation: Mapping[str, float] | None = None,
    ) -> EvaluationResult:
        """Record measured results and the verdict, with the policy and the digest of the judged bundle.

        Args:
            evidence: positions behind the results, for a judgement at a promotion; None: not stored.
            validation: validation metrics of the version; None leaves the recorded metrics.

        Raises:
            AlreadyExists: an evaluation with the same id is recorded.
            NotFound: the version is not in the ledger, or no trial of the version's job was counted (see
                `TrialStore.count`).
        """
        job = versions.job_of(result.model_id, result.version)
        row = result.model_dump(exclude={"terms"}) | {
            "terms": None if result.terms is None else result.terms.model_dump(mode="json"),
            "verdict": stored_verdict(verdict),
            "policy": policy.model_dump(),
            "bundle_digest": bundle_digest,
        }
        subject = f"Evaluation {result.id} of {result.model_id} {result.version}"
        with rows.recording(self._engine, subject) as connection:
            leases.require(connection, job, lease)
            versions.lock_version(connection, result.model_id, result.version)
            connection.execute(insert(_EVALUATIONS).values(trial_id=_newest_trial(job)), row)
            if evidence is not None:
                stored = asdict(evidence) | {"evaluation_id": result.id, "digest": evidence.digest}
                connection.execute(insert(_EVIDENCE), stored)
            connection.execute(_RANK, {"model_id": result.model_id, "version": result.version})
            if validation is not None:
                versions.set_validation(connection, result.model_id, result.version, validation)
            event = _evaluated_event(result, verdict, bundle_digest)
            events.record(connection, EventType.MODEL_EVALUATED, event, result.created_at)
            audit_records.version_judged(connection, result, verdict, policy, bundle_digest, evidence)
        return result

    def evaluation(self, model_id: str, label: str) -> tuple[EvaluationResult, Verdict]:
        """Newest evaluation of a version.

        Raises:
            NotFound: the version has not been evaluated.
        """
        newest = self._newest_evaluation(model_id, label)
        result = {name: newest[name] for name in EvaluationResult.model_fields}
        return EvaluationResult.model_validate(result), Verdict.model_validate(newest["verdict"])

    def stored_evidence(self, evaluation_id: UUID) -> StoredEvidence | None:
        """Positions behind an evaluation; None for an evaluation by a release that stored none.

        Raises:
            EvidenceChanged: the stored positions differ from their digest.
        """
        query = select(*_EVIDENCE.c).where(_EVIDENCE.c.evaluation_id == evaluation_id)
        with self._engine.begin() as connection:
            row = connection.execute(query).mappings().one_or_none()
        if row is None:
            return None
        evidence = StoredEvidence(row["content"], row["data_hash"], row["code_digest"])
        if evidence.digest != row["digest"]:
            raise EvidenceChanged(
                f"The stored positions of evaluation {evaluation_id} differ from their digest: they were "
                "changed in the database. Restore a backup, or retrain."
            )
        return evidence

    def has_unrecorded_terms(self) -> bool:
        """True if an evaluation has no recorded terms: release 0.1.0 recorded none."""
        with self._engine.connect() as connection:
            query = select(_EVALUATIONS.c.id).where(_EVALUATIONS.c.terms_digest.is_(None)).limit(1)
            return connection.execute(query).first() is not None

    def policy_of(self, model_id: str, label: str) -> GatePolicy:
        """Policy behind the newest verdict on a version.

        Raises:
            NotFound: the version has not been evaluated.
        """
        stored = self._newest_evaluation(model_id, label)["policy"]
        # before limits could be carried or scaled, each bound as it stood
        return GatePolicy.model_validate({"binding": ALTERNATIVES, **stored})

    def _newest_evaluation(self, model_id: str, label: str) -> dict[str, Any]:
        equal = {"model_id": model_id, "version": label}
        evaluations = rows.newest_rows(self._engine, _EVALUATIONS, equal, limit=1)
        if not evaluations:
            raise NotFound(f"{model_id} {label} has not been evaluated. `clm models` lists the versions.")
        return evaluations[0]


def _newest_trial(job: ScalarSelect[UUID]) -> ScalarSelect[UUID]:
    """Subquery for a job's newest trial; NULL, which no evaluation may have, where no trial was counted."""
    newest = select(_TRIALS.c.id).where(_TRIALS.c.job_id == job).order_by(_TRIALS.c.at.desc())
    return newest.limit(1).scalar_subquery()


def _evaluated_event(result: EvaluationResult, verdict: Verdict, bundle_digest: str) -> ModelEvaluated:
    measured = ModelEvaluated.model_fields.keys() & EvaluationResult.model_fields.keys()
    return ModelEvaluated(
        evaluation_id=result.id,
        bundle_digest=bundle_digest,
        decision=verdict.decision,
        reasons=verdict.reasons,
        **result.model_dump(include=measured),
    )
