"""Activity of the registered model: its own positions on its newest training bars, kept in the bundle."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clm_core.domain.costs import Costs
from clm_core.domain.errors import BundleCorrupt
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars, Floats
from clm_core.market.panel import Panel
from clm_core.models import activity, golden
from clm_core.models.bundle import load_bundle, save_bundle
from clm_core.models.catalog import pooling, recipe
from clm_core.models.pooled import fit_pool

FLAT: dict[str, Any] = {
    "label": "sign",
    "horizon": 24,
    "threshold": 0.4,
    "calibrate": False,
    "uniqueness_weights": False,
    "rounds": 1,
    "sizing": "none",
}
"""A single tree, whose probabilities vary and never leave the threshold: no position on any bar."""


def saved(bars: Bars, folder: Path, params: dict[str, Any]) -> Path:
    made = recipe(ModelType.LIGHTGBM, params, Costs())
    save_bundle(made.fit(bars, seed=1), made, folder / "bundle", bars)
    return folder / "bundle"


@pytest.mark.parametrize(
    ("positions", "side", "share"),
    [
        (np.zeros(100), "flat", 0.0),
        (np.r_[np.full(98, 0.009), np.full(2, 1.0)], "flat", 0.02),
        (np.r_[np.full(50, -0.001), np.full(50, 0.002)], "short", 0.5),
        (np.r_[np.full(96, 0.2), np.zeros(4)], "long", 0.04),
        (np.r_[np.full(60, -0.5), np.full(40, 0.5)], "short", 0.4),
        (np.linspace(0.3, 1.0, 100), "long", 0.0),
    ],
    ids=["flat", "all but flat", "small", "mostly long", "both sides", "long in changing sizes"],
)
def test_the_active_share_counts_bars_on_another_side_than_the_commonest(
    positions: Floats, side: str, share: float
) -> None:
    measured = activity.activity_of(positions)
    assert (measured.commonest_side, measured.active_share) == (side, pytest.approx(share))


@pytest.mark.parametrize(("active", "refused"), [(4, True), (5, False)])
def test_fewer_than_five_active_bars_in_a_hundred_are_a_problem(active: int, refused: bool) -> None:
    positions = np.r_[np.full(100 - active, 0.2), np.full(active, -0.2)]
    assert (activity.activity_of(positions).problem is not None) is refused


def test_the_bundle_records_the_positions_on_the_newer_half_of_the_training(
    bars: Bars, tmp_path: Path
) -> None:
    folder = saved(bars, tmp_path, {"rounds": 5})
    positions = load_bundle(folder).positions(bars)
    recorded = activity.read(folder)
    assert recorded == activity.activity_of(positions[len(bars) // 2 :])
    assert recorded is not None
    assert recorded.bars == len(bars) - len(bars) // 2
    assert activity.problem_of(folder) is None


def test_a_pool_is_measured_on_the_tails_of_all_members(bars: Bars) -> None:
    panel = Panel("POOL", (bars,))
    model = fit_pool(pooling(recipe(ModelType.LIGHTGBM, {"rounds": 5}, Costs())), panel, seed=1)
    assert activity.measure(model, panel).bars == len(bars) - len(bars) // 2


def test_a_single_tree_without_a_position_never_trades_though_its_probabilities_vary(
    bars: Bars, tmp_path: Path
) -> None:
    folder = saved(bars, tmp_path, FLAT)
    golden.preflight(load_bundle(folder), folder)
    assert activity.never_trades(folder)
    assert activity.problem_of(folder) == (
        "the fitted model is flat on 100.0% of the newest 1,485 training bars"
    )


def test_a_bundle_of_an_earlier_release_is_judged_by_its_golden_rows(bars: Bars, tmp_path: Path) -> None:
    flat = saved(bars, tmp_path / "flat", FLAT)
    active = saved(bars, tmp_path / "active", {"rounds": 5})
    for folder in (flat, active):
        (folder / activity.FILE).unlink()
    assert activity.problem_of(flat) == activity.FLAT_GOLDEN_ROWS
    assert activity.never_trades(flat)
    assert activity.problem_of(active) is None


def test_a_bundle_without_any_record_is_left_to_the_preflight(tmp_path: Path) -> None:
    assert activity.problem_of(tmp_path) is None


def test_an_unreadable_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / activity.FILE).write_text('{"bars": 0}')
    with pytest.raises(BundleCorrupt, match=r"activity\.json is no record .* or train the model again"):
        activity.read(tmp_path)
