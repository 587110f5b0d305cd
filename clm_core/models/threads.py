"""Who computes beside whom. torch keeps to one thread: folds are fitted side by side, and sums split among
threads come out otherwise. A GPU is one fit's at a time."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from threading import Lock


@dataclass
class _Users:
    """torch's setting belongs to the process, and folds come and go: the last to leave puts it back. A thread
    that leaves before stays with one."""

    count: int = 0
    found: int = 0


_USERS, _LOCK, _GPU = _Users(), Lock(), Lock()


@contextmanager
def single_threaded_torch() -> Iterator[None]:
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


@contextmanager
def exclusive_gpu(device: str) -> Iterator[None]:
    """Wait, where it is a GPU, until nobody else trains on one. Enter it before `torch_alone`.

    Lightning, when it has done, frees memory that torch computes with in every thread; and fits of our size
    gain nothing from sharing.

    Args:
        device: "cpu" or "cuda".
    """
    with _GPU if device == "cuda" else nullcontext():
        yield
