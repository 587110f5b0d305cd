"""Fault injection: points at which a process kills itself, for crash tests; off unless set."""

import os
import signal
from enum import StrEnum


class Fault(StrEnum):
    """Crash points selected by `settings.fault`: of promotions, of passes over shadows and allocations, of
    reports and approvals, of requests to the API, then of a retrain."""

    AFTER_INTENT = "after_intent"
    """The intent of a promotion is recorded, the alias is not moved."""
    AFTER_ALIAS = "after_alias"
    """The alias has moved: from here on the promotion can only be finished."""
    AFTER_PREVIOUS = "after_previous"
    """The alias `previous` is set, the tags for people are not."""
    AFTER_TAGS = "after_tags"
    """MLflow shows the new state, the ledger still holds the old state."""
    IN_COMMIT = "in_commit"
    """The ledger's transaction is half done."""
    AFTER_COMMIT = "after_commit"
    AFTER_ALIAS_MOVED = "after_alias_moved"
    """An alias moved by hand is recorded, and not yet put back."""
    AFTER_RESTORE = "after_restore"
    """An alias moved by hand is put back, and the ledger has not recorded so yet."""

    REGISTERED_AGAIN = "registered_again"
    """A deleted version is in MLflow again, under a number that the ledger does not know."""
    NUMBER_RECORDED = "number_recorded"
    """The ledger has the new number of a restored version, MLflow lacks the aliases."""

    SHADOW_DECIDED = "shadow_decided"
    """The decision on a version in shadow is recorded and not carried out."""
    SHADOW_PROMOTED = "shadow_promoted"
    """The version is in production, and its recipe's place is still open."""
    SHADOW_RETIRED = "shadow_retired"
    """The version is retired, and its recipe's place is still open."""

    ALLOCATION_OPENED = "allocation_opened"
    """The ledger's transaction has the start of an allocation, without weights."""
    ALLOCATION_STARTED = "allocation_started"
    WEIGHTS_INSERTED = "weights_inserted"
    """The ledger's transaction has new weights, without the audit entry."""
    WEIGHTS_RECORDED = "weights_recorded"
    ALLOCATION_ENDING = "allocation_ending"
    """The ledger's transaction has the end of an allocation, without the audit entry."""
    ALLOCATION_ENDED = "allocation_ended"
    """The end of an allocation is recorded, and a condition of the allocation may still be alerted."""
    FILLS_INSERTED = "fills_inserted"
    """The ledger's transaction has the fills of a report, not yet compared with those known."""
    FILLS_RECORDED = "fills_recorded"
    APPROVAL_TOLD = "approval_told"
    """The alert about an approval that waits is recorded, and Prefect has no form."""
    FORM_OPENED = "form_opened"
    """Prefect has the form."""
    APPROVAL_ANSWERED = "approval_answered"
    """The answer is carried out, alert and form are left."""
    FORM_CANCELLED = "form_cancelled"
    """The form of a decided version is cancelled, the alert is left."""

    BEFORE_REPLY = "before_reply"
    """The work of an API request with an Idempotency-Key is done, the reply is not stored."""
    AFTER_REPLY = "after_reply"
    """The reply is stored and not sent."""

    JOB_RECORDED = "job_recorded"
    """A retrain's job waits to be started."""
    JOB_STARTED = "job_started"
    BARS_FETCHED = "bars_fetched"
    TRAINED = "trained"
    """The bundle lies in the job's work folder, and nowhere else."""
    RUN_OPENED = "run_opened"
    """MLflow has an open run without content."""
    BUNDLE_STORED = "bundle_stored"
    """MLflow has the files, and no version for the files."""
    VERSION_MADE = "version_made"
    """MLflow has the version, without the label."""
    VERSION_STORED = "version_stored"
    """MLflow has all of the version, the ledger nothing."""
    VERSION_RECORDED = "version_recorded"
    EVALUATED = "evaluated"
    EVALUATION_RECORDED = "evaluation_recorded"
    """The verdict is in the ledger, the version's status is not yet changed."""
    STATUS_RECORDED = "status_recorded"
    """The ledger has the new status, MLflow shows the old status."""
    JUDGED = "judged"
    REPORTED = "reported"
    FOLDER_REMOVED = "folder_removed"
    """Everything is done, and the job's work folder is gone; the job is not yet completed in the ledger."""
    COMPLETED = "completed"


def crash_at(point: Fault, armed: Fault | None) -> None:
    """Kill the process as `kill -9` does if the point is armed."""
    if point is armed:
        os.kill(os.getpid(), signal.SIGKILL)
