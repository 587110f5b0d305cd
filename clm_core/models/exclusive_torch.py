"""torch to oneself: its generators and NumPy's, which its libraries draw from, belong to the whole process.

Folds are fitted on threads at the same time, and fits that shared generators would each depend on the
others. So one fit at a time has them; what it found is put back. On a processor torch gains nothing from more
than one thread at our sizes, and sums would come out otherwise with another number of them.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import numpy as np

from clm_core.models.params import Device, choose_device
from clm_core.models.threads import single_threaded_torch

_TAKEN = Lock()


@contextmanager
def exclusive_torch(seed: int) -> Iterator[None]:
    """Wait until nobody else trains with torch, then seed every generator and keep to one thread."""
    import torch

    with _TAKEN, single_threaded_torch():
        found = random.getstate(), np.random.get_state(), torch.get_rng_state()
        # a GPU's generators come into being with its first use
        used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        on_gpus = torch.cuda.get_rng_state_all() if used else []
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(found[0])
            np.random.set_state(found[1])
            torch.set_rng_state(found[2])
            torch.cuda.set_rng_state_all(on_gpus)


def torch_device(wanted: Device) -> str:
    """
    Raises:
        InvalidTrainingParams: a GPU is asked for and there is none.
    """
    import torch

    return choose_device(wanted, torch.cuda.is_available(), "torch")
