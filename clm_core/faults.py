"""Deliberate deaths, for the tests that prove a crash at any point does no harm; off unless set."""

import os
import signal
from enum import StrEnum


class Fault(StrEnum):
    """Where a process can be told to kill itself, by `settings.fault`."""

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
    AFTER_DRIFT = "after_drift"
    """An alias moved by hand is recorded, not yet put back."""
    AFTER_RESTORE = "after_restore"
    """It is put back, and that is not yet recorded."""


def strike(point: Fault, armed: Fault | None) -> None:
    """Die as by `kill -9` when this point is the armed one."""
    if point is armed:
        os.kill(os.getpid(), signal.SIGKILL)
