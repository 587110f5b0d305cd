"""Tables of a verdict in the terminal, and the same rows in JSON and in the ledger."""

import json
from datetime import UTC, datetime

import pytest
from gate_cases import STRICT, trend_like
from rich.console import Console

from clm_core.cli.verdicts import verdict_tables
from clm_core.decisions import gate
from clm_core.domain.evaluations import FoldSummary, IntervalEstimate, Verdict
from clm_core.ledger.evaluations import stored_verdict

FOLD = FoldSummary(
    start=datetime(2025, 1, 1, tzinfo=UTC),
    end=datetime(2025, 3, 31, tzinfo=UTC),
    rounds=1.0,
    loss=0.694,
    loss_of_constant=0.693,
    sharpe_ratio=-0.2,
    exposure=0.0,
    trades=0,
    remarks=("flat on every bar",),
)
ROW = ("2025-01-01 to 2025-03-31", "1", "0.694", "-0.144%", "-0.20", "0.0%", "0", "flat on every bar")


@pytest.fixture(scope="module")
def verdict() -> Verdict:
    return gate.judge(trend_like(), STRICT).model_copy(update={"folds": (FOLD,)})


def printed(verdict: Verdict) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        for table in verdict_tables(verdict):
            console.print(table)
    return captured.get()


def test_the_terminal_has_a_row_a_fold_with_fit_results_and_what_is_degenerate(verdict: Verdict) -> None:
    text = printed(verdict)
    [row] = [line for line in text.splitlines() if "2025-01-01" in line]
    assert tuple(cell.strip() for cell in row.split("  ") if cell.strip()) == ROW
    assert all(name in text for name in ("rounds", "loss", "skill", "Sharpe ratio", "exposure", "trades"))


def test_a_table_without_rows_is_left_out(verdict: Verdict) -> None:
    without = verdict.model_copy(update={"folds": ()})
    assert len(verdict_tables(verdict)) == 2
    assert len(verdict_tables(without)) == 1


def test_a_ratio_has_its_interval_in_the_same_cell_and_stands_alone_without_one() -> None:
    measured = IntervalEstimate(value=-0.2, low=-4.0, high=3.5)
    assert FOLD.model_copy(update={"sharpe_interval": measured}).cells[4] == "-0.20 (-4.00 to 3.50)"
    assert FOLD.cells[4] == "-0.20"


def test_json_has_the_skill_of_a_fold_and_the_ledger_computes_it(verdict: Verdict) -> None:
    [fold] = verdict.model_dump(mode="json")["folds"]
    assert fold["skill"] == pytest.approx(1 - 0.694 / 0.693)
    stored = stored_verdict(verdict)
    assert "skill" not in stored["folds"][0]
    assert Verdict.model_validate(json.loads(json.dumps(stored))).folds == (FOLD,)
