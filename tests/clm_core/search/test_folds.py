"""Folds computed one by one equal a whole walk-forward, and never include held-out bars."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_core.backtest.walk_forward import walk_forward
from clm_core.domain.costs import Costs
from clm_core.domain.execution import Execution
from clm_core.domain.kinds import Kind
from clm_core.domain.searches import Tuning
from clm_core.domain.vocabulary import ModelType
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.market.sources import MarketData
from clm_core.models import catalog
from clm_core.search.folds import SharedInputs, held_out, held_out_folds, run_fold, search_folds


def a_tuning(**changes: Any) -> Tuning:
    values: dict[str, Any] = {
        "name": "s",
        "model_type": ModelType.LIGHTGBM,
        "symbol": "BTCUSD",
        "timeframe": "1h",
        "dataset_span_days": 90,
        "data_snapshot": "5a" * 32,
        "holdout": 0.2,
        "fixed": {},
        "space": {},
        "seed": 0,
        "plan": WalkForwardPlan(folds=3),
        "costs": Costs(),
        "execution": Execution(),
        "trials": 1,
        "requested_by": "ada",
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return Tuning.model_validate(values | changes)


@pytest.mark.parametrize(
    ("model_type", "params"),
    [
        (ModelType.LIGHTGBM, {"rounds": 5, "threshold": 0.0}),
        (ModelType.NHITS, {"steps": 4, "check_steps": 2, "warm_start_steps": 2, "full_edge": 0.01}),
    ],
    ids=["each fold anew", "each fold continues the one before"],
)
def test_folds_computed_one_by_one_give_the_positions_of_a_walk_forward(
    model_type: ModelType, params: dict[str, Any], tmp_path: Path
) -> None:
    bars = MarketData(tmp_path).bars("BTCUSD", "1h", days=70, closed_by=datetime.now(UTC))
    # as a search records them
    params = catalog.requested_params(model_type, params)
    tuning = a_tuning(model_type=model_type, holdout=0.0)
    fold_plan = search_folds(len(bars), tuning)
    shared_inputs = SharedInputs(Kind(model_type), Costs(), bars)
    fold_by_fold = [run_fold(shared_inputs, fold_plan.fold(number, params, seed=0)) for number in range(3)]
    stored = catalog.stored_params(model_type, params)
    whole = walk_forward(catalog.recipe(model_type, stored, Costs()), bars, tuning.plan, seed=0)
    assert np.array_equal(np.concatenate(fold_by_fold), whole.positions[whole.rows])


@given(
    n_bars=st.integers(500, 5000),
    holdout=st.floats(0.01, 0.5),
    folds=st.integers(1, 9),
    embargo=st.integers(0, 20),
)
def test_a_search_tests_no_held_out_bar_and_the_held_out_run_tests_all_of_them(
    n_bars: int, holdout: float, folds: int, embargo: int
) -> None:
    tuning = a_tuning(holdout=holdout, plan=WalkForwardPlan(folds=folds, embargo_bars=embargo))
    seen = n_bars - held_out(n_bars, tuning)
    assert search_folds(n_bars, tuning).folds[-1][1].stop == seen
    held_out_rows = [test for _, test in held_out_folds(n_bars, tuning).folds]
    assert [row for test in held_out_rows for row in range(test.start, test.stop)] == list(
        range(seen, n_bars)
    )


def test_studies_differ_only_in_fields_that_make_results_incomparable() -> None:
    began = a_tuning()
    assert began.changes(a_tuning(requested_by="bob", trials=9)) == {}
    assert began.changes(a_tuning(holdout=0.1)) == {"holdout": (0.2, 0.1)}
