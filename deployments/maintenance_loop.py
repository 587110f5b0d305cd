"""Maintenance of `clm up`: a process with a pass each minute, without a flow run for each.

A flow run takes ten times the processor time of a pass without work. A pass with changes and a failed pass
are added to the runs of the deployment `maintenance` in Prefect.

The process ends after a change of the installed code, and the supervisor starts it anew.
"""

import gc
import os
import time
import traceback
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from clm_core.domain.errors import CLMError, ServerUnavailable
from clm_core.platform import stack_state
from clm_core.platform.garbage_collection import collect_garbage_rarely
from clm_core.platform.prefect_runs import prefect_runs
from clm_core.platform.private_files import keep_files_private
from clm_core.platform.run_engine import HOME_VARIABLE
from clm_core.services import open_services
from clm_core.settings import load_settings
from deployments.fork_server import code_times
from deployments.supervisor import Stopped, stoppable
from flows.sequences.maintenance import maintenance

EVERY_SECONDS = 60.0
MAX_PASS_SECONDS = 1800.0
"""Time after which a pass counts as hung: the files of many large versions take minutes."""


def make_passes(home: Path) -> None:
    """Make a pass each minute, until the installed code changes."""
    code = code_times()
    while code == code_times():
        begun = time.monotonic()
        _sign_of_life(home).touch()
        make_pass(home)
        time.sleep(max(EVERY_SECONDS - (time.monotonic() - begun), 0.0))


def make_pass(home: Path) -> None:
    """Make a pass with the settings of the moment, and show a pass with changes or problems in Prefect.

    An error ends the pass alone: the next one tries again, and the dead man's switch alerts.
    """
    at = None
    try:
        with open_services(load_settings()) as services:
            at = services.clock()
            ended = maintenance()
    except CLMError as error:
        _show(home, at, "FAILED", str(error), [])
    except Exception as error:  # noqa: BLE001 - the next pass must be made
        traceback.print_exc()
        _show(home, at, "FAILED", f"{type(error).__name__}: {error}", [traceback.format_exc()])
    else:
        if any(part.done for part in ended.data.parts):
            _show(home, at, "COMPLETED", ended.message, ended.data.summary_lines())


def is_alive(home: Path) -> bool:
    """True if a pass began not long ago."""
    try:
        return time.time() - _sign_of_life(home).stat().st_mtime < EVERY_SECONDS + MAX_PASS_SECONDS
    except FileNotFoundError:
        return False


def _sign_of_life(home: Path) -> Path:
    return stack_state.folder(home) / "maintenance.alive"


def _show(home: Path, at: datetime | None, state: str, message: str, lines: Sequence[str]) -> None:
    """Print the result of a pass, and add a run to Prefect's history; without an answer, print alone.

    Args:
        at: begin of the pass; None for a pass without a database.
    """
    name = "maintenance" if at is None else f"maintenance {at:%Y-%m-%d %H:%M} UTC"
    print("\n  ".join([f"{name}: {state} {message}", *lines]), flush=True)
    try:
        with prefect_runs(home) as runs:
            runs.add_ended("maintenance", name, state, message, lines)
    except ServerUnavailable as error:
        print(f"not shown in Prefect: {error}", flush=True)


def main() -> None:
    home = Path(os.environ[HOME_VARIABLE])
    gc.freeze()
    try:
        with stoppable():
            make_passes(home)
    except Stopped as stopped:
        print(f"Stopped ({stopped}).")


if __name__ == "__main__":
    collect_garbage_rarely()
    keep_files_private()
    main()
