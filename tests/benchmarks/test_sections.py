"""Sections of `make bench` at a small size.

Peers stay out of the environment of the tests: what needs vectorbt, raptorbt, polars, crepes, jumpmodels or
hmmlearn is imported here and type-checked by mypy, and the part of ours runs. Sections with torch, servers,
commands or trainings, seconds each, run in `make chaos` (see also the tests of lock and registry).
"""

from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import bare_script, run, strategy_search, whole_job
from benchmarks.made_bars import bars_of
from benchmarks.table import Row

SMALL: dict[str, dict[str, Any]] = {
    "gaps": {"N_BARS": 3_000, "OUTAGES": (1, 24), "PLACES": range(600, 700, 100)},
    "tree_shap": {"N_ROWS": 20, "N_TREES": 4, "TRAINING_ROWS": 400, "ROUNDS": 1},
}
"""Sizes of a run in a fraction of a second, by section."""
LONGER: dict[str, dict[str, Any]] = {
    "evidence": {"N_BARS": 300, "RESAMPLES": 40, "REPEATS": 1, "AGREEMENT": np.inf},
    "pools": {"N_BARS": 1_600, "SYMBOLS": 2, "ROUNDS": 1, "PARAMS": {"rounds": 2}},
    "audit": {"ENTRIES": 20, "REPEATS": 1},
    "deliveries": {"EVENTS": 3},
    "long_series": {"N_BARS": 80_000},
    "weekly_retrains": {"WEEKS": 1},
    "looks": {"REPEATS": 1},
    "overhead": {"REPEATS": 1},
    "forecasting": {"BARS": 1_500, "PARAMS": {"steps": 4, "patience": 4}, "PREDICTED_BARS": 900, "ROUNDS": 1},
    "reinforcement": {"PLAYED": 4_096, "SEEDS": range(1), "ROUNDS": 1},
}


def small(name: str, sizes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    module = import_module(f"benchmarks.{name}")
    for constant, value in sizes.items():
        monkeypatch.setattr(module, constant, value)
    return list(module.rows())


@pytest.mark.parametrize("name", SMALL)
def test_a_section_without_peers_is_measured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = small(name, SMALL[name], monkeypatch)
    assert measured
    assert all(len(row.cells()) == 9 for row in measured)


@pytest.mark.chaos
@pytest.mark.parametrize("name", LONGER)
def test_a_section_that_takes_seconds_is_measured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert small(name, LONGER[name], monkeypatch)


# the import of the gate draws the worlds of its tables
@pytest.mark.parametrize("name", sorted({*run.SECTIONS, *run.TABLES} - {"gate"}))
def test_every_part_is_imported_without_the_peers(name: str) -> None:
    module = import_module(f"benchmarks.{name}")
    assert name not in run.SECTIONS or callable(module.rows)


def test_the_engine_trades_as_backtesting_py_in_its_section() -> None:
    # not imported by every test process: backtesting.py draws with bokeh
    engine = import_module("benchmarks.engine")
    bars = bars_of(400)
    positions = 2 * engine.long_or_flat(bars.close, 5, 20) - 1
    positions[:20] = positions[-2:] = 0.0
    engine.check_backtesting(bars, positions)
    assert engine.positions_to_metrics(bars, positions)
    assert [len(each) for each in engine.parameter_sets()] == [1000, 1000]


def test_signals_for_raptorbt_are_the_changes_of_the_position() -> None:
    raptorbt_engine = import_module("benchmarks.raptorbt_engine")
    entries, exits = raptorbt_engine.signals(np.array([0.0, 1.0, 1.0, 0.0, 1.0]))
    assert entries.tolist() == [False, True, False, False, True]
    assert exits.tolist() == [False, False, False, True, False]
    close = bars_of(60).close
    rolling = pd.Series(close).rolling(7).mean().to_numpy()
    np.testing.assert_allclose(raptorbt_engine.means(close, 7), rolling, rtol=1e-12)
    assert len(raptorbt_engine.parameter_sets()[0]) == 184


def test_the_search_of_strategies_hands_its_candidates_to_vectorbt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategy_search, "N_BARS", 1_000)
    monkeypatch.setattr(strategy_search, "GENERATIONS", 2)
    [first, *_] = strategy_search.candidates_of(strategy_search.run(8, 1))
    assert {"look_back", "threshold", "stop_loss", "take_profit"} <= first[0].keys()


def test_the_bare_script_walks_forward_over_the_newest_bars(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(bare_script, "ROUNDS", 3)
    path = whole_job.write_bars(tmp_path, days=40)
    bars = pd.read_csv(path, index_col="time", parse_dates=["time"])
    positions = bare_script.walk_forward(bars)
    assert len(positions) == round(0.6 * len(bars))
    assert set(positions) <= {0.0, 1.0}
