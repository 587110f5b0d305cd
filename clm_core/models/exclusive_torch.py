"""Exclusive use of torch: the random generators of torch, NumPy and Python belong to the whole process.

Folds are fitted on threads in parallel, and fits with shared generators would depend on each other. So a
single fit at a time uses the generators, and the states from before are restored. On a processor torch gains
nothing from more than a single thread at CLM's sizes, and sums would differ with another number of threads.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import numpy as np

from clm_core.models.params import Device, choose_device
from clm_core.models.threads import single_threaded_torch

_LOCK = Lock()


@contextmanager
def exclusive_torch(seed: int) -> Iterator[None]:
    """Wait until no other fit trains with torch, then seed every generator and use a single thread."""
    import torch

    with _LOCK, single_threaded_torch():
        python_state = random.getstate()
        numpy_state = np.random.get_state()
        torch_state = torch.get_rng_state()
        # a GPU's generators exist from the first use of the GPU
        gpus_used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        gpu_states = torch.cuda.get_rng_state_all() if gpus_used else []
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
            torch.set_rng_state(torch_state)
            torch.cuda.set_rng_state_all(gpu_states)


def torch_device(requested: Device) -> str:
    """Training device: "cpu" or "cuda".

    Raises:
        InvalidTrainingParams: a GPU is requested and none is available.
    """
    import torch

    return choose_device(requested, torch.cuda.is_available(), "torch")
