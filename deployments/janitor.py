"""Ends what a killed supervisor leaves behind.

Started by the supervisor, told on its standard input which process groups run (`+4711`) and which have ended
(`-4711`). When the input closes without a `done`, the supervisor was killed: the groups are ended, and the
database, if it is ours and nobody else uses it, is stopped.
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
    """Ask the groups to end; what has not after the grace is killed."""
    _signal(groups, signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while any(map(alive, groups)) and time.monotonic() < deadline:
        time.sleep(0.1)
    _signal(groups, signal.SIGKILL)


def alive(group: int) -> bool:
    """Whether any process of the group is left."""
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
    """Whoever leaves the embedded server last stops it: so come, and leave."""
    from clm_core.platform.database import open_database
    from clm_core.settings import load_settings

    settings = load_settings()
    with open_database(settings.home, settings.database_url):
        pass


if __name__ == "__main__":
    main()
