"""Deliberate deaths, for the tests that prove a crash at any point does no harm; off unless set."""

import os
import signal
from enum import StrEnum


class Fault(StrEnum):
    """Where a process can be told to kill itself, by `settings.fault`: first those of a promotion."""

    AFTER_INTENT = "after_intent"
    """A promotion's intent is recorded, the alias not moved."""
    AFTER_ALIAS = "after_alias"
    """The alias has moved: from here on the promotion can only be finished."""
    AFTER_PREVIOUS = "after_previous"
    """The alias of the version before is set, the tags that people read are not."""
    AFTER_TAGS = "after_tags"
    """MLflow shows the new state, the ledger does not know it yet."""
    IN_COMMIT = "in_commit"
    """In the middle of the ledger's transaction."""
    AFTER_COMMIT = "after_commit"
    AFTER_ALIAS_MOVED = "after_alias_moved"
    """An alias moved by hand is recorded, not yet put back."""
    AFTER_RESTORE = "after_restore"
    """It is put back, and that is not yet recorded."""

    JOB_RECORDED = "job_recorded"
    """Of a retrain, from here on. The job waits to be started."""
    JOB_STARTED = "job_started"
    BARS_FETCHED = "bars_fetched"
    TRAINED = "trained"
    """The bundle lies in the job's work folder, and nowhere else."""
    RUN_OPENED = "run_opened"
    """MLflow has an open run with nothing in it."""
    BUNDLE_STORED = "bundle_stored"
    """MLflow has the files, and no version that they belong to."""
    VERSION_MADE = "version_made"
    """MLflow has the version, without its label."""
    VERSION_STORED = "version_stored"
    """MLflow has all of the version, the ledger nothing."""
    VERSION_RECORDED = "version_recorded"
    EVALUATED = "evaluated"
    EVALUATION_RECORDED = "evaluation_recorded"
    """The verdict is in the ledger, the version's status is not yet what it says."""
    STATUS_RECORDED = "status_recorded"
    """The ledger has the status, MLflow shows the one before."""
    JUDGED = "judged"
    REPORTED = "reported"
    FOLDER_REMOVED = "folder_removed"
    """Everything is done, and the job's work folder gone; the ledger does not know it."""
    COMPLETED = "completed"


def crash_at(point: Fault, armed: Fault | None) -> None:
    """Die as by `kill -9` when this point is the armed one."""
    if point is armed:
        os.kill(os.getpid(), signal.SIGKILL)
