"""Janitor: ends the processes left behind by a killed supervisor.

The supervisor starts the janitor and reports running process groups (`+4711`) and ended groups (`-4711`) on
standard input. Input closed without `done` means a killed supervisor: the janitor ends the groups, and stops
the embedded database unless used by another process.

The janitor waits for as long as the stack lives: only a little of the standard library is imported. Files are
private, as the supervisor's umask is passed on.
"""

import contextlib
import os
import signal
import sys
import time

GRACE_SECONDS = 10.0


def main() -> None:
    groups = set[int]()
    for line in sys.stdin:
        if line == "done\n":
            return
        group = int(line[1:])
        if line.startswith("+"):
            groups.add(group)
        else:
            groups.discard(group)
    end(groups)
    _stop_database()


def end(groups: set[int], grace_seconds: float = GRACE_SECONDS) -> None:
    """Terminates the groups; groups alive after the grace period are killed."""
    _signal(groups, signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while any(map(alive, groups)) and time.monotonic() < deadline:
        time.sleep(0.1)
    _signal(groups, signal.SIGKILL)


def alive(group: int) -> bool:
    """True if any process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _signal(groups: set[int], number: signal.Signals) -> None:
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number)


def _stop_database() -> None:
    """Opens and closes the embedded database, because the last user stops the server."""
    from clm_core.domain.errors import SettingsError
    from clm_core.platform.database import open_database
    from clm_core.platform.settings_file import home_in_force
    from clm_core.settings import load_settings

    home = home_in_force()
    try:
        if load_settings().database_url is not None:
            return
    except SettingsError:
        # the file may have become unreadable since the start: an embedded server shows by its folder
        if not (home / "postgres").is_dir():
            return
    with open_database(home):
        pass


if __name__ == "__main__":
    main()
