"""Weights given and fitted; the members implement only what an ensemble uses."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from clm_core.domain.costs import HoldingCosts, MarketCosts
from clm_core.domain.displayed_params import readable
from clm_core.domain.errors import BundleCorrupt, InvalidTrainingParams, NotEnoughBars
from clm_core.domain.execution import FIXED_UNITS
from clm_core.domain.sizing import Sizing
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars, Floats
from clm_core.market.carry import holding_rates
from clm_core.market.regimes import regimes, with_regimes
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.models import catalog
from clm_core.models.bundle import load_bundle, read_card, save_bundle
from clm_core.models.contract import Progress, TrainedOn
from clm_core.models.ensemble import (
    BundledMember,
    EnsembleModel,
    EnsembleParams,
    EnsembleRecipe,
    Member,
    best_members,
    net_returns,
    sharpe_ratios,
    stacked,
)
from clm_core.models.sizing import SizedModel

FREE = MarketCosts(fee_bps=0, slippage_bps=0)
NAMES = ("xgboost_btcusd_1h@v1", "lightgbm_btcusd_1h@v2")


def waves(n: int = 600) -> Bars:
    """A price that swings with a period of 40 bars, so that moves persist for a while."""
    price = 100 * np.exp(0.05 * np.sin(np.arange(n) * 2 * np.pi / 40))
    start = np.datetime64("2025-01-01", "ns").astype(np.int64)
    time = start + np.arange(n) * Timeframe.H1.nanoseconds
    columns = dict.fromkeys(("open", "high", "low", "close"), price)
    return Bars("BTCUSD", Timeframe.H1, Calendar.ALWAYS, time, **columns, volume=np.ones(n))


def bumps(n: int) -> Bars:
    """A random walk."""
    price = 100 * np.exp(np.cumsum(np.random.default_rng(3).normal(0, 0.01, n)))
    return replace(waves(n), **dict.fromkeys(("open", "high", "low", "close"), price))


@dataclass(frozen=True, eq=False)
class Says:
    """A model with the positions of a rule."""

    rule: Any
    trained_on: TrainedOn
    train_metrics: dict[str, float] = field(default_factory=dict)
    learning_curve: tuple[float, ...] = ()
    model_type: ModelType = ModelType.XGBOOST
    forecasts: Any = None
    bars_needed: int = 1

    def positions(self, bars: Bars) -> Floats:
        return np.asarray(self.rule(bars), dtype=np.float64)

    def forecast(self, bars: Bars) -> Floats:
        return np.full(len(bars), np.nan) if self.forecasts is None else np.array(self.forecasts)

    def importances(self) -> dict[str, float]:
        return {}

    def save(self, folder: Path) -> None:
        (folder / "rule.txt").write_text("")


@dataclass(frozen=True)
class Fits:
    """A recipe; `make` returns the rule for the training bars."""

    make: Any
    model_type: ModelType = ModelType.XGBOOST

    def describe(self) -> dict[str, Any]:
        return {}

    def fit(self, bars: Bars, seed: int, progress: Progress | None = None) -> Says:
        return Says(self.make(bars), TrainedOn.of(bars, seed))


def follower(trained: Bars) -> Any:
    """A rule that holds the sign of the last bar's move."""
    return lambda bars: np.sign(np.diff(bars.close, prepend=bars.close[:1]))


def last_move(bars: Bars) -> Floats:
    """A signal in proportion to the last bar's move."""
    return np.clip(150 * np.diff(np.log(bars.close), prepend=np.log(bars.close[:1])), -1.0, 1.0)


def rememberer(trained: Bars) -> Any:
    """A rule that knows the next move of every training bar, and of no other bar."""
    moves = np.sign(np.append(trained.open[2:] / trained.open[1:-1] - 1, [0, 0]))
    known = dict(zip(trained.time.tolist(), moves.tolist(), strict=True))

    def rule(bars: Bars) -> list[float]:
        return [known.get(time, (-1.0) ** row) for row, time in enumerate(bars.time.tolist())]

    return rule


def sleeper(trained: Bars) -> Any:
    return lambda bars: np.zeros(len(bars))


def contrarian(trained: Bars) -> Any:
    return lambda bars: -follower(trained)(bars)


def ensemble(*makes: Any, costs: MarketCosts = FREE, **params: Any) -> EnsembleRecipe:
    members = [
        Member(asked=name, model_id=name.split("@")[0], version=name.split("@")[1], **rest)
        for name, rest in zip(
            [f"m{number}_btcusd_1h@v1" for number in range(len(makes))],
            [{"model_type": "xgboost", "params": {}, "bundle_digest": "0" * 64}] * len(makes),
            strict=True,
        )
    ]
    parsed = EnsembleParams.parse({"members": members, **params})
    return EnsembleRecipe(parsed, costs, tuple(map(Fits, makes)))


@pytest.mark.parametrize("combine", ["vote", "stack"])
def test_weight_goes_to_members_that_earn_out_of_fold_and_not_to_members_that_memorise(combine: str) -> None:
    model = ensemble(rememberer, follower, combine=combine).fit(waves(), seed=0)
    assert model.weights[1] > 0.9
    measured = model.train_metrics
    assert measured["out_of_fold_sharpe.m1_btcusd_1h.v1"] > 10
    assert measured["weight.m1_btcusd_1h.v1"] == model.weights[1]


@pytest.mark.parametrize("combine", ["vote", "stack"])
def test_an_ensemble_stays_flat_if_no_member_earns(combine: str) -> None:
    model = ensemble(contrarian, sleeper, combine=combine).fit(waves(), seed=0)
    assert model.weights == (0.0, 0.0)
    assert not model.positions(waves()).any()
    assert np.isnan(model.forecast(waves())).all()


def test_costs_reduce_the_results_of_a_member() -> None:
    dear = MarketCosts(fee_bps=500, slippage_bps=0)
    assert ensemble(follower, sleeper, costs=FREE).fit(waves(), seed=0).weights == (1.0, 0.0)
    assert ensemble(follower, sleeper, costs=dear).fit(waves(), seed=0).weights == (0.0, 0.0)


def test_given_weights_are_normalised_and_no_member_is_fitted_twice() -> None:
    fitted = []

    def counted(trained: Bars) -> Any:
        fitted.append(len(trained))
        return follower(trained)

    model = ensemble(counted, sleeper, weights="1,3").fit(waves(), seed=0)
    assert model.weights == (0.25, 0.75)
    assert fitted == [600]
    assert np.array_equal(model.positions(waves()), 0.25 * follower(waves())(waves()))


def test_members_are_fitted_on_no_bar_used_for_the_weights() -> None:
    seen = []

    def watched(trained: Bars) -> Any:
        def rule(bars: Bars) -> Floats:
            seen.append((len(trained), len(bars)))
            return np.zeros(len(bars))

        return rule

    ensemble(watched, sleeper, folds=3).fit(waves(600), seed=0)
    # the model itself is asked for its golden rows
    assert [each for each in seen if each[0] < 600] == [(240, 360), (360, 480), (480, 600)]


def test_stacked_weights_are_the_tangency_portfolio() -> None:
    rng = np.random.default_rng(1)
    covariance = np.array([[1.0, 0.3], [0.3, 2.0]]) * 1e-4
    means = np.array([0.0010, 0.0015])
    returns = rng.multivariate_normal(means, covariance, size=200_000)
    tangency = np.linalg.solve(covariance, means)
    weights = stacked(returns, ridge=0.0)
    assert weights / weights.sum() == pytest.approx(tangency / tangency.sum(), abs=0.02)


@given(
    returns=arrays(np.float64, (50, 3), elements=st.floats(-0.125, 0.125)),
    other=arrays(np.float64, 3, elements=st.floats(0, 1)),
)
def test_stacked_weights_have_the_best_ratio(returns: Floats, other: Floats) -> None:
    def ratio(weights: Floats) -> float:
        mixed = returns @ weights
        size = float(np.sqrt(np.mean(mixed**2)))
        return float(mixed.mean()) / size if size > 1e-9 else 0.0

    assert ratio(stacked(returns, ridge=0.0)) >= ratio(other) - 1e-6


def test_a_ridge_equalises_the_weights_of_correlated_members() -> None:
    rng = np.random.default_rng(2)
    one = rng.normal(0.001, 0.01, 2_000)
    returns = np.column_stack([one, one + rng.normal(0, 0.0005, 2_000)])
    bare, equalised = (stacked(returns, ridge) for ridge in (0.0, 1.0))
    assert abs(equalised[0] / equalised.sum() - 0.5) < 0.05 < abs(bare[0] / bare.sum() - 0.5)


def test_a_return_is_the_move_after_the_next_open_less_the_costs_of_the_trade() -> None:
    bars = waves(5)
    prices = np.array([100.0, 100.0, 110.0, 99.0, 99.0])
    bars = Bars(bars.symbol, bars.timeframe, bars.calendar, bars.time, *([prices] * 4), volume=bars.volume)
    positions = np.array([[1.0, 0.0], [-1.0, 0.5], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    returns = net_returns(bars, positions, MarketCosts(fee_bps=6, slippage_bps=4))
    assert returns == pytest.approx(
        np.array([[0.1 - 0.001, 0.0], [0.1 - 0.002, -0.05 - 0.0005], [-0.001, -0.0005]])
    )


def test_a_return_pays_the_constant_costs_of_holding_and_a_long_only_market_has_no_shorts() -> None:
    bars = waves(30)
    prices = np.full(30, 100.0)
    bars = Bars(bars.symbol, bars.timeframe, bars.calendar, bars.time, *([prices] * 4), volume=bars.volume)
    positions = np.tile([1.0, -0.5], (30, 1))
    holding = HoldingCosts(funding_bps_per_8h=2, borrow_bps_per_year=8760)
    free = {"fee_bps": 0, "slippage_bps": 0}
    rates = holding_rates(bars, holding)
    assert rates is not None
    paid = net_returns(bars, positions, MarketCosts(**free, holding=holding))
    assert paid[:, 0] == pytest.approx(-rates.long[2:])
    assert paid[:, 1] == pytest.approx(-0.5 * rates.short[2:])
    long_only = net_returns(bars, positions, MarketCosts(**free, holding=holding, long_only=True))
    assert long_only[:, 0].tolist() == paid[:, 0].tolist()
    assert not long_only[:, 1].any()


def test_a_flat_member_has_a_sharpe_ratio_of_zero() -> None:
    assert sharpe_ratios(np.zeros((5, 2))).tolist() == [0.0, 0.0]


def bundled_member(name: str, forecasts: list[float], position: float) -> BundledMember:
    trained = TrainedOn.of(waves(4), 0)
    model = Says(lambda bars: np.full(len(bars), position), trained, forecasts=forecasts)
    return BundledMember(name, "0" * 64, model, {})


def test_a_forecast_is_the_weighted_mean_of_the_available_forecasts() -> None:
    nan = float("nan")
    first = bundled_member("a", [0.2, nan, 0.4, nan], 1.0)
    second = bundled_member("b", [0.6, 0.6, nan, nan], -1.0)
    model = EnsembleModel((first, second), (0.25, 0.75), TrainedOn.of(waves(4), 0), {})
    assert model.forecast(waves(4)) == pytest.approx([0.5, 0.6, 0.4, nan], nan_ok=True)
    assert model.positions(waves(4)).tolist() == [-0.5] * 4


def test_a_member_trained_on_later_bars_than_the_ensemble_is_refused() -> None:
    recipe = ensemble(follower, sleeper, weights="1,1")
    later = BundledMember("m0_btcusd_1h@v1", "0" * 64, Says(sleeper, TrainedOn.of(waves(600), 0)), {})
    with pytest.raises(NotEnoughBars, match="m0_btcusd_1h@v1 was trained on bars up to 2025-01-25 23:00"):
        recipe.with_bundled([later, later]).fit(waves(500), seed=0)


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        pytest.param({}, "name at least 2 versions", id="none"),
        pytest.param({"members": "a@b"}, "name at least 2 versions", id="one"),
        pytest.param({"members": "a,c@d"}, "'a' names no version: write MODEL@LABEL", id="no label"),
        pytest.param({"members": "a@b,../c@d"}, "names no version", id="a path"),
        pytest.param({"members": "a@b,a@b"}, "named twice", id="twice"),
        pytest.param(
            {"members": "a@b,c@d", "combine": "mix"}, "'vote', 'stack' or 'regime'", id="no such way"
        ),
        pytest.param({"members": "a@b,c@d", "weights": "1,2,3"}, "3 weights for 2 members", id="count"),
        pytest.param({"members": "a@b,c@d", "weights": "1,-2"}, "at least 0", id="negative"),
        pytest.param({"members": "a@b,c@d", "weights": "0,0"}, "not all of them 0", id="nothing"),
        pytest.param({"members": "a@b,c@d", "weights": "1,nan"}, "finite number", id="NaN"),
        pytest.param({"members": "a@b,c@d", "weights": "1,2", "combine": "stack"}, "itself", id="both"),
        pytest.param({"members": "a@b,c@d", "best": 1}, "combine=regime, or leave it out", id="no pools"),
        pytest.param(
            {"members": "a@b", "members_from": "market"}, "name at least 2 versions", id="one of all"
        ),
    ],
)
def test_parameters_are_refused_by_name(params: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidTrainingParams, match=problem):
        catalog.recipe(ModelType.ENSEMBLE, params, MarketCosts())


def test_an_ensemble_of_ensembles_is_refused() -> None:
    nested = ensemble(follower, sleeper).describe()["members"][0] | {"model_type": "ensemble"}
    with pytest.raises(InvalidTrainingParams, match="m0_btcusd_1h@v1 is an ensemble itself"):
        catalog.recipe(ModelType.ENSEMBLE, {"members": [nested, "a@b"]}, MarketCosts())


def test_unresolved_members_cannot_be_fitted() -> None:
    recipe = catalog.recipe(ModelType.ENSEMBLE, {"members": "a@b,c@d"}, MarketCosts())
    with pytest.raises(InvalidTrainingParams, match="as at the opening of a job"):
        recipe.fit(waves(), seed=0)


def test_readable_parameters_list_members_by_name() -> None:
    displayed = readable(ModelType.ENSEMBLE, ensemble(follower, sleeper).describe())
    assert displayed["members"] == "m0_btcusd_1h@v1, m1_btcusd_1h@v1"
    assert readable(ModelType.OTHER, {"members": 3}) == {"members": 3}


def test_a_changed_file_of_a_member_is_refused_by_both_digests(bars: Bars, tmp_path: Path) -> None:
    member = {"model_type": "lightgbm", "params": {"rounds": 3}, "bundle_digest": "0" * 64}
    parts = [name.split("@") for name in NAMES]
    members = [
        {"asked": name, "model_id": model_id, "version": label, **member}
        for name, (model_id, label) in zip(NAMES, parts, strict=True)
    ]
    recipe = catalog.recipe(ModelType.ENSEMBLE, {"members": members, "weights": [1, 1]}, MarketCosts())
    digest = save_bundle(recipe.fit(bars, seed=0), recipe, tmp_path / "bundle", bars)
    loaded = load_bundle(tmp_path / "bundle", digest)
    assert isinstance(loaded.inner, EnsembleModel)
    (tmp_path / "bundle" / "member1.trees.txt").write_text("tree\n")
    with pytest.raises(BundleCorrupt, match=r"member1\.trees\.txt was changed"):
        load_bundle(tmp_path / "bundle", digest)
    with pytest.raises(BundleCorrupt, match=r"trees\.txt was changed"):
        catalog.load(tmp_path / "bundle", read_card(tmp_path / "bundle"))


def phases() -> Bars:
    """Days in phases of 200: calm ones whose moves go on, turbulent ones whose moves are taken back."""
    rng = np.random.default_rng(5)
    turbulent = np.arange(1_600) // 200 % 2 == 1
    moves = np.zeros(1_600)
    for day in range(1, 1_600):
        again = -0.6 if turbulent[day] else 0.6
        moves[day] = again * moves[day - 1] + rng.normal(0, 0.03 if turbulent[day] else 0.006)
    close = 100 * np.exp(np.cumsum(moves))
    opened = np.append(100.0, close[:-1])
    time = np.datetime64("2020-01-01", "ns").astype(np.int64) + np.arange(1_600) * Timeframe.D1.nanoseconds
    edges = np.maximum(opened, close), np.minimum(opened, close)
    bars = Bars("BTCUSD", Timeframe.D1, Calendar.ALWAYS, time, opened, *edges, close, np.ones(1_600))
    return with_regimes(bars, bars)


def test_each_regime_has_the_pool_of_the_members_that_earn_in_it() -> None:
    bars = phases()
    model = ensemble(follower, contrarian, sleeper, combine="regime", best=2).fit(bars, seed=0)
    assert model.by_regime is not None
    assert model.by_regime.weights == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    measured = model.train_metrics
    assert measured["out_of_fold_sharpe_calm.m0_btcusd_1h.v1"] > 1
    assert measured["out_of_fold_sharpe_turbulent.m0_btcusd_1h.v1"] < 0
    assert measured["weight_turbulent.m1_btcusd_1h.v1"] == 1.0
    shares = measured["out_of_fold_share_calm"], measured["out_of_fold_share_turbulent"]
    assert sum(shares) == pytest.approx(1.0)
    assert model.weights == pytest.approx((*shares, 0.0))
    labels = model.by_regime.reader.labels(bars)
    follows = follower(bars)(bars)
    expected = np.select([labels == 0, labels == 1], [follows, -follows], 0.0)
    assert np.array_equal(model.positions(bars), expected)
    assert np.array_equal(model.convictions(bars), expected)
    known = regimes(bars).labels[-400:]
    assert np.mean(labels[-400:] == known) > 0.8


def test_the_pools_of_a_fold_are_chosen_on_its_training_bars() -> None:
    bars = phases()
    pools = ensemble(follower, contrarian, combine="regime")
    model = pools.fit(bars[:1_200], seed=0)
    changed = replace(bars, close=np.append(bars.close[:1_200], bars.close[1_200:] * 2))
    again = pools.fit(with_regimes(changed, changed)[:1_200], seed=0)
    assert again.by_regime == model.by_regime
    assert again.train_metrics == model.train_metrics


def test_pools_need_the_bars_that_tell_a_regime() -> None:
    with pytest.raises(NotEnoughBars, match="151 bars to train on, and a regime is told from 152"):
        ensemble(follower, sleeper, combine="regime").fit(phases()[:151], seed=0)


def test_a_regime_with_few_bars_out_of_fold_has_the_pool_of_all_bars() -> None:
    # calm throughout
    bars = phases()[:600]
    bars = replace(bars, regime_fits=np.empty((0, 0)))
    model = ensemble(follower, contrarian, combine="regime").fit(bars, seed=0)
    assert model.by_regime is not None
    assert model.by_regime.weights[0] == model.by_regime.weights[1]
    assert model.train_metrics["out_of_fold_share_turbulent"] == 0.0


@pytest.mark.parametrize(
    ("ratios", "best", "weights"),
    [
        ([0.5, 2.0, 1.0], 2, [0.0, 0.5, 0.5]),
        ([0.5, 2.0, 1.0], 20, [1 / 3, 1 / 3, 1 / 3]),
        ([0.5, -2.0, 0.0], 2, [1.0, 0.0, 0.0]),
        ([1.0, 1.0, 1.0], 1, [1.0, 0.0, 0.0]),
        ([-1.0, 0.0], 2, [0.0, 0.0]),
    ],
)
def test_the_best_members_with_gains_share_a_pool_equally(
    ratios: list[float], best: int, weights: list[float]
) -> None:
    assert best_members(np.array(ratios), best).tolist() == weights


def test_an_ensemble_without_pools_is_described_and_stored_as_before(tmp_path: Path) -> None:
    described = ensemble(follower, sleeper, combine="stack").describe()
    assert not {"best", "members_from"} & described.keys()
    pooled = ensemble(follower, sleeper, combine="regime", members_from="market").describe()
    assert (pooled["best"], pooled["members_from"]) == (2, "market")
    ensemble(follower, sleeper, weights="1,1").fit(waves(), seed=0).save(tmp_path)
    assert "by_regime" not in (tmp_path / "ensemble.json").read_text()


def test_provenance_is_that_of_the_weights() -> None:
    model = ensemble(follower, sleeper, weights="1,1").fit(waves(), seed=4)
    assert model.trained_on.seed == 4
    assert model.trained_on.end == datetime(2025, 1, 25, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    "member_sizing", [Sizing(no_trade_band=2.0), None], ids=["sized members", "members of older releases"]
)
@pytest.mark.parametrize(
    "own_sizing", [Sizing(smoothing_half_life=0.0, no_trade_band=2.0), None], ids=["sized", "not sized"]
)
def test_an_ensemble_needs_the_bars_of_the_answers_it_combines_and_a_bar_less_changes_a_position(
    own_sizing: Sizing | None, member_sizing: Sizing | None
) -> None:
    """A sized ensemble combines signals, which need no bars for the positions that its members would hold."""
    bars = bumps(6_000)
    inner = Says(last_move, TrainedOn.of(bars, seed=0), bars_needed=2)
    member = BundledMember("m", "0" * 64, SizedModel(inner, member_sizing, FIXED_UNITS), {})
    combined = EnsembleModel((member, member), (0.5, 0.5), inner.trained_on, {})
    model = SizedModel(combined, own_sizing, FIXED_UNITS)
    needed = model.bars_needed
    assert needed is not None
    whole = model.positions(bars)
    # the last bars before the positions held start anew; 1970-01-01 was a Thursday
    hours = bars.time // Timeframe.H1.nanoseconds + 3 * 24
    ends = np.flatnonzero((hours + 1) % Sizing().anchor_bars == 0)
    ends = [int(end) + 1 for end in ends if end > needed]
    assert all(model.positions(bars[end - needed : end])[-1] == whole[end - 1] for end in ends)
    assert any(model.positions(bars[end - needed + 1 : end])[-1] != whole[end - 1] for end in ends)
