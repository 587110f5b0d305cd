"""Locks on files between the processes of a machine; the kernel frees a lock when its last holder dies."""

from typing import IO


def lock_file(file: IO[bytes], *, shared: bool = False, wait: bool = True) -> bool:
    """True if the lock was acquired; an earlier lock of the file is released either way."""
    import fcntl

    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
