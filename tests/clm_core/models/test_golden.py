"""Golden rows: a model whose answers differ from the time of saving is refused."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clm_core.domain.costs import Costs
from clm_core.domain.errors import BundleCorrupt, PreflightFailed
from clm_core.domain.execution import FIXED_UNITS
from clm_core.domain.sizing import Sizing
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars, Floats
from clm_core.models import golden
from clm_core.models.catalog import recipe
from clm_core.models.contract import Model, TrainedOn
from clm_core.models.sizing import SizedModel


@pytest.fixture(scope="module")
def model(bars: Bars) -> Model:
    return recipe(ModelType.LIGHTGBM, {"rounds": 5}, Costs()).fit(bars, seed=1)


@pytest.fixture
def folder(model: Model, bars: Bars, tmp_path: Path) -> Path:
    golden.record(model, bars, tmp_path)
    return tmp_path


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    rows = json.loads((folder / golden.FILE).read_text())
    change(rows)
    (folder / golden.FILE).write_text(json.dumps(rows))


def test_the_saved_model_passes_preflight(model: Model, folder: Path):
    golden.preflight(model, folder)


def test_the_last_bars_are_kept_bit_by_bit(model: Model, bars: Bars, folder: Path):
    rows = golden.GoldenRows.model_validate_json((folder / golden.FILE).read_bytes())
    assert rows.bars(model.trained_on).content_hash == bars[-golden.rows_of(model) :].content_hash


@pytest.mark.parametrize("column", ["positions", "forecast"])
def test_an_answer_that_differs_by_a_bit_is_found_and_located(
    column: str, model: Model, bars: Bars, folder: Path
):
    def change_last_bit(rows: dict[str, Any]) -> None:
        rows[column][-2] = float(np.nextafter(rows[column][-2], 2))

    edit(folder, change_last_bit)
    with pytest.raises(
        PreflightFailed,
        match=re.escape(f"on 1 of {golden.rows_of(model)} golden rows of BTCUSD, first at {bars.index[-2]}"),
    ):
        golden.preflight(model, folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.pop("positions"),
        lambda rows: rows["time"].pop(),
        lambda rows: [column.clear() for column in rows.values()],
        lambda rows: rows.update(close="cheap"),
    ],
    ids=["a column missing", "a row missing", "no rows", "no numbers"],
)
def test_a_file_without_valid_golden_rows_is_refused(
    change: Callable[[dict[str, Any]], None], model: Model, folder: Path
):
    edit(folder, change)
    with pytest.raises(BundleCorrupt, match="cannot be read as golden rows"):
        golden.preflight(model, folder)


def test_a_bundle_without_golden_rows_is_refused(model: Model, tmp_path: Path):
    with pytest.raises(PreflightFailed, match=r"no golden rows.*retrain"):
        golden.preflight(model, tmp_path)


@dataclass(frozen=True)
class Stubborn:
    """A model with constant answers, and only the members of a model that golden rows use."""

    model_type = ModelType.LIGHTGBM
    trained_on: TrainedOn
    position: float
    probability: float
    bars_needed = 1

    def positions(self, bars: Bars) -> Floats:
        return np.full(len(bars), self.position)

    def forecast(self, bars: Bars) -> Floats:
        return np.full(len(bars), self.probability)


@pytest.mark.parametrize(
    ("position", "probability"), [(0.0, 0.5), (1.0, np.nan)], ids=["never trades", "always long"]
)
def test_a_model_with_constant_answers_is_refused(
    position: float, probability: float, bars: Bars, tmp_path: Path
):
    stubborn: Any = Stubborn(TrainedOn.of(bars, seed=1), position, probability)
    golden.record(stubborn, bars, tmp_path)
    with pytest.raises(PreflightFailed, match=rf"answers {position:g} to every golden row"):
        golden.preflight(stubborn, tmp_path)


@dataclass(frozen=True)
class Seldom:
    """A policy that is short after the bars at the given times and flat at others, without forecasts."""

    model_type = ModelType.RL_V3
    trained_on: TrainedOn
    at: frozenset[int]
    bars_needed = 20
    base: float = 0.0
    """Signal at all other bars after the look-back."""

    def positions(self, bars: Bars) -> Floats:
        signal = np.where(np.isin(bars.time, list(self.at)), -1.0, self.base)
        signal[: self.bars_needed - 1] = 0.0
        return signal

    def forecast(self, bars: Bars) -> Floats:
        return np.full(len(bars), np.nan)


def after_an_anchor(bars: Bars, rows_before_the_end: int) -> int:
    """Time of a bar just after the position held starts anew; at the next anchor its signal is forgotten."""
    week = Sizing().anchor_bars
    # 1970-01-01 was a Thursday
    hours = bars.time // 3_600_000_000_000 + 3 * 24
    return int(bars.time[np.flatnonzero(hours[:-rows_before_the_end] % week == 1)[-1]])


def seldom(bars: Bars, at: int, sizing: Sizing | None, base: float = 0.0) -> SizedModel:
    inner: Any = Seldom(TrainedOn.of(bars, seed=1), frozenset({at}), base)
    return SizedModel(inner, sizing, FIXED_UNITS)


def test_a_policy_whose_rare_signals_stay_inside_the_no_trade_band_passes(bars: Bars, tmp_path: Path):
    model = seldom(bars, after_an_anchor(bars, 250), Sizing())
    assert not model.positions(bars).any()
    golden.record(model, bars, tmp_path)
    golden.preflight(model, tmp_path)


def test_a_hidden_signal_that_differs_is_found_and_located(bars: Bars, tmp_path: Path):
    model = seldom(bars, after_an_anchor(bars, 250), Sizing())

    def change(rows: dict[str, Any]) -> None:
        # a policy's tolerance is 1e-5
        rows["signal"][-2] += 1e-4

    golden.record(model, bars, tmp_path)
    edit(tmp_path, change)
    with pytest.raises(PreflightFailed, match=re.escape(f"golden rows of BTCUSD, first at {bars.index[-2]}")):
        golden.preflight(model, tmp_path)


@pytest.mark.parametrize("sizing", [Sizing(), None], ids=["sized", "positions are signals"])
def test_golden_rows_end_at_the_newest_change_of_a_policy_flat_in_all_last_bars(
    sizing: Sizing | None, bars: Bars, tmp_path: Path
):
    at = after_an_anchor(bars, 1_600)
    model = seldom(bars, at, sizing)
    golden.record(model, bars, tmp_path)
    golden.preflight(model, tmp_path)
    rows = golden.GoldenRows.model_validate_json((tmp_path / golden.FILE).read_bytes())
    # the change back to flat
    assert rows.time[-2:] == [at, at + bars.timeframe.nanoseconds]


def test_a_policy_saved_without_its_signal_by_an_earlier_release_is_judged_by_the_signal_it_gives(
    bars: Bars, tmp_path: Path
):
    model = seldom(bars, after_an_anchor(bars, 250), Sizing())
    golden.record(model, bars, tmp_path)
    edit(tmp_path, lambda rows: rows.pop("signal"))
    golden.preflight(model, tmp_path)


@pytest.mark.parametrize("base", [0.0, -1.0], ids=["always flat", "always short"])
def test_a_policy_with_one_signal_behind_constant_positions_is_refused(
    base: float, bars: Bars, tmp_path: Path
):
    """The rows without a full look-back, whose signal is 0, are no change of mind."""
    model = seldom(bars, at=0, sizing=Sizing(long_only=True), base=base)
    golden.record(model, bars, tmp_path)
    with pytest.raises(PreflightFailed, match="answers 0 to every golden row"):
        golden.preflight(model, tmp_path)


def test_golden_rows_that_vary_stay_readable_by_earlier_releases(folder: Path):
    assert "signal" not in json.loads((folder / golden.FILE).read_text())
