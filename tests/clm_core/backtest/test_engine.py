"""Rules of the backtest engine, by cases small enough to work out by hand."""

import numpy as np
import pytest

from clm_core.backtest.engine import backtest, score_threshold, sma_crossover, sweep
from clm_core.backtest.metrics import summarise
from clm_core.backtest.results import Backtest, ExitReason
from clm_core.domain.costs import Costs
from clm_core.domain.errors import InvalidPositions, InvalidTrainingParams, NotEnoughBars
from clm_core.domain.execution import REBALANCE_BAND, Execution

FREE = Costs(fee_bps=0, slippage_bps=0)
COSTLY = Costs(fee_bps=100, slippage_bps=200)
FLAT_BAR = (100, 100, 100, 100)


def reasons(result: Backtest) -> list[ExitReason]:
    return [ExitReason(reason) for reason in result.trades.reason]


def test_a_position_fills_at_the_next_open(make_bars) -> None:
    bars = make_bars([(50, 50, 50, 50), (100, 120, 100, 110), (130, 140, 130, 140), (200, 200, 200, 200)])
    result = backtest(bars, np.array([1.0, 0.0, 0.0, 0.0]), FREE, Execution(initial_cash=1000))
    assert result.equity.tolist() == [1000, 1100, 1300, 1300]
    assert result.returns == pytest.approx([0, 0.1, 1300 / 1100 - 1, 0])
    assert result.exposure.tolist() == [0, 1, 0, 0]
    assert result.turnover == pytest.approx([0, 1, 1300 / 1100, 0])
    trades = result.trades
    assert (trades.entry_bar[0], trades.exit_bar[0], trades.bars[0], trades.direction[0]) == (1, 2, 1, 1)
    assert (trades.entry_price[0], trades.exit_price[0]) == (100, 130)
    assert trades.net_return[0] == pytest.approx(0.3)
    assert reasons(result) == [ExitReason.SIGNAL]


def test_the_target_of_the_last_bar_is_never_filled(make_bars) -> None:
    result = backtest(make_bars([FLAT_BAR] * 3), np.array([0.0, 0.0, 1.0]), FREE, Execution())
    assert len(result.trades) == 0
    assert result.equity.tolist() == [10_000] * 3


def test_an_open_trade_is_closed_at_the_last_close_with_costs(make_bars) -> None:
    bars = make_bars([FLAT_BAR, (100, 110, 100, 110)])
    result = backtest(bars, np.ones(2), COSTLY, Execution(initial_cash=10_000))
    units = 10_000 / (102 * 1.01)
    assert result.equity[-1] == pytest.approx(units * 110 * 0.98 * 0.99)
    assert reasons(result) == [ExitReason.END_OF_DATA]
    assert result.exposure[-1] == 0


def test_a_round_trip_pays_fee_and_slippage_on_both_sides(make_bars) -> None:
    result = backtest(make_bars([FLAT_BAR] * 3), np.array([1.0, 0.0, 0.0]), COSTLY, Execution())
    kept = 0.98 * 0.99 / (1.02 * 1.01)
    assert result.equity[-1] == pytest.approx(10_000 * kept)
    assert result.costs_paid == pytest.approx(10_000 * (1 - kept))
    assert result.trades.entry_price[0] == pytest.approx(102)
    assert result.trades.exit_price[0] == pytest.approx(98)


def test_a_full_position_spends_the_equity_and_no_more(make_bars) -> None:
    result = backtest(make_bars([FLAT_BAR] * 3), np.ones(3), COSTLY, Execution())
    assert result.exposure[1] == pytest.approx(1.0)


def test_a_target_that_stays_does_not_rebalance(make_bars) -> None:
    bars = make_bars([100, 100, 120, 90, 130, 130])
    result = backtest(bars, np.full(6, 0.5), FREE, Execution())
    assert np.flatnonzero(result.turnover).tolist() == [1, 5]


def test_with_a_band_a_position_that_drifted_is_brought_back_to_its_target_in_the_same_trade(
    make_bars,
) -> None:
    bars = make_bars([100, 100, 104, 150, 150, 150])
    fee = Costs(fee_bps=100, slippage_bps=0)
    result = backtest(bars, np.full(6, 0.5), fee, Execution(initial_cash=1000, rebalance_band=0.02))
    bought = 500 / 101
    # at the open of 104 exposure is 0.51: within the band
    assert np.flatnonzero(result.turnover).tolist() == [1, 4, 5]
    equity = 1000 - 101 * bought + 150 * bought
    kept = 0.5 * equity / 151.5
    assert result.turnover[4] == pytest.approx((bought - kept) * 150 / result.equity[3])
    assert len(result.trades) == 1
    assert result.trades.entry_price[0] == pytest.approx(100)


def test_a_constant_short_into_a_rise_of_110_per_cent_loses_half_and_is_never_ruined_with_a_band(
    make_bars,
) -> None:
    """A constant -1 is an exposure, not a number of units: 1 / 2.1 of the capital is left, less costs."""
    prices = 100 * 2.1 ** (np.arange(401) / 400)
    short = np.full(401, -1.0)
    banded = backtest(make_bars(prices), short, Costs(), Execution(rebalance_band=REBALANCE_BAND))
    fixed = backtest(make_bars(prices), short, Costs(), Execution())
    assert banded.equity[-1] == pytest.approx(4717, rel=0.005)
    assert np.abs(banded.exposure).max() < 1.03
    assert fixed.equity[-1] == 0
    assert reasons(fixed) == [ExitReason.RUIN]


def test_a_stop_stays_at_the_average_entry_when_a_position_is_rebalanced(make_bars) -> None:
    """Bought at 100, enlarged at 80 after a fall: the stop of 30 % is below the average entry."""
    bars = make_bars([(100, 100, 100, 100), (100, 100, 80, 80), (80, 80, 80, 80), (80, 80, 60, 60)])
    rules = Execution(initial_cash=1000, stop_loss=0.3, rebalance_band=0.01)
    result = backtest(bars, np.full(4, 0.5), FREE, rules)
    # 5 units at 100, then half of the equity of 900: 5.625 units
    average = (5 * 100 + 0.625 * 80) / 5.625
    assert result.trades.entry_price[0] == pytest.approx(average)
    assert result.trades.exit_price[0] == pytest.approx(0.7 * average)
    assert reasons(result) == [ExitReason.STOP_LOSS]


def test_a_partial_change_pays_costs_on_its_turnover_within_one_trade(make_bars) -> None:
    bars = make_bars([FLAT_BAR, FLAT_BAR, (200, 200, 200, 200), (200, 200, 200, 200), (200, 200, 200, 200)])
    fee = Costs(fee_bps=100, slippage_bps=0)
    result = backtest(bars, np.array([0.5, 0.25, 0.0, 0.0, 0.0]), fee, Execution(initial_cash=1000))
    bought = 500 / 101
    equity = 1000 - bought * 101 + bought * 200
    kept = 0.25 * equity / 202
    sold = bought - kept
    assert len(result.trades) == 1
    assert result.turnover[2] == pytest.approx(sold * 200 / result.equity[1])
    assert result.costs_paid == pytest.approx((bought * 100 + sold * 200 + kept * 200) * 0.01)
    assert result.trades.pnl[0] == pytest.approx(result.equity[-1] - 1000)
    assert result.trades.exit_bar[0] == 3
    assert result.trades.net_return[0] == pytest.approx(result.trades.pnl[0] / (bought * 100))


def test_the_average_entry_price_is_over_everything_bought(make_bars) -> None:
    bars = make_bars([FLAT_BAR, FLAT_BAR, (200, 200, 200, 200), (200, 200, 200, 200)])
    result = backtest(bars, np.array([0.5, 1.0, 1.0, 0.0]), FREE, Execution(initial_cash=1000))
    # 5 units at 100, then 1500 of equity are 7.5 units: 2.5 more at 200
    assert result.trades.entry_price[0] == pytest.approx((5 * 100 + 2.5 * 200) / 7.5)


def test_a_flip_ends_one_trade_and_starts_the_next_at_the_same_open(make_bars) -> None:
    bars = make_bars([FLAT_BAR, FLAT_BAR, (120, 120, 120, 120), (90, 90, 90, 90)])
    result = backtest(bars, np.array([1.0, -1.0, -1.0, 0.0]), FREE, Execution(initial_cash=1000))
    assert result.trades.direction.tolist() == [1, -1]
    assert result.trades.exit_bar.tolist() == [2, 3]
    assert result.trades.entry_bar.tolist() == [1, 2]
    assert result.equity.tolist() == [1000, 1000, 1200, 1500]


def test_lots_are_rounded_towards_zero(make_bars) -> None:
    bars = make_bars([(30, 30, 30, 30)] * 3)
    for target in (1.0, -1.0):
        result = backtest(bars, np.full(3, target), FREE, Execution(initial_cash=100, lot_size=1))
        assert result.exposure[1] == pytest.approx(target * 0.9)


def test_less_than_one_lot_is_no_trade(make_bars) -> None:
    bars = make_bars([FLAT_BAR] * 3)
    result = backtest(bars, np.ones(3), FREE, Execution(initial_cash=99, lot_size=1))
    assert len(result.trades) == 0


LONG = 1.0
SHORT = -1.0
STOP = ExitReason.STOP_LOSS
TAKE = ExitReason.TAKE_PROFIT


@pytest.mark.parametrize(
    ("target", "bar", "reason", "price"),
    [
        (LONG, (100, 101, 89, 95), STOP, 90),
        (LONG, (85, 88, 80, 88), STOP, 85),
        (LONG, (100, 125, 99, 110), TAKE, 120),
        (LONG, (130, 140, 125, 130), TAKE, 130),
        (LONG, (100, 125, 89, 110), STOP, 90),
        (SHORT, (100, 111, 99, 105), STOP, 110),
        (SHORT, (115, 118, 112, 118), STOP, 115),
        (SHORT, (100, 101, 79, 90), TAKE, 80),
        (SHORT, (70, 75, 65, 70), TAKE, 70),
        (SHORT, (100, 111, 79, 90), STOP, 110),
    ],
    ids=[
        "long stop inside the bar",
        "long stop gapped through fills at the worse open",
        "long target inside the bar",
        "long target gapped through fills at the better open",
        "long stop first when both could fill",
        "short stop inside the bar",
        "short stop gapped through fills at the worse open",
        "short target inside the bar",
        "short target gapped through fills at the better open",
        "short stop first when both could fill",
    ],
)
def test_stop_and_target_fill_inside_the_bar(make_bars, target, bar, reason, price) -> None:
    bars = make_bars([FLAT_BAR, FLAT_BAR, bar, FLAT_BAR])
    rules = Execution(stop_loss=0.1, take_profit=0.2)
    result = backtest(bars, np.full(4, target), FREE, rules)
    assert reasons(result) == [reason]
    assert result.trades.exit_bar[0] == 2
    assert result.trades.exit_price[0] == pytest.approx(price)


def test_a_stop_can_fill_in_the_bar_of_the_entry(make_bars) -> None:
    bars = make_bars([FLAT_BAR, (100, 100, 80, 100), FLAT_BAR])
    result = backtest(bars, np.ones(3), FREE, Execution(stop_loss=0.1))
    assert (result.trades.entry_bar[0], result.trades.exit_bar[0], result.trades.bars[0]) == (1, 1, 0)


def test_a_stop_pays_slippage_and_fee_too(make_bars) -> None:
    bars = make_bars([FLAT_BAR, FLAT_BAR, (100, 100, 80, 100), FLAT_BAR])
    result = backtest(bars, np.ones(4), COSTLY, Execution(stop_loss=0.1))
    assert result.trades.exit_price[0] == pytest.approx(102 * 0.9 * 0.98)


@pytest.mark.parametrize(
    ("after", "entries"),
    [([1.0, 0.5, 1.0], [1]), ([0.0, 1.0, 1.0], [1, 4]), ([-1.0, -1.0, -1.0], [1, 3])],
    ids=["same side stays blocked", "zero unblocks the side", "the other side is free"],
)
def test_after_a_stop_only_zero_or_the_other_sign_trades(make_bars, after, entries) -> None:
    bars = make_bars([FLAT_BAR, FLAT_BAR, (100, 100, 80, 100), FLAT_BAR, FLAT_BAR, FLAT_BAR])
    result = backtest(bars, np.array([1.0, 1.0, *after, 0.0]), FREE, Execution(stop_loss=0.1))
    assert result.trades.entry_bar.tolist() == entries


def test_a_resting_stop_fills_before_a_signal_at_the_same_open(make_bars) -> None:
    bars = make_bars([FLAT_BAR, FLAT_BAR, (85, 85, 85, 85), FLAT_BAR])
    result = backtest(bars, np.array([0.5, 1.0, 1.0, 0.0]), FREE, Execution(stop_loss=0.1))
    assert reasons(result) == [ExitReason.STOP_LOSS]


@pytest.mark.parametrize(
    "bar", [(100, 250, 100, 100), (300, 300, 300, 300)], ids=["inside the bar", "by a gap"]
)
def test_a_short_that_loses_everything_is_ruin_for_good(make_bars, bar) -> None:
    bars = make_bars([FLAT_BAR, FLAT_BAR, bar, FLAT_BAR, FLAT_BAR])
    result = backtest(bars, np.array([-1.0, -1.0, 0.0, 1.0, 1.0]), FREE, Execution(initial_cash=1000))
    assert result.equity.tolist() == [1000, 1000, 0, 0, 0]
    assert result.returns.tolist() == [0, 0, -1, 0, 0]
    assert reasons(result) == [ExitReason.RUIN]
    assert result.trades.pnl[0] == pytest.approx(-1000)
    assert result.trades.exit_price[0] == pytest.approx(200)


@pytest.mark.parametrize(
    "positions",
    [[0.0, 0.0], [0.0, np.nan, 0.0], [0.0, 1.01, 0.0], [np.inf, 0.0, 0.0], [[0.0], [0.0], [0.0]]],
    ids=["too short", "nan", "above 1", "infinite", "two-dimensional"],
)
def test_positions_of_the_wrong_shape_or_out_of_range_are_refused(make_bars, positions) -> None:
    with pytest.raises(InvalidPositions):
        backtest(make_bars([FLAT_BAR] * 3), np.array(positions), FREE, Execution())


def test_a_backtest_without_bars_is_refused(make_bars) -> None:
    with pytest.raises(NotEnoughBars):
        backtest(make_bars([FLAT_BAR])[:0], np.empty(0), FREE, Execution())


@pytest.fixture
def walk(make_bars):
    steps = np.random.default_rng(5).normal(0, 0.01, 800)
    return make_bars(100 * np.exp(np.cumsum(steps)))


def test_a_sweep_of_crossovers_equals_separate_backtests(walk) -> None:
    fast = np.array([2, 5, 10])
    slow = np.array([20, 30, 40])
    below = np.array([0.0, -1.0, -0.5])
    rules = [Execution(stop_loss=stop) for stop in (None, 0.02, 0.05)]
    results = sweep(sma_crossover(walk, fast, slow, below), COSTLY, rules)
    for i, metrics in enumerate(results):
        positions = np.zeros(len(walk))
        for t in range(slow[i] - 1, len(walk)):
            above = walk.close[t - fast[i] + 1 : t + 1].mean() > walk.close[t - slow[i] + 1 : t + 1].mean()
            positions[t] = 1.0 if above else below[i]
        assert metrics == summarise(backtest(walk, positions, COSTLY, rules[i]), walk.periods_per_year)


def test_a_sweep_of_thresholds_equals_separate_backtests(walk) -> None:
    score = np.random.default_rng(6).uniform(size=len(walk))
    score[:50] = np.nan
    long_above = np.array([0.6, 0.8, np.inf])
    short_below = np.array([0.4, -np.inf, 0.3])
    results = sweep(score_threshold(walk, score, long_above, short_below), FREE, Execution())
    for metrics, high, low in zip(results, long_above, short_below, strict=True):
        positions = np.where(score > high, 1.0, np.where(score < low, -1.0, 0.0))
        assert metrics == summarise(backtest(walk, positions, FREE, Execution()), walk.periods_per_year)


def test_a_sweep_does_not_depend_on_the_number_of_threads(walk) -> None:
    fast, slow = np.meshgrid(np.arange(2, 12), np.arange(20, 50, 5))
    family = sma_crossover(walk, fast.ravel(), slow.ravel())
    assert sweep(family, FREE, Execution(), threads=1) == sweep(family, FREE, Execution(), threads=3)


@pytest.mark.parametrize(
    ("fast", "slow", "below"),
    [(0, 5, 0), (5, 5, 0), (2.5, 5, 0), (np.nan, 5, 0), (2, 5, -1.5), (2, 5, np.nan)],
)
def test_impossible_crossovers_are_refused(walk, fast, slow, below) -> None:
    with pytest.raises(InvalidTrainingParams):
        sma_crossover(walk, fast, slow, below)


@pytest.mark.parametrize(("long_above", "short_below"), [(0.4, 0.6), (np.nan, 0.1), (0.5, np.nan)])
def test_impossible_thresholds_are_refused(walk, long_above, short_below) -> None:
    with pytest.raises(InvalidTrainingParams):
        score_threshold(walk, np.zeros(len(walk)), long_above, short_below)


def test_a_sweep_takes_a_single_execution_or_an_execution_per_set(walk) -> None:
    with pytest.raises(InvalidTrainingParams):
        sweep(sma_crossover(walk, [2, 3, 4], 10), FREE, [Execution(), Execution()])
