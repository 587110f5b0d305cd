"""Contract of pooled models: one fit, a view for each symbol, and no look ahead across symbols."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from panels import HOUR, START, a_market, a_panel

from clm_core.domain.costs import Costs
from clm_core.domain.errors import BundleCorrupt, FeatureMismatch, ModelError, NotEnoughBars, PreflightFailed
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars, Floats
from clm_core.market.look_ahead import first_leak
from clm_core.market.panel import Panel
from clm_core.models import catalog, golden
from clm_core.models.bundle import CARD, load_bundle, read_card, save_bundle
from clm_core.models.pooled import PooledModel, fit_pool
from clm_core.models.trees import boosting
from clm_core.models.trees.xgboost import XGBoostParams

SEED = 7
POOLING = [ModelType.XGBOOST, ModelType.LIGHTGBM]
QUICK: dict[str, Any] = {"rounds": 40, "horizon": 6, "threshold": 0.0, "min_child_weight": 10.0}


def fit(kind: ModelType, panel: Panel, **params: Any) -> PooledModel:
    return fit_pool(catalog.pooling(catalog.recipe(kind, QUICK | params, Costs())), panel, SEED)


@pytest.fixture(scope="module")
def panel() -> Panel:
    return Panel(
        "TRIO",
        (a_market("AAA", 1500, 1), a_market("BBB", 1200, 2, first=300), a_market("CCC", 900, 3)),
    )


@pytest.fixture(scope="module", params=POOLING, ids=str)
def fitted(request: pytest.FixtureRequest, panel: Panel) -> PooledModel:
    return fit(request.param, panel)


def test_each_view_is_a_model_of_its_own_series(fitted: PooledModel, panel: Panel) -> None:
    assert fitted.trained_on.symbol == "TRIO"
    assert fitted.trained_on.bars == panel.rows
    for bars in panel:
        view = fitted.member(bars.symbol)
        assert (view.trained_on.symbol, view.trained_on.data_hash) == (bars.symbol, bars.content_hash)
        positions = view.positions(bars)
        assert positions.shape == (len(bars),)
        assert (np.abs(positions) <= 1.0).all()
        assert fitted.positions(bars).tobytes() == positions.tobytes()
        assert len(np.unique(positions)) > 3


def test_a_symbol_outside_the_pool_is_refused_with_the_members(fitted: PooledModel, panel: Panel) -> None:
    other = replace(panel.members[0], symbol="DDD")
    for answer in (fitted.positions, fitted.forecast):
        with pytest.raises(FeatureMismatch, match="TRIO has no member DDD: give bars of one of AAA"):
            answer(other)


def test_no_position_of_a_member_changes_with_its_later_bars(fitted: PooledModel, panel: Panel) -> None:
    for bars in panel:
        newest = bars[-800:]
        assert first_leak(fitted.member(bars.symbol).positions, newest, [500]) is None


def test_the_last_bars_needed_give_the_positions_of_the_whole_history(
    fitted: PooledModel, panel: Panel
) -> None:
    needed = fitted.bars_needed
    assert needed is not None
    bars = panel["AAA"]
    assert fitted.positions(bars[-needed:])[-1] == fitted.positions(bars)[-1]


@pytest.mark.parametrize("kind", POOLING, ids=str)
def test_the_same_panel_and_seed_give_the_same_model(kind: ModelType, panel: Panel) -> None:
    one = fit(kind, panel, rounds=10)
    other = fit(kind, panel, rounds=10)
    for bars in panel:
        assert one.positions(bars).tobytes() == other.positions(bars).tobytes()


def test_a_saved_pool_gives_the_same_answers_for_every_member(
    fitted: PooledModel, panel: Panel, tmp_path: Path
) -> None:
    recipe = catalog.recipe(fitted.model_type, QUICK, Costs())
    digest = save_bundle(fitted, recipe, tmp_path / "pool", panel)
    loaded = load_bundle(tmp_path / "pool", digest)
    assert isinstance(loaded, PooledModel)
    assert loaded.symbols == panel.symbols
    assert loaded.trained_on == fitted.trained_on
    assert read_card(tmp_path / "pool").pool == tuple(each.trained_on for each in fitted.members)
    for bars in panel:
        assert loaded.positions(bars).tobytes() == fitted.positions(bars).tobytes()
    golden.preflight(loaded, tmp_path / "pool")
    assert [golden.member_file(number) for number in range(3)] == sorted(
        path.name for path in (tmp_path / "pool").iterdir() if golden.is_golden(path.name)
    )


def test_the_golden_rows_of_every_member_are_compared(
    fitted: PooledModel, panel: Panel, tmp_path: Path
) -> None:
    recipe = catalog.recipe(fitted.model_type, QUICK, Costs())
    save_bundle(fitted, recipe, tmp_path / "pool", panel)
    path = tmp_path / "pool" / golden.member_file(2)
    rows = golden.GoldenRows.model_validate_json(path.read_bytes())
    changed = [-position for position in rows.positions]
    path.write_text(rows.model_copy(update={"positions": changed}).model_dump_json())
    with pytest.raises(PreflightFailed, match="golden rows of CCC"):
        golden.preflight(fitted, tmp_path / "pool")
    with pytest.raises(BundleCorrupt, match=r"golden-2\.json was changed"):
        load_bundle(tmp_path / "pool")


def test_a_card_of_one_series_is_written_without_a_pool(tmp_path: Path) -> None:
    recipe = catalog.recipe(ModelType.XGBOOST, QUICK | {"rounds": 5}, Costs())
    bars = a_market("AAA", 1500, 1)
    save_bundle(recipe.fit(bars, SEED), recipe, tmp_path / "one", bars)
    assert '"pool"' not in (tmp_path / "one" / CARD).read_text()
    assert not isinstance(load_bundle(tmp_path / "one"), PooledModel)


@pytest.mark.parametrize("kind", [ModelType.NHITS, ModelType.RL_V3], ids=str)
def test_a_kind_that_cannot_pool_is_refused_with_those_that_can(kind: ModelType) -> None:
    with pytest.raises(ModelError, match=f"{kind.value} cannot fit .* choose one of xgboost, lightgbm"):
        catalog.pooling(catalog.recipe(kind, {}, Costs()))


@pytest.mark.parametrize("kind", POOLING, ids=str)
def test_a_pool_with_too_few_rows_is_refused(kind: ModelType) -> None:
    with pytest.raises(NotEnoughBars):
        fit(kind, a_panel(["AAA", "BBB"], 150))


@pytest.mark.parametrize("kind", POOLING, ids=str)
def test_a_members_bars_after_the_panels_end_change_nothing_in_the_fit(kind: ModelType, panel: Panel) -> None:
    """The fit of a cut panel is the fit of the same bars, whatever came later in any member."""
    end = START + 1200 * HOUR
    cut = panel.between(START, end)
    assert cut is not None
    other = Panel("TRIO", tuple(_other_future(bars, end) for bars in panel)).between(START, end)
    assert other is not None
    one = fit(kind, cut, rounds=10)
    same = fit(kind, other, rounds=10)
    for bars in cut:
        assert one.positions(bars).tobytes() == same.positions(bars).tobytes()


def _other_future(bars: Bars, end: int) -> Bars:
    later = bars.time >= end
    values: dict[str, Floats] = {
        name: np.where(later, getattr(bars, name) * 3.0, getattr(bars, name))
        for name in ("open", "high", "low", "close")
    }
    return replace(bars, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("calibrate", [True, False], ids=["calibrated", "not calibrated"])
def test_the_parts_of_a_fit_begin_at_the_same_moments_for_every_member(panel: Panel, calibrate: bool) -> None:
    params = XGBoostParams(horizon=6, calibrate=calibrate)
    parts = boosting._material(panel, params, 6).parts
    validated = min(each.member.bars.time[each.validation[0]] for each in parts if len(each.validation))
    calibrated = min(each.member.bars.time[each.calibration[0]] for each in parts if len(each.calibration))
    for each in parts:
        time = each.member.bars.time
        ends = time[each.member.label_end]
        assert (ends[each.fit] < validated).all()
        assert not calibrate or (ends[each.validation] < calibrated).all()
        assert (time[each.validation] >= validated).all()
    # CCC ends at hour 900 of 1,500: its labels are fitted on, and the newest rows are those of the others
    assert len(parts[2].calibration) == 0
    assert len(parts[2].fit) > 0


@pytest.mark.parametrize("kind", POOLING, ids=str)
def test_a_shared_edge_is_learnt_better_by_the_pool_than_by_one_symbol(kind: ModelType) -> None:
    """Weak momentum in eight markets: the forecasts of the pool correlate more with unseen returns."""
    params = {"horizon": 1, "rounds": 60, "learning_rate": 0.05, "features": "log_return_1,log_return_4"}
    panel = a_panel([f"M{number}" for number in range(8)], 2000, seed=40, momentum=0.1)
    trained = panel.between(START, START + 1000 * HOUR)
    assert trained is not None
    pool = fit(kind, trained, **params)
    recipe = catalog.recipe(kind, QUICK | params, Costs())
    gains = [
        skill(pool.member(bars.symbol).forecast(bars), bars)
        - skill(recipe.fit(bars[:1000], SEED).forecast(bars), bars)
        for bars in panel
    ]
    assert np.mean(gains) > 0.0
    assert np.mean([skill(pool.forecast(bars), bars) for bars in panel]) > 0.02


def skill(forecast: Floats, bars: Bars) -> float:
    """Correlation of the forecasts with the returns of the next bar, on the bars after the training."""
    returns = bars.open[2:] / bars.open[1:-1] - 1.0
    seen = forecast[1000:-2]
    return float(np.corrcoef(seen, returns[1000:])[0, 1]) if np.std(seen) else 0.0
