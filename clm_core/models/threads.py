"""Concurrency of fits: torch computes on a single thread, and a GPU trains a single fit at a time.

Folds are fitted in parallel, and sums split among threads give other results.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from threading import Lock


@dataclass
class _Users:
    """Blocks in progress. The number of threads is a setting of the process: the last block to end restores
    the setting; a thread whose block ends earlier keeps a single thread."""

    count: int = 0
    threads_before: int = 0
    """Number of threads torch used before the first block began."""


_USERS = _Users()
_LOCK = Lock()
_GPU = Lock()


@contextmanager
def single_threaded_torch() -> Iterator[None]:
    """Within the block torch computes on the calling thread only."""
    import torch

    with _LOCK:
        if _USERS.count == 0:
            _USERS.threads_before = torch.get_num_threads()
        _USERS.count += 1
        # in every block: OpenMP keeps the number for each thread
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _LOCK:
            _USERS.count -= 1
            if _USERS.count == 0:
                torch.set_num_threads(_USERS.threads_before)


@contextmanager
def exclusive_gpu(device: str) -> Iterator[None]:
    """Lock for training on a GPU; no effect on a processor. Acquire before `exclusive_torch`.

    Lightning frees GPU memory of the whole process at the end of a fit, memory in use by other threads
    included; and fits of CLM's size gain nothing from sharing a GPU.

    Args:
        device: "cpu" or "cuda".
    """
    with _GPU if device == "cuda" else nullcontext():
        yield
