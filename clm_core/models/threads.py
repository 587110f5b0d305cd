"""One thread for torch: folds are fitted side by side, and sums split among threads come out otherwise."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock


@dataclass
class _Users:
    """torch's setting belongs to the process, and folds come and go: the last to leave puts it back. A thread
    that leaves before stays with one."""

    count: int = 0
    found: int = 0


_USERS, _LOCK = _Users(), Lock()


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside the block torch computes on the calling thread alone."""
    import torch

    with _LOCK:
        if _USERS.count == 0:
            _USERS.found = torch.get_num_threads()
        _USERS.count += 1
        # every caller: OpenMP keeps the number by thread
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _LOCK:
            _USERS.count -= 1
            if _USERS.count == 0:
                torch.set_num_threads(_USERS.found)
