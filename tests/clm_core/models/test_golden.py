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
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars, Floats
from clm_core.models import golden
from clm_core.models.catalog import recipe
from clm_core.models.contract import Model, TrainedOn


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
