import random
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import numpy as np
import pytest
import torch

from clm_core.domain.costs import Costs
from clm_core.domain.errors import InvalidTrainingParams
from clm_core.domain.vocabulary import ModelType
from clm_core.models.catalog import recipe
from clm_core.models.exclusive_torch import exclusive_torch, torch_device
from clm_core.models.threads import exclusive_gpu


def draws(seed: int) -> list[float]:
    """One of each generator, several times, slowly enough for another thread to step in."""
    drawn = []
    with exclusive_torch(seed):
        for _ in range(20):
            drawn += [random.random(), float(np.random.rand()), float(torch.rand(1))]
            time.sleep(0.001)
    return drawn


def test_what_a_fit_draws_does_not_depend_on_fits_at_the_same_time():
    alone = [draws(seed) for seed in (1, 2)]
    assert alone[0] != alone[1]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(draws, (1, 2))) == alone


def test_generators_and_threads_are_left_as_they_were_found():
    threads = torch.get_num_threads()
    states = [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]
    with exclusive_torch(5):
        assert torch.get_num_threads() == 1
        for draw in (random.random, np.random.rand, lambda: torch.rand(1)):
            draw()
    assert [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()] == states
    assert torch.get_num_threads() == threads


def most_at_once(device: str) -> int:
    inside, most, counting = 0, 0, Lock()

    def train(_: int) -> None:
        nonlocal inside, most
        with exclusive_gpu(device):
            with counting:
                inside += 1
                most = max(most, inside)
            time.sleep(0.02)
            with counting:
                inside -= 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(train, range(4)))
    return most


def test_one_at_a_time_trains_on_a_gpu_and_any_number_on_the_processor():
    assert most_at_once("cuda") == 1
    assert most_at_once("cpu") > 1


def test_a_gpu_that_is_not_there_is_refused_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("clm_core.models.trees.xgboost.count_gpus", lambda: 0)
    for kind in (ModelType.XGBOOST, ModelType.NHITS, ModelType.PATCHTST, ModelType.RL_V2, ModelType.RL_V3):
        with pytest.raises(InvalidTrainingParams, match="device=auto or device=cpu"):
            recipe(kind, {"device": "cuda"}, Costs())


def test_a_device_that_is_asked_for_is_taken_and_otherwise_a_gpu_where_there_is_one():
    assert torch_device("cpu") == "cpu"
    assert torch_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
