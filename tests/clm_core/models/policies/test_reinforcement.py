"""Policies: training, memory, and loading from a bundle."""

import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from clm_core.domain.costs import Costs, MarketCosts
from clm_core.domain.errors import (
    BundleCorrupt,
    FeatureMismatch,
    InvalidTrainingParams,
    NotEnoughBars,
    PreflightFailed,
)
from clm_core.domain.vocabulary import ModelType
from clm_core.evidence.soundness import activity
from clm_core.market.bars import FIELDS, Bars, Floats
from clm_core.market.features import compute_features
from clm_core.market.rolling import read_only
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.models import catalog, golden
from clm_core.models.bundle import card_of
from clm_core.models.catalog import recipe
from clm_core.models.policies.reinforcement import (
    FILE,
    MIN_STARTS,
    PolicyModel,
    ReinforcementRecipe,
    rules_of,
    spans,
    training_set,
)
from clm_core.models.policies.trading import MarketArrays, PolicyNetwork, TradingRules, roll_out

KINDS = [ModelType.RL_V2, ModelType.RL_V3]
FREE = {"fee_bps": 0, "slippage_bps": 0}
SHORT_SIGHTED = {"features": ("log_return_1", "body", "range"), "memory": 24}
"""Features with a look-back of a single bar."""
FAST: dict[ModelType, dict[str, Any]] = {
    ModelType.RL_V2: {"bars_played": 5_000, "margin": 0, "checks": 2, **FREE, **SHORT_SIGHTED},
    ModelType.RL_V3: {"bars_played": 20_000, "checks": 2, **FREE, **SHORT_SIGHTED},
}
HOUR = Timeframe.H1.nanoseconds


def fitted(kind: ModelType, bars: Bars, seed: int = 0, **params: Any) -> PolicyModel:
    model = recipe(kind, FAST[kind] | params, Costs()).fit(bars, seed).inner
    assert isinstance(model, PolicyModel)
    return model


@pytest.fixture(scope="module", params=KINDS, ids=str)
def model(request: pytest.FixtureRequest, bars: Bars) -> PolicyModel:
    return fitted(request.param, bars)


def stretches_of(starts: list[int], lengths: list[int]) -> Bars:
    """Bars with constant prices, in stretches given by start hour and length."""
    hours = np.concatenate([start + np.arange(length) for start, length in zip(starts, lengths, strict=True)])
    ones = [np.ones(len(hours)) for _ in range(5)]
    return Bars("TEST", Timeframe.H1, Calendar.ALWAYS, hours.astype(np.int64) * HOUR, *ones)


@given(
    start=st.integers(0, 400),
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=3),
    memory=st.integers(2, 30),
    warm_up=st.integers(0, 10),
)
def test_a_span_is_played_from_its_start_or_not_at_all(
    start: int, lengths: list[int], memory: int, warm_up: int
):
    bars = stretches_of([start + 100 * k for k in range(len(lengths))], lengths)
    complete = np.concatenate([np.arange(length) >= warm_up for length in lengths])
    starts, active = spans(bars, complete, memory)
    # 1970 began on a Thursday, 72 hours after a Monday
    hours = (bars.time // HOUR + 72).tolist()
    known: dict[int, bool] = dict(zip(hours, complete.tolist(), strict=True))
    for hour, starting, playing in zip(hours, starts.tolist(), active.tolist(), strict=True):
        first = hour // memory * memory
        whole = all(each in known for each in range(first - 1, hour + 1)) and known[first]
        assert playing == whole
        assert starting == (whole and hour == first)


def test_the_bars_of_look_back_and_memory_alone_give_the_same_position_as_the_whole_history(
    model: PolicyModel, bars: Bars
):
    full = model.positions(bars)
    memory = model.params.memory
    for last in range(1000, len(bars), 7):
        recent = bars[last - memory - 1 : last + 1]
        if recent.segments[-1] == 0:
            assert model.positions(recent)[-1] == full[last]
    assert len(np.unique(full)) > 1


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_slowly_settling_features_give_the_same_position_on_the_bars_needed(kind: ModelType, bars: Bars):
    model = fitted(kind, bars, features=("rsi_14", "macd", "log_return_4"))
    full = model.positions(bars)
    enough = model.bars_needed
    rows = range(1000, 1500, 10)
    live = [model.positions(bars[t + 1 - enough : t + 1])[-1] for t in rows]
    assert live == full[rows].tolist()


def test_no_position_is_taken_after_an_outage_before_a_span_starts(model: PolicyModel, bars: Bars):
    positions = model.positions(bars)
    monday = 72
    first = next(row for row in range(1502, 1600) if (bars.time[row] // HOUR + monday) % 24 == 0)
    assert np.all(positions[1500:first] == 0)
    assert np.any(positions[first : first + 48] != 0)


def test_a_span_is_traded_like_an_episode_from_the_start_of_the_span(model: PolicyModel, bars: Bars):
    table = compute_features(bars, model.params.features)
    discrete = model.model_type is ModelType.RL_V2
    rules = rules_of(model.params, model.normaliser)
    from clm_core.models.policies.trading_env import TradingEnv, TradingEpisodes

    episodes = TradingEpisodes(
        model.normaliser.scores(table.values),
        MarketArrays.of(bars),
        np.arange(1),
        model.params.memory,
        rules,
        discrete,
    )
    env = TradingEnv(episodes)
    positions = model.positions(bars)
    starts, _ = spans(bars, table.complete, model.params.memory)
    for start in np.flatnonzero(starts)[5:15].tolist():
        observation, _ = env.reset(options={"row": start})
        for row in range(start, start + model.params.memory):
            outputs = network_outputs(model, observation)
            observation, *_ = env.step(int(outputs.argmax()) if discrete else outputs)
            assert observation[-2] == positions[row] or row == start + model.params.memory - 1


def network_outputs(model: PolicyModel, observation: Floats) -> Floats:
    network = model.network
    hidden_1 = np.maximum(observation.astype(float) @ network.weight_1 + network.bias_1, 0)
    hidden_2 = np.maximum(hidden_1 @ network.weight_2 + network.bias_2, 0)
    return np.asarray(hidden_2 @ network.weight_3 + network.bias_3)


@pytest.mark.parametrize(
    ("margin", "positions"), [(0.0, [1, -1, -1, 1]), (0.5, [0, -1, -1, 1]), (9.0, [0, 0, 0, 0])]
)
def test_the_position_is_kept_unless_another_position_is_worth_more_by_the_margin(
    margin: float, positions: list[int]
):
    """The single feature is the value of long; the value of short is the negative, of flat 0."""
    worth = np.array([[0.4], [-0.6], [0.0], [0.6]], dtype=np.float32)
    market = MarketArrays(*(read_only(np.full(4, value)) for value in (1.0, 1.0, 1.0, 1.0, 0.0, 0.0)))
    rules = TradingRules(fee=0.0, slippage=0.0, step=1.0, unit=1.0, margin=margin)
    split = np.array([[1.0, -1.0], [0.0, 0.0], [0.0, 0.0]])
    joined = np.array([[-1.0, 0.0, 1.0], [1.0, 0.0, -1.0]])
    network = PolicyNetwork(split, np.zeros(2), np.eye(2), np.zeros(2), joined, np.zeros(3))
    always = np.ones(4, np.bool_)
    assert roll_out(worth, always & False, always, market, rules, network)[0].tolist() == positions


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_concurrent_fits_give_the_same_policies_as_single_fits(kind: ModelType, bars: Bars):
    alone = [fitted(kind, bars, seed) for seed in (1, 2)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda seed: fitted(kind, bars, seed), (1, 2)))
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.positions(bars), other.positions(bars))
        assert one.learning_curve == other.learning_curve
    assert not np.array_equal(alone[0].positions(bars), alone[1].positions(bars))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_an_interrupted_training_leaves_torch_to_the_next_training(kind: ModelType, bars: Bars):
    def interrupt(done: float) -> None:
        raise KeyboardInterrupt

    interrupted = recipe(kind, FAST[kind], Costs()).inner
    with pytest.raises(KeyboardInterrupt):
        interrupted.fit(bars, 0, interrupt)
    assert np.array_equal(interrupted.fit(bars, 0).positions(bars), fitted(kind, bars).positions(bars))


def test_positions_of_thousands_of_bars_take_well_under_a_second(model: PolicyModel, bars: Bars):
    model.positions(bars)
    start = time.perf_counter()
    model.positions(bars)
    assert time.perf_counter() - start < 0.5


def test_a_policy_without_trades_counts_as_collapsed_and_fails_the_preflight(
    model: PolicyModel, bars: Bars, tmp_path: Path
):
    network = PolicyNetwork(*(np.zeros_like(weights) for weights in model.network))
    if model.model_type is ModelType.RL_V2:
        network.bias_3[1] = 1.0
    flat = replace(model, network=network)
    measured = activity(flat.positions(bars))
    assert (measured.commonest_side, measured.share) == ("flat", 1.0)
    golden.record(flat, bars, tmp_path)
    with pytest.raises(PreflightFailed, match="learned nothing"):
        golden.preflight(flat, tmp_path)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_training_stops_when_the_policy_no_longer_gets_better(
    kind: ModelType, bars: Bars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    reports: list[float] = []
    params = FAST[kind] | {"checks": 40, "patience": 2}
    params["bars_played"] *= 4
    model = recipe(kind, params, Costs()).fit(bars, 0, reports.append)
    losses = list(model.learning_curve)
    assert len(losses) < 40
    assert len(losses) - 1 - losses.index(min(losses)) == 2
    assert model.train_metrics["validation_bps_a_bar"] == -min(losses)
    assert reports[-1] == 1.0
    assert list(tmp_path.iterdir()) == [], "nothing is left among the temporary files"


def test_the_costs_of_the_training_are_kept_with_the_parameters():
    costs = Costs(fee_bps=7.5, slippage_bps=1.5)
    described = recipe(ModelType.RL_V3, {"hidden": "16"}, costs).describe()
    assert (described["fee_bps"], described["slippage_bps"], described["hidden"]) == (7.5, 1.5, 16)
    assert recipe(ModelType.RL_V3, described, Costs()).describe() == described


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize(
    "wrong",
    [
        {"memory": 1},
        {"memory": 301},
        {"discount": 1.0},
        {"device": "tpu"},
        {"bars_played": 0},
        {"drawdown_penalty": -1},
        {"features": "rsi_14,rsi_15"},
        {"fee_bps": "nan"},
        {"rounds": 5},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_invalid_parameters_are_refused_with_the_valid_names(kind: ModelType, wrong: dict[str, Any]):
    with pytest.raises(
        InvalidTrainingParams, match=r"Valid parameters: features, fee_bps, slippage_bps, memory"
    ):
        recipe(kind, wrong, Costs())


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_bars_with_too_few_episode_starts_are_refused_with_a_remedy(kind: ModelType, bars: Bars):
    with pytest.raises(NotEnoughBars, match=r"rows at which an episode of 24 bars may start; 200 are needed"):
        fitted(kind, bars[:250])


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_policy_has_just_enough_episode_starts_on_the_bars_that_its_recipe_states(
    kind: ModelType, bars: Bars
):
    of_kind = catalog.find_kind(kind).recipe({}, MarketCosts())
    assert isinstance(of_kind, ReinforcementRecipe)
    stretch = max(bars.stretches(), key=lambda rows: rows.stop - rows.start)
    needed = of_kind.bars_to_fit(bars)
    assert len(training_set(bars[stretch][:needed], of_kind.params).episodes.starts) >= MIN_STARTS
    with pytest.raises(NotEnoughBars):
        training_set(bars[stretch][: needed - needed // 20], of_kind.params)


def test_loading_and_positions_of_a_policy_import_no_torch(bars: Bars, tmp_path: Path):
    # sized, as a version is saved and loaded
    sized = recipe(ModelType.RL_V3, FAST[ModelType.RL_V3], Costs())
    model = sized.fit(bars, 0)
    model.save(tmp_path)
    card = card_of(model, sized)
    (tmp_path / "model.json").write_text(card.model_dump_json())
    np.savez(tmp_path / "bars.npz", **{name: getattr(bars, name) for name in ("time", *FIELDS)})
    code = f"""
import sys
from pathlib import Path
import numpy as np
from clm_core.market.bars import Bars
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.models.bundle import read_card
from clm_core.models import catalog
folder = Path({str(tmp_path)!r})
bars = Bars("BTCUSD", Timeframe.H1, Calendar.ALWAYS, **np.load(folder / "bars.npz"))
positions = catalog.load(folder, read_card(folder)).positions(bars)
np.save(folder / "positions.npy", positions)
assert not {{"torch", "stable_baselines3", "gymnasium"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    positions = model.positions(bars)
    assert np.array_equal(np.load(tmp_path / "positions.npy"), positions)
    assert np.ptp(positions) > 0


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def pickled(path: Path) -> None:
    path.write_bytes(b"\x80\x04K\x01.")


def narrower(path: Path) -> None:
    tensors = load_file(path)
    save_file(tensors | {"bias_1": tensors["bias_1"][:-1].copy()}, path)


def unnamed(path: Path) -> None:
    tensors = load_file(path)
    save_file({name: values for name, values in tensors.items() if name != "bias_3"}, path)


def not_a_number(path: Path) -> None:
    tensors = load_file(path)
    save_file(tensors | {"weight_2": np.full_like(tensors["weight_2"], np.nan)}, path)


def single(path: Path) -> None:
    save_file({name: values.astype(np.float32) for name, values in load_file(path).items()}, path)


@pytest.mark.parametrize("damage", [cut, pickled, narrower, unnamed, not_a_number, single])
def test_a_damaged_policy_file_is_refused(model: PolicyModel, tmp_path: Path, damage: Any):
    model.save(tmp_path)
    card = card_of(model, recipe(model.model_type, FAST[model.model_type], Costs()))
    catalog.load(tmp_path, card)
    damage(tmp_path / FILE)
    with pytest.raises(BundleCorrupt, match="train the model again"):
        catalog.load(tmp_path, card)


def test_a_policy_with_a_feature_of_another_release_is_refused(model: PolicyModel, tmp_path: Path):
    model.save(tmp_path)
    card = card_of(model, recipe(model.model_type, FAST[model.model_type], Costs()))
    card = card.model_copy(update={"params": card.params | {"features": ["rsi_15"]}})
    with pytest.raises(FeatureMismatch, match="rsi_15"):
        catalog.load(tmp_path, card)
