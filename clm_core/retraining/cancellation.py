"""Reason why a run under way was stopped: cancelled by a person, or ended with its worker."""

import sys
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path

from clm_core.domain.errors import ServerUnavailable
from clm_core.platform.prefect_runs import prefect_runs

PREFECT = "prefect"
"""Canceller of a run in Prefect, which does not tell persons apart."""
CANCELLED_IN_PREFECT = "cancelled by a person in Prefect"


@dataclass(frozen=True)
class StoppedRun:
    """End of a run by a signal."""

    cause: str
    cancelled_by: str | None
    """Person, or the part where a person cancelled the run; None: not cancelled."""


def stopped_run(error: BaseException, home: Path) -> StoppedRun | None:
    """End of the present run by a signal; None for other errors."""
    if isinstance(error, KeyboardInterrupt):
        return StoppedRun(f"cancelled by {getuser()} with Ctrl-C", getuser())
    # imported by every flow; a process without flows gets no such signal
    exceptions = sys.modules.get("prefect.exceptions")
    if exceptions is None or not isinstance(error, exceptions.TerminationSignal):
        return None
    if _is_cancelled(home):
        return StoppedRun(CANCELLED_IN_PREFECT, PREFECT)
    return StoppedRun("stopped with its worker: the process got SIGTERM, as at `clm down`", None)


def _is_cancelled(home: Path) -> bool:
    """True if Prefect has the present run as cancelled, or about to be."""
    from prefect.runtime import flow_run

    if flow_run.id is None:
        return False
    try:
        with prefect_runs(home) as prefect:
            return prefect.is_cancelled(flow_run.id)
    except ServerUnavailable:
        return False
