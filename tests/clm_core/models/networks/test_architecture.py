from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from threading import Barrier, Event
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from lazily import Lazily

from clm_core.market.bars import Bars
from clm_core.models.exclusive_torch import exclusive_torch
from clm_core.models.networks.forecasting import LEVELS, training_windows
from clm_core.models.networks.nhits import NHITSParams
from clm_core.models.networks.patchtst import PatchTSTParams
from clm_core.models.networks.windows import windows_of
from clm_core.models.threads import single_threaded_torch

if TYPE_CHECKING:
    from clm_core.models.networks.training import WindowSet

torch: Any = Lazily("torch")
architecture: Any = Lazily("clm_core.models.networks.architecture")
training_module: Any = Lazily("clm_core.models.networks.training")


def test_dropout_leaves_out_its_fraction_keeps_the_mean_and_draws_anew_each_time():
    dropout = architecture.Dropout(0.3, seed=1)
    ones = torch.ones(1000, 1001)
    first = dropout(ones)
    second = dropout(ones)
    # a million values: five standard errors are 0.0023
    assert float((first == 0).float().mean()) == pytest.approx(77 / 256, abs=0.0023)
    assert float(first.mean()) == pytest.approx(1, abs=0.004)
    assert not torch.equal(first, second)
    assert torch.equal(architecture.Dropout(0.3, seed=1)(ones), first)
    assert not torch.equal(architecture.Dropout(0.3, seed=2)(ones), first)


def test_dropout_is_inactive_in_evaluation_mode():
    ones = torch.ones(100)
    assert architecture.Dropout(0.5, seed=1).eval()(ones) is ones


@pytest.mark.parametrize("params", [NHITSParams(), PatchTSTParams()], ids=["nhits", "patchtst"])
def test_a_forecast_does_not_depend_on_the_number_of_forecasts_requested(
    params: NHITSParams | PatchTSTParams, bars: Bars
):
    forecaster = architecture.untrained(params, LEVELS, seed=3).eval()
    with torch.no_grad():
        for weight in forecaster.network.parameters():
            if weight.requires_grad:
                weight.copy_(torch.from_numpy(np.random.default_rng(1).normal(0, 0.1, weight.shape)))
    windows = windows_of(bars, params.input_size, params.input_features)
    whole = architecture.quantiles(forecaster, windows)
    assert len(np.unique(whole)) > len(whole)
    for count in (1, architecture.CHUNK - 1, architecture.CHUNK, architecture.CHUNK + 1, len(whole)):
        assert np.array_equal(
            architecture.quantiles(forecaster, replace(windows, rows=windows.rows[:count])), whole[:count]
        )


def test_no_training_starts_while_a_network_is_being_built(bars: Bars):
    params = NHITSParams()
    reports: list[float] = []
    material = training_windows(bars[:1000], params)
    forecaster = architecture.untrained(params, LEVELS, seed=0)
    build_ends = Event()
    build_started = Event()

    def build() -> None:
        with exclusive_torch(seed=1):
            build_started.set()
            build_ends.wait()

    with ThreadPoolExecutor(2) as pool:
        building = pool.submit(build)
        build_started.wait()
        training = pool.submit(
            training_module.train, forecaster, material, params, 2, "cpu", 0, reports.append
        )
        # two steps take a tenth of it
        finished, _ = wait([training], timeout=2)
        started = bool(finished or reports)
        build_ends.set()
        building.result()
        training.result()
    assert not started
    assert reports == [0.5, 1.0]


def one_device() -> Any:
    """Dispatch mode that refuses every operation on tensors of several devices, except copies."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class OneDevice(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            given = tree_leaves((args, kwargs))
            devices = {value.device for value in given if isinstance(value, torch.Tensor)}
            copies = func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
            if len(devices) > 1 and not copies:
                raise AssertionError(f"{func} takes tensors of {devices}")
            return func(*args, **(kwargs or {}))

    return OneDevice()


@pytest.fixture
def on_meta_device(
    bars: Bars, monkeypatch: pytest.MonkeyPatch
) -> Callable[[NHITSParams | PatchTSTParams], "WindowSet"]:
    """Window set on the meta device, where tensors have shapes and no values."""
    # torch has no generators for the meta device; without values the choice of generator changes nothing
    generator = torch.Generator
    monkeypatch.setattr("torch.Generator", lambda device="cpu": generator())

    def window_set(params: NHITSParams | PatchTSTParams) -> "WindowSet":
        forecaster = architecture.untrained(params, LEVELS, seed=0).to("meta")
        return training_module.WindowSet(
            forecaster, training_windows(bars[:1000], params), params, "meta", seed=0
        )

    return window_set


NETWORKS = pytest.mark.parametrize("params", [NHITSParams(), PatchTSTParams()], ids=["nhits", "patchtst"])


@NETWORKS
def test_a_training_step_and_a_validation_use_tensors_of_the_networks_device_only(
    params: NHITSParams | PatchTSTParams,
    on_meta_device: Callable[[NHITSParams | PatchTSTParams], "WindowSet"],
):
    window_set = on_meta_device(params)
    with one_device():
        loss = window_set.training_step(next(window_set.batches()), 0)
        loss.backward()
        # computed up to the value of the loss, for the meta device has no values
        with pytest.raises(RuntimeError, match="meta tensors"):
            window_set.validation_loss()
    assert loss.device.type == "meta"


@NETWORKS
def test_a_tensor_left_on_another_device_is_refused(
    params: NHITSParams | PatchTSTParams,
    on_meta_device: Callable[[NHITSParams | PatchTSTParams], "WindowSet"],
):
    window_set = on_meta_device(params)
    window_set._inputs._volatility = torch.ones(1000, 1)
    with pytest.raises(AssertionError, match="takes tensors of"), one_device():
        next(window_set.batches())


def test_the_number_of_threads_is_restored_when_the_last_user_leaves():
    before = torch.get_num_threads()
    both_inside = Barrier(2)
    one_left = Barrier(2)

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
    assert torch.get_num_threads() == before
    with ThreadPoolExecutor(1) as fresh:
        assert fresh.submit(torch.get_num_threads).result() == before
