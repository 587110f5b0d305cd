"""Degenerate trials: measured, counted and not ranked."""

from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from tunings import Threads, a_request, own_market, own_symbol, tune

from clm_core.backtest.results import Backtest
from clm_core.backtest.terms import MarketTerms
from clm_core.domain.errors import NothingTuned
from clm_core.domain.terms import TradingTerms
from clm_core.domain.tuning import TrialState
from clm_core.market.bars import Bars, Floats
from clm_core.search.degeneracy import degeneracy, min_trades
from clm_core.search.tuning_report import warning
from clm_core.search.workers import Failure
from clm_core.services import Services


@pytest.fixture(scope="module")
def bars(services: Services) -> Bars:
    return services.market.bars("BTCUSD", "1h", closed_by=services.clock())[-2000:]


def traded(bars: Bars, positions: Floats) -> Backtest:
    return MarketTerms(TradingTerms()).backtest(bars, positions)


@pytest.mark.parametrize(
    ("positions", "reason"),
    [
        (np.full(2000, 0.5), "degenerate: long on 100.0% of the bars"),
        (np.zeros(2000), "degenerate: flat on 100.0% of the bars"),
        (np.resize([4e-5, -4e-5], 2000), "degenerate: positions vary by 0, hardly at all"),
        (np.resize(np.repeat([0.5, -0.5], 400), 2000), "degenerate: 5 trades, 10 are asked for"),
        (np.resize(np.repeat([0.5, -0.5], 100), 2000), None),
    ],
    ids=["always long", "never trades", "hardly varies", "few trades", "trades"],
)
def test_a_trial_without_decisions_is_degenerate(bars: Bars, positions: Floats, reason: str | None) -> None:
    assert degeneracy(positions, [traded(bars, positions)]) == reason


def test_the_trades_are_the_mean_of_the_seeds(bars: Bars) -> None:
    few, many = (np.resize(np.repeat([0.5, -0.5], length), 2000) for length in (400, 10))
    runs = [traded(bars, few), traded(bars, many)]
    assert degeneracy(np.concatenate([few, many]), runs) is None


@pytest.mark.parametrize(("bars", "trades"), [(1000, 5), (3999, 19), (4000, 20), (30_000, 20)])
def test_short_searches_are_asked_for_a_trade_in_two_hundred_bars(bars: int, trades: int) -> None:
    assert min_trades(bars) == trades


class AlwaysLong(Threads):
    """Every model is long, except those of the second trial."""

    done = 0

    def result(self, future: Future[Floats]) -> Floats | Failure:
        positions = super().result(future)
        assert not isinstance(positions, Failure)
        self.done += 1
        # three folds a trial
        return positions if 3 < self.done <= 6 else np.ones_like(positions)


class OnlyLong(Threads):
    """Every model of every trial is long."""

    def result(self, future: Future[Floats]) -> Floats | Failure:
        positions = super().result(future)
        assert not isinstance(positions, Failure)
        return np.ones_like(positions)


def test_a_study_ranks_no_trial_that_is_always_long(services: Services, tmp_path: Path) -> None:
    clm = own_market(services, tmp_path)
    result = tune(clm, a_request(symbol=own_symbol(clm), holdout=0.0), kind=AlwaysLong)
    assert [trial.state for trial in result.trials] == [
        TrialState.DEGENERATE,
        TrialState.COMPLETE,
        TrialState.DEGENERATE,
    ]
    held = result.trials[0]
    assert held.cause == "degenerate: long on 100.0% of the bars"
    assert held.sharpe_ratio is not None
    assert (result.best, result.count(TrialState.DEGENERATE)) == (result.trials[1], 2)
    assert warning(result) == "The defaults are no yardstick: degenerate: long on 100.0% of the bars."
    records = clm.ledger.trials.records(result.symbol, result.timeframe)
    assert len(records) == 3, "degenerate trials are looks like any other"
    assert all(len(record.daily) for record in records)


def test_a_study_of_degenerate_trials_alone_names_the_reason(services: Services, tmp_path: Path) -> None:
    clm = own_market(services, tmp_path)
    with pytest.raises(NothingTuned, match=r"long on 100\.0% of the bars"):
        tune(clm, a_request(symbol=own_symbol(clm), holdout=0.0, trials=2), kind=OnlyLong)
