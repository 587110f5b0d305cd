"""Examples of versions have the form that MLflow gives them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.models.utils import _Example

from clm_core.registry import version_example

RNG = np.random.default_rng(3)


def table_of(rows: int) -> pd.DataFrame:
    times = pd.date_range("2026-01-01", periods=rows, freq="h").strftime("%Y-%m-%dT%H:%M:%SZ")
    prices = {name: RNG.normal(100, 1, rows) for name in ("open", "high", "low", "close")}
    volume = RNG.integers(0, 3, rows).astype(float)
    # an index that is not part of the example
    return pd.DataFrame({"timestamp": times, **prices, "volume": volume}, index=np.arange(rows) + 7)


@pytest.mark.parametrize("rows", [1, 2, 50])
def test_a_completed_example_has_the_bytes_that_mlflow_would_write(rows: int, tmp_path: Path) -> None:
    table = table_of(rows)
    last = _Example(table.tail(1))
    whole = _Example(table)
    last.save(str(tmp_path))
    assert version_example.can_be_completed(table)
    assert version_example.complete(tmp_path, last.info, table)
    assert last.info == whole.info
    assert (tmp_path / "input_example.json").read_text() == whole.json_input_example
    assert (tmp_path / "serving_input_example.json").read_text() == whole.json_serving_input
    assert len(json.loads((tmp_path / "input_example.json").read_text())["data"]) == rows


def test_an_example_of_another_form_stays_as_it_is(tmp_path: Path) -> None:
    table = table_of(5)
    last = _Example(table.tail(1))
    last.save(str(tmp_path))
    other = tmp_path / "serving_input_example.json"
    other.write_text(other.read_text() + "\n")
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert not version_example.complete(tmp_path, last.info, table)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


def test_missing_values_and_parameters_are_left_to_mlflow() -> None:
    table = table_of(5)
    missing = table.assign(sentiment=[0.1, np.nan, 0.2, 0.3, 0.4])
    assert not any(map(version_example.can_be_completed, (missing, (table, {"symbol": "BTCUSD"}), None)))
