from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from threading import Barrier, Event
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from clm_core.market.bars import Bars
from clm_core.models.exclusive_torch import exclusive_torch
from clm_core.models.networks.architecture import CHUNK, Dropout, quantiles, untrained
from clm_core.models.networks.forecasting import LEVELS, training_windows
from clm_core.models.networks.nhits import NHITSParams
from clm_core.models.networks.patchtst import PatchTSTParams
from clm_core.models.networks.training import WindowSet, train
from clm_core.models.networks.windows import windows_of
from clm_core.models.threads import single_threaded_torch


def test_dropout_leaves_out_its_share_keeps_the_mean_and_draws_anew_each_time():
    dropout, ones = Dropout(0.3, seed=1), torch.ones(1000, 1001)
    first, second = dropout(ones), dropout(ones)
    # a million values: five standard errors are 0.0023
    assert float((first == 0).float().mean()) == pytest.approx(77 / 256, abs=0.0023)
    assert float(first.mean()) == pytest.approx(1, abs=0.004)
    assert not torch.equal(first, second)
    assert torch.equal(Dropout(0.3, seed=1)(ones), first)
    assert not torch.equal(Dropout(0.3, seed=2)(ones), first)


def test_nothing_is_left_out_of_an_answer():
    ones = torch.ones(100)
    assert Dropout(0.5, seed=1).eval()(ones) is ones


@pytest.mark.parametrize("params", [NHITSParams(), PatchTSTParams()], ids=["nhits", "patchtst"])
def test_an_answer_does_not_depend_on_how_many_others_are_asked_for(
    params: NHITSParams | PatchTSTParams, bars: Bars
):
    forecaster = untrained(params, LEVELS, seed=3).eval()
    with torch.no_grad():
        for weight in forecaster.network.parameters():
            if weight.requires_grad:
                weight.copy_(torch.from_numpy(np.random.default_rng(1).normal(0, 0.1, weight.shape)))
    windows = windows_of(bars, params.input_size, params.input_features)
    whole = quantiles(forecaster, windows)
    assert len(np.unique(whole)) > len(whole)
    for count in (1, CHUNK - 1, CHUNK, CHUNK + 1, len(whole)):
        assert np.array_equal(
            quantiles(forecaster, replace(windows, rows=windows.rows[:count])), whole[:count]
        )


def test_no_training_begins_while_a_network_is_being_made(bars: Bars):
    params, told = NHITSParams(), []
    material, forecaster = training_windows(bars[:1000], params), untrained(params, LEVELS, seed=0)
    made, being_made = Event(), Event()

    def make() -> None:
        with exclusive_torch(seed=1):
            being_made.set()
            made.wait()

    with ThreadPoolExecutor(2) as pool:
        making = pool.submit(make)
        being_made.wait()
        training = pool.submit(train, forecaster, material, params, 2, "cpu", 0, told.append)
        # two steps take a tenth of it
        finished, _ = wait([training], timeout=2)
        begun = bool(finished or told)
        made.set()
        making.result()
        training.result()
    assert not begun
    assert told == [0.5, 1.0]


class OneDevice(TorchDispatchMode):
    """Refuses whatever takes tensors of several devices, but a copy from one to another."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = tree_leaves((args, kwargs))
        devices = {value.device for value in given if isinstance(value, torch.Tensor)}
        copies = func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
        if len(devices) > 1 and not copies:
            raise AssertionError(f"{func} takes tensors of {devices}")
        return func(*args, **(kwargs or {}))


@pytest.fixture
def abroad(
    bars: Bars, monkeypatch: pytest.MonkeyPatch
) -> Callable[[NHITSParams | PatchTSTParams], WindowSet]:
    """What is taught on a device that is neither the processor nor computes anything."""
    # torch has no generators for it; which one draws changes nothing where nothing is drawn
    generator = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda device="cpu": generator())

    def lesson(params: NHITSParams | PatchTSTParams) -> WindowSet:
        forecaster = untrained(params, LEVELS, seed=0).to("meta")
        return WindowSet(forecaster, training_windows(bars[:1000], params), params, "meta", seed=0)

    return lesson


NETWORKS = pytest.mark.parametrize("params", [NHITSParams(), PatchTSTParams()], ids=["nhits", "patchtst"])


@NETWORKS
def test_a_step_and_a_look_at_the_loss_take_nothing_from_another_device_than_the_networks(
    params: NHITSParams | PatchTSTParams, abroad: Callable[[NHITSParams | PatchTSTParams], WindowSet]
):
    lesson = abroad(params)
    with OneDevice():
        loss = lesson.training_step(next(lesson.batches()), 0)
        loss.backward()
        # all but its number, which nothing has computed
        with pytest.raises(RuntimeError, match="meta tensors"):
            lesson.validation_loss()
    assert loss.device.type == "meta"


@NETWORKS
def test_a_tensor_that_was_left_behind_is_noticed(
    params: NHITSParams | PatchTSTParams, abroad: Callable[[NHITSParams | PatchTSTParams], WindowSet]
):
    lesson = abroad(params)
    lesson._inputs._volatility = torch.ones(1000, 1)
    with pytest.raises(AssertionError, match="takes tensors of"), OneDevice():
        next(lesson.batches())


def test_threads_are_given_back_by_the_last_who_leaves():
    found, both_inside, one_left = torch.get_num_threads(), Barrier(2), Barrier(2)

    def first() -> int:
        with single_threaded_torch():
            both_inside.wait()
        one_left.wait()
        return 0

    def last() -> int:
        with single_threaded_torch():
            both_inside.wait()
            one_left.wait()
            return torch.get_num_threads()

    with ThreadPoolExecutor(2) as pool:
        inside = [pool.submit(work) for work in (first, last)][1].result()
        assert inside == 1
    assert torch.get_num_threads() == found
    with ThreadPoolExecutor(1) as fresh:
        assert fresh.submit(torch.get_num_threads).result() == found
