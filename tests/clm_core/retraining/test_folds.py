"""Rows of a verdict about the folds, with what is degenerate by name."""

from datetime import UTC, datetime

import numpy as np
import pytest

from clm_core.backtest.metrics import sharpe_ratio
from clm_core.backtest.results import Backtest
from clm_core.backtest.terms import MarketTerms
from clm_core.backtest.walk_forward import FoldResult, fold_result
from clm_core.domain.terms import TradingTerms
from clm_core.market.bars import Bars
from clm_core.market.sources import MarketData
from clm_core.retraining import folds

GOOD = {"rounds": 40.0, "validation_log_loss": 0.690, "validation_log_loss_of_constant": 0.693}
ONE_TREE = {"rounds": 1.0, "validation_log_loss": 0.694, "validation_log_loss_of_constant": 0.693}


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Bars:
    market = MarketData(tmp_path_factory.mktemp("home"))
    return market.bars("BTCUSD", "1h", closed_by=datetime.now(UTC))[:1000]


@pytest.fixture(scope="module")
def run(bars: Bars) -> tuple[Backtest, list[FoldResult]]:
    """Three folds of 200 bars: one that trades, one that is flat, one that is long throughout."""
    swinging = np.resize(np.repeat([0.5, -0.5], 10), 200)
    positions = np.r_[swinging, np.zeros(200), np.full(200, 0.5)]
    fits = (GOOD, ONE_TREE, {})
    results = [
        fold_result(bars, slice(0, 376 + 200 * k), slice(400 + 200 * k, 600 + 200 * k), dict(fit))
        for k, fit in enumerate(fits)
    ]
    return MarketTerms(TradingTerms()).backtest(bars[400:], positions), results


def test_a_row_a_fold_has_the_fit_and_the_results_of_the_test_bars(
    bars: Bars, run: tuple[Backtest, list[FoldResult]]
) -> None:
    backtest, results = run
    first, flat, held = folds.summaries(backtest, bars[400:], results)
    assert (first.rounds, first.loss, first.loss_of_constant) == (40.0, 0.690, 0.693)
    assert first.skill == pytest.approx(1 - 0.690 / 0.693)
    assert first.sharpe_ratio == sharpe_ratio(backtest.returns[:200], bars.periods_per_year)
    assert (first.start, first.end) == (results[0].test_start, results[0].test_end)
    # the position of the last bar is entered at the first open of the next fold
    assert (first.trades, flat.trades, held.trades) == (20, 0, 1)
    assert flat.exposure < 0.01
    assert held.exposure == pytest.approx(0.5, abs=0.1)
    assert (held.rounds, held.skill) == (None, None)


def test_degenerate_folds_are_named(bars: Bars, run: tuple[Backtest, list[FoldResult]]) -> None:
    backtest, results = run
    first, flat, held = folds.summaries(backtest, bars[400:], results)
    assert first.remarks == ()
    assert flat.remarks == (
        "flat on 99.5% of the bars",
        "boosting stopped at the first tree",
        "the forecast is no better than a constant",
    )
    assert held.remarks == ("long on 99.0% of the bars",)


def test_the_folds_with_the_same_remark_share_a_sentence(
    bars: Bars, run: tuple[Backtest, list[FoldResult]]
) -> None:
    rows = folds.summaries(run[0], bars[400:], run[1])
    assert folds.degenerate((*rows, rows[1]))[1] == "Fold 2, 4 of 4: boosting stopped at the first tree."


def test_rows_of_a_longer_record_are_found_by_the_dates_of_the_folds(
    bars: Bars, run: tuple[Backtest, list[FoldResult]]
) -> None:
    backtest, results = run
    later = folds.summaries(backtest, bars[400:], results[1:])
    assert later == folds.summaries(backtest, bars[400:], results)[1:]
    # a fold before the first bar of the record has no results
    assert len(folds.summaries(backtest, bars[400:], [*results, results[0]])) == 4
    before = fold_result(bars, slice(0, 100), slice(200, 400), {})
    assert len(folds.summaries(backtest, bars[400:], [before, *results])) == 3


def test_a_fold_without_any_position_is_flat_on_every_bar(bars: Bars) -> None:
    backtest = MarketTerms(TradingTerms()).backtest(bars[400:], np.zeros(600))
    whole = fold_result(bars, slice(0, 376), slice(400, 1000), {})
    [row] = folds.summaries(backtest, bars[400:], [whole])
    assert row.remarks == ("flat on every bar",)
    assert row.cells[1:3] == ("-", "-")
