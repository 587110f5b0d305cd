import random
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import numpy as np
import pytest
from lazily import Lazily

from clm_core.domain.costs import Costs
from clm_core.domain.errors import InvalidTrainingParams
from clm_core.domain.vocabulary import ModelType
from clm_core.models.catalog import recipe
from clm_core.models.exclusive_torch import exclusive_torch, torch_device
from clm_core.models.threads import exclusive_gpu

torch = Lazily("torch")


def draws(seed: int) -> list[float]:
    """Draws from each generator in turn, slowly enough for another thread to interfere."""
    values = []
    with exclusive_torch(seed):
        for _ in range(20):
            values += [random.random(), float(np.random.rand()), float(torch.rand(1))]
            time.sleep(0.001)
    return values


def test_the_draws_of_a_fit_do_not_depend_on_concurrent_fits():
    alone = [draws(seed) for seed in (1, 2)]
    assert alone[0] != alone[1]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(draws, (1, 2))) == alone


def test_generators_and_threads_are_restored():
    threads = torch.get_num_threads()
    states = [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]
    with exclusive_torch(5):
        assert torch.get_num_threads() == 1
        for draw in (random.random, np.random.rand, lambda: torch.rand(1)):
            draw()
    assert [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()] == states
    assert torch.get_num_threads() == threads


def max_concurrency(device: str) -> int:
    inside = 0
    max_inside = 0
    counting = Lock()

    def train(_: int) -> None:
        nonlocal inside, max_inside
        with exclusive_gpu(device):
            with counting:
                inside += 1
                max_inside = max(max_inside, inside)
            time.sleep(0.02)
            with counting:
                inside -= 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(train, range(4)))
    return max_inside


def test_a_gpu_trains_a_single_model_at_a_time_and_the_cpu_any_number():
    assert max_concurrency("cuda") == 1
    assert max_concurrency("cpu") > 1


def test_a_missing_gpu_is_refused_before_bars_are_loaded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("clm_core.models.trees.xgboost.count_gpus", lambda: 0)
    for kind in (ModelType.XGBOOST, ModelType.NHITS, ModelType.PATCHTST, ModelType.RL_V2, ModelType.RL_V3):
        with pytest.raises(InvalidTrainingParams, match="device=auto or device=cpu"):
            recipe(kind, {"device": "cuda"}, Costs())


def test_the_requested_device_is_used_and_auto_prefers_an_available_gpu():
    assert torch_device("cpu") == "cpu"
    assert torch_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
