"""Rule strategies: the contract of every model, a slow loop as oracle, and the ends of trades by hand."""

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from kind_cases import member

from clm_core.domain.costs import Costs
from clm_core.domain.errors import InvalidTrainingParams, NotEnoughBars, PluginFailed, PluginMissing
from clm_core.domain.search_space import Between
from clm_core.domain.vocabulary import ModelType, RuleFamily
from clm_core.market.bars import Bars
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.models import catalog
from clm_core.models.bundle import load_bundle, read_card, save_bundle
from clm_core.models.offer import offers
from clm_core.models.strategies.rules import Limits, Rule, RuleParams, highest_before, trades
from clm_core.testing.contract import ModelContract, recipe_of

SHORT = {"max_holding": 40, "stop_loss": 0.01, "take_profit": 0.02}
CASES: dict[str, dict[str, Any]] = {
    "momentum": {"look_back": 12, "threshold": 0.01, **SHORT},
    "breakout": {"look_back": 24, "exit_look_back": 12, "threshold": 0.002, **SHORT},
    "mean_reversion": {"look_back": 15, "threshold": 1.5, **SHORT},
    "ma_cross": {"fast": 5, "slow": 50, "threshold": 0.003, **SHORT},
    "volatility_trend": {"look_back": 30, "range_look_back": 10, "threshold": 1.0, **SHORT},
}


class TestEveryRule(ModelContract):
    cases: ClassVar = CASES
    on_walks: ClassVar = {"threshold": 0.0003}
    without_forecast = frozenset(CASES)


def rule_of(family: str) -> Rule:
    inner = catalog.strategy(RuleFamily(family)).recipe({}, Costs())
    return inner.rule


def walk(seed: int, n_bars: int = 900, outage: int | None = 500) -> Bars:
    """A random walk of hourly bars with plateaus, and an outage of two days before a row."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, 0.006, n_bars)
    # repeated prices and exact ties
    steps[rng.random(n_bars) < 0.2] = 0.0
    close = np.round(100 * np.exp(np.cumsum(steps)), 2)
    open_ = np.round(np.concatenate([[100.0], close[:-1]]) * np.exp(rng.normal(0, 0.0005, n_bars)), 2)
    high = np.round(np.maximum(open_, close) * (1 + rng.exponential(0.002, n_bars)), 2)
    low = np.round(np.minimum(open_, close) * (1 - rng.exponential(0.002, n_bars)), 2)
    hours = np.arange(n_bars) + (0 if outage is None else 48 * (np.arange(n_bars) >= outage))
    return Bars(
        "WALK",
        Timeframe.H1,
        Calendar.ALWAYS,
        438_288 * Timeframe.H1.nanoseconds + hours * Timeframe.H1.nanoseconds,
        open=open_,
        high=high,
        low=low,
        close=close,
        volume=np.ones(n_bars),
    )


def total(values: list[float]) -> float:
    """Sum from the newest value, the last, to the oldest."""
    summed = 0.0
    for value in reversed(values):
        summed += value
    return summed


def mean(values: list[float]) -> float:
    return total(values) / len(values)


def momentum(params: Any, bars: Bars, t: int) -> tuple[float, float] | None:
    if t < params.look_back:
        return None
    score = bars.close[t] / bars.close[t - params.look_back] - 1.0
    return score, score


def breakout(params: Any, bars: Bars, t: int) -> tuple[float, float] | None:
    if t < max(params.look_back, params.exit_look_back):
        return None
    scores = []
    for length in (params.look_back, params.exit_look_back):
        highest = max(bars.high[t - length : t])
        lowest = min(bars.low[t - length : t])
        close = bars.close[t]
        scores.append(
            close / highest - 1.0 if close > highest else close / lowest - 1.0 if close < lowest else 0.0
        )
    return scores[0], scores[1]


def mean_reversion(params: Any, bars: Bars, t: int) -> tuple[float, float] | None:
    if t < params.look_back - 1:
        return None
    closes = bars.close[t - params.look_back + 1 : t + 1].tolist()
    middle = mean(closes)
    spread = math.sqrt(mean([(close - middle) * (close - middle) for close in closes]))
    score = 0.0 if spread <= 1e-12 * middle else (middle - closes[-1]) / spread
    return score, score


def ma_cross(params: Any, bars: Bars, t: int) -> tuple[float, float] | None:
    if t < params.slow - 1:
        return None
    fast, slow = (mean(bars.close[t - each + 1 : t + 1].tolist()) for each in (params.fast, params.slow))
    return fast / slow - 1.0, fast / slow - 1.0


def volatility_trend(params: Any, bars: Bars, t: int) -> tuple[float, float] | None:
    if t < max(params.look_back - 1, params.range_look_back):
        return None
    ranges = [
        max(
            bars.high[s] - bars.low[s],
            abs(bars.high[s] - bars.close[s - 1]),
            abs(bars.low[s] - bars.close[s - 1]),
        )
        for s in range(t - params.range_look_back + 1, t + 1)
    ]
    middle = mean(bars.close[t - params.look_back + 1 : t + 1].tolist())
    score = (bars.close[t] - middle) / mean(ranges) if mean(ranges) > 0 else 0.0
    return score, score


SCORES: dict[str, Callable[[Any, Bars, int], tuple[float, float] | None]] = {
    "momentum": momentum,
    "breakout": breakout,
    "mean_reversion": mean_reversion,
    "ma_cross": ma_cross,
    "volatility_trend": volatility_trend,
}


def side_by_hand(params: RuleParams, bars: Bars, scores: list[tuple[float, float] | None], t: int) -> float:
    """Side after bar t of one stretch: the newest signal within the time limit, followed to its end."""
    for begun in range(t, max(0, t - params.max_holding), -1):
        now = scores[begun]
        before = scores[begun - 1]
        if now is None or before is None:
            return 0.0
        side = 0.0
        if now[0] > params.threshold >= before[0]:
            side = 1.0
        if now[0] < -params.threshold <= before[0]:
            side = -1.0
        if side:
            for after in range(begun + 1, t + 1):
                move = side * (bars.close[after] / bars.open[begun + 1] - 1.0)
                stopped = params.stop_loss is not None and move <= -params.stop_loss
                taken = params.take_profit is not None and move >= params.take_profit
                if stopped or taken or side * scores[after][1] < 0:
                    return 0.0
            return side
    return 0.0


@pytest.mark.parametrize("changes", [{}, {"stop_loss": None, "take_profit": None, "max_holding": 7}])
@pytest.mark.parametrize("family", RuleFamily)
def test_a_slow_loop_over_the_newest_signal_gives_the_same_positions(
    family: str, changes: dict[str, Any]
) -> None:
    rule = rule_of(family)
    params = rule.params.parse(CASES[family] | changes)
    for seed in range(3):
        bars = walk(seed)
        expected = []
        for rows in bars.stretches():
            stretch = bars[rows]
            scores = [SCORES[family](params, stretch, t) for t in range(len(stretch))]
            expected += [side_by_hand(params, stretch, scores, t) for t in range(len(stretch))]
        positions = rule.positions(params, bars)
        assert positions.tolist() == expected
        assert set(positions) == {-1.0, 0.0, 1.0}


@pytest.mark.parametrize("family", RuleFamily)
def test_a_later_bar_cut_or_changed_alters_no_score_and_no_position(family: str) -> None:
    """To the last bit, at every tenth bar: scores, which thresholds could hide, and positions."""
    rule = rule_of(family)
    params = rule.params.parse(CASES[family])
    bars = walk(5, outage=None)
    scores = rule.scores(params, bars)
    positions = rule.positions(params, bars)
    for end in range(100, len(bars), 10):
        later = np.arange(len(bars)) >= end
        columns = {name: getattr(bars, name) for name in ("open", "high", "low", "close")}
        raised = replace(bars, **{name: np.where(later, 1.4 * each, each) for name, each in columns.items()})
        for given in (bars[:end], raised):
            for own, other in zip(scores, rule.scores(params, given), strict=True):
                assert np.array_equal(own[:end], other[:end], equal_nan=True)
            assert np.array_equal(rule.positions(params, given)[:end], positions[:end])


@pytest.mark.parametrize("family", RuleFamily)
def test_the_memory_is_as_long_as_stated_and_no_longer(family: str) -> None:
    rule = rule_of(family)
    params = rule.params.parse(CASES[family] | {"stop_loss": "none", "take_profit": "none", "max_holding": 6})
    needed = rule.bars_needed(params)
    too_few = 0
    for seed in range(4):
        bars = walk(seed, outage=None)
        positions = rule.positions(params, bars)
        for end in range(needed, len(bars)):
            assert rule.positions(params, bars[end - needed : end])[-1] == positions[end - 1]
            too_few += rule.positions(params, bars[end - needed + 1 : end])[-1] != positions[end - 1]
    assert too_few > 0


def test_the_highest_value_before_each_row_is_that_of_the_plain_window() -> None:
    """To the last bit: ties, both zeros, infinities and missing values included."""
    rng = np.random.default_rng(3)
    for _ in range(300):
        length = int(rng.integers(1, 20))
        values = rng.choice([0.0, -0.0, 1.0, 2.0, -1.0, math.nan, math.inf, -math.inf], rng.integers(0, 50))
        expected = np.full(len(values), math.nan)
        for row in range(length, len(values)):
            highest = -math.inf
            # of equals the newest
            for value in values[row - length : row][::-1]:
                highest = value if value > highest else highest
            expected[row] = highest
        assert highest_before(values, length).tobytes() == expected.tobytes()


@pytest.mark.parametrize("family", RuleFamily)
def test_a_refit_on_newer_bars_with_another_seed_gives_the_same_rule(family: str) -> None:
    recipe = recipe_of(family, CASES[family])
    bars = walk(7, outage=None)
    older = recipe.fit(bars[:600], seed=1)
    newer = recipe.fit(bars[200:], seed=2)
    assert np.array_equal(older.positions(bars), newer.positions(bars))
    assert recipe.fit(bars, seed=1).train_metrics == recipe.fit(bars, seed=2).train_metrics


def sides(
    closes: list[float],
    *,
    opens: list[float] | None = None,
    entry: list[float] | None = None,
    exits: list[float] | None = None,
    **limits: float,
) -> list[float]:
    """Sides of trades with a signal at bar 1, entered at the open of bar 2."""
    n_bars = len(closes)
    signal = [0.0] + [1.0] * (n_bars - 1) if entry is None else entry
    every = Limits(0.5, math.inf, math.inf, 100)._replace(**limits)
    arrays = (closes if opens is None else opens, closes, signal, [0.0] * n_bars if exits is None else exits)
    return trades(*(np.array(each, dtype=float) for each in arrays), every).tolist()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(
            {"closes": [100, 100, 98, 97, 97, 105, 105], "stop_loss": 0.03},
            [0, 1, 1, 1, 1, 1, 1],
            id="a stop counts from the entry price of 98, not from the price of the signal",
        ),
        pytest.param(
            {
                "closes": [100, 100, 98, 97, 97, 105, 105],
                "opens": [100, 100, 100, 98, 97, 97, 105],
                "stop_loss": 0.03,
            },
            [0, 1, 1, 0, 0, 0, 0],
            id="a stop at exactly 3 %, and no new position although the score stays high",
        ),
        pytest.param(
            {"closes": [100, 100, 100, 103, 108, 120, 90], "take_profit": 0.08},
            [0, 1, 1, 1, 0, 0, 0],
            id="a target",
        ),
        pytest.param({"closes": [100] * 7, "max_holding": 3}, [0, 1, 1, 1, 0, 0, 0], id="three bars held"),
        pytest.param(
            {"closes": [100] * 7, "exits": [1, 1, 1, 0, -1, 1, 1]},
            [0, 1, 1, 1, 0, 0, 0],
            id="an exit score below 0, not at 0",
        ),
        pytest.param(
            {"closes": [100] * 7, "entry": [0, 1, 0, 1, 0, 0, 0], "max_holding": 3},
            [0, 1, 1, 1, 1, 1, 0],
            id="a new signal begins the time limit anew",
        ),
        pytest.param(
            {
                "closes": [100, 100, 100, 104, 104, 102, 102],
                "entry": [0, 1, 0, 1, 0, 0, 0],
                "stop_loss": 0.015,
            },
            [0, 1, 1, 1, 1, 0, 0],
            id="a new signal moves the stop to the new entry price",
        ),
        pytest.param(
            {"closes": [100, 100, 100, 97, 97, 97, 97], "entry": [0, 1, 0, -1, 0, 0, 0], "stop_loss": 0.02},
            [0, 1, 1, -1, -1, -1, -1],
            id="a signal at the close of the stop is taken",
        ),
        pytest.param(
            {"closes": [100] * 7, "entry": [0, -1, 0, 0, 0, 0, 0], "exits": [0, -1, -1, 1, 0, 0, 0]},
            [0, -1, -1, 0, 0, 0, 0],
            id="a short is out on a positive exit score",
        ),
    ],
)
def test_trades_end_as_worked_by_hand(given: dict[str, Any], expected: list[float]) -> None:
    assert sides(**given) == expected


def test_a_short_is_stopped_by_a_rise() -> None:
    given = {"entry": [0, -1, -1, -1, -1, -1], "exits": [-1] * 6, "stop_loss": 0.03}
    assert sides([100, 100, 100, 102, 103, 90], **given) == [0, -1, -1, -1, 0, 0]


def test_equal_prices_that_no_binary_fraction_holds_give_no_signal() -> None:
    bars = walk(0, outage=None)
    flat = replace(bars, **{name: np.full(len(bars), 0.1) for name in ("open", "high", "low", "close")})
    for family in RuleFamily:
        rule = rule_of(family)
        assert not rule.positions(rule.params.parse({"threshold": 1e-6}), flat).any()


@pytest.mark.parametrize("family", RuleFamily)
def test_every_parameter_has_a_range_that_holds_the_default_and_can_be_tuned(family: str) -> None:
    space = catalog.search_space(ModelType.OTHER, family)
    assert {"threshold", "stop_loss", "take_profit", "max_holding"} < space.keys()
    assert space.keys() == rule_of(family).params.model_fields.keys()
    for each in space.values():
        assert isinstance(each.values, Between)
        assert each.values.low <= each.default <= each.values.high


@pytest.mark.parametrize(
    ("family", "params", "problem"),
    [
        pytest.param("momentum", {"look_back": 0}, "momentum cannot be trained.*look_back", id="range"),
        pytest.param("momentum", {"stop_loss": 1}, "stop_loss", id="stop"),
        pytest.param("breakout", {"fast": 3}, "breakout.*fast.*Valid parameters: threshold", id="unknown"),
        pytest.param("ma_cross", {"fast": 90, "slow": 60}, "fast=90 is not below slow=60", id="crossed"),
    ],
)
def test_invalid_parameters_are_refused_by_name(family: str, params: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidTrainingParams, match=problem):
        recipe_of(family, params)


def test_too_few_bars_name_the_number_needed() -> None:
    recipe = recipe_of("ma_cross", {"slow": 400, "max_holding": 300})
    with pytest.raises(NotEnoughBars, match="ma_cross needs 700 bars, and there are 600") as refused:
        recipe.fit(walk(0, 600), seed=0)
    assert refused.value.needed == 700


def test_a_threshold_that_no_score_passes_is_refused_by_the_fit() -> None:
    with pytest.raises(InvalidTrainingParams, match=r"no position in 900 bars of WALK 1h.*threshold of 0\.7"):
        recipe_of("momentum", {"threshold": 0.7}).fit(walk(0), seed=0)


def test_stop_target_and_threshold_are_on_the_card_of_the_bundle(tmp_path: Path) -> None:
    recipe = recipe_of("momentum", {"stop_loss": "none", "threshold": 0.015})
    bars = walk(1, outage=None)
    save_bundle(recipe.fit(bars, seed=0), recipe, tmp_path / "bundle", bars)
    card = read_card(tmp_path / "bundle")
    assert {name: card.params[name] for name in ("stop_loss", "take_profit", "threshold")} == {
        "stop_loss": None,
        "take_profit": 0.09,
        "threshold": 0.015,
    }
    assert card.model_type is ModelType.OTHER
    assert card.plugin.name == "momentum"
    assert card.plugin.distribution == "continuous-learning-manager"
    assert card.libraries.keys() >= {"numba"}


def test_rules_are_members_of_an_ensemble(tmp_path: Path) -> None:
    members = [
        member(ModelType.OTHER, **CASES[family])
        | {"model_id": f"{family}_walk_1h", "asked": f"{family}_walk_1h@production", "plugin": family}
        for family in ("momentum", "breakout")
    ]
    recipe = recipe_of("ensemble", {"members": members, "weights": "2,1"})
    bars = walk(4, 2_500, outage=None)
    model = recipe.fit(bars, seed=0)
    save_bundle(model, recipe, tmp_path / "ensemble", bars)
    loaded = load_bundle(tmp_path / "ensemble")
    assert model.positions(bars).any()
    assert np.array_equal(loaded.positions(bars), model.positions(bars))
    made_by = [catalog.origin(part) for part in loaded.parts]
    assert [each and each.name for each in made_by] == ["momentum", "breakout"]


@pytest.fixture
def namesake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Metadata of a distribution clm-acme with a plug-in of the name of a rule strategy."""
    site = tmp_path / "site"
    metadata = site / "clm_acme-2.5.dist-info"
    metadata.mkdir(parents=True)
    (site / "clm_acme.py").write_text(
        "from clm_core.models.plugins import Plugin\n"
        "from clm_core.models.strategies import breakout\n"
        "class It(Plugin):\n"
        "  params, library = breakout.BreakoutParams, 'numba'\n"
        "  def recipe(self, params, costs): return breakout.KIND.recipe(params.model_dump(), costs)\n"
        "  def load(self, folder, card): return breakout.KIND.load(folder, card)\n"
    )
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: clm-acme\nVersion: 2.5\n")
    (metadata / "entry_points.txt").write_text("[clm.models]\nmomentum = clm_acme:It\nacme = clm_acme:It\n")
    monkeypatch.syspath_prepend(site)
    return metadata


def test_a_plug_in_named_like_a_rule_strategy_is_refused_and_does_no_harm_to_stored_rules(
    tmp_path: Path, namesake: Path
) -> None:
    with pytest.raises(PluginFailed, match="clm-acme offers a plug-in named momentum, and momentum is a b"):
        recipe_of("momentum", {})
    problems = [each.problem for each in offers() if str(each.kind) == "momentum"]
    assert len(problems) == 2
    assert all("uninstall clm-acme" in str(problem) for problem in problems)
    assert recipe_of("breakout", {}).describe()["look_back"] == 50
    hidden = namesake.rename(namesake.parent / "elsewhere")
    recipe = recipe_of("momentum", CASES["momentum"])
    bars = walk(2, outage=None)
    model = recipe.fit(bars, seed=0)
    save_bundle(model, recipe, tmp_path / "rule", bars)
    hidden.rename(namesake)
    assert np.array_equal(load_bundle(tmp_path / "rule").positions(bars), model.positions(bars))


def test_stored_versions_of_a_plug_in_named_like_a_rule_strategy_load_while_it_is_installed(
    tmp_path: Path, namesake: Path
) -> None:
    """A version registered before the name was that of a strategy."""
    recipe = recipe_of("acme", CASES["breakout"])
    bars = walk(3, outage=None)
    fitted = recipe.fit(bars, seed=0)
    save_bundle(fitted, recipe, tmp_path / "acme", bars)
    card = read_card(tmp_path / "acme")
    stored = card.model_copy(update={"plugin": card.plugin.model_copy(update={"name": "momentum"})})
    model = catalog.load(tmp_path / "acme", stored)
    assert np.array_equal(model.positions(bars), fitted.positions(bars))
    assert catalog.tolerance(model) == 0.0
    shutil.rmtree(namesake)
    with pytest.raises(PluginMissing, match=r"pip install 'clm-acme==2\.5'"):
        catalog.load(tmp_path / "acme", stored)
