"""Attribution of profits: tables that add up, and splits worked by hand."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from panels import START, a_market, a_panel

from clm_core.backtest.pools import portfolio
from clm_core.backtest.terms import MarketTerms
from clm_core.domain.costs import Costs, HoldingCosts
from clm_core.domain.execution import Execution
from clm_core.domain.terms import TradingTerms
from clm_core.explain.attribution import Attribution, AttributionTable, attribution_of
from clm_core.explain.profit_parts import Profit, TradedMarket, TradedStretch, profit_of, together
from clm_core.market.bars import Bars, Floats
from clm_core.market.timeframes import Calendar, Timeframe

FREE = Costs(fee_bps=0.0, slippage_bps=0.0)
DEAR = TradingTerms(
    costs=Costs(fee_bps=10.0, slippage_bps=5.0),
    holding=HoldingCosts(funding_bps_per_8h=3.0, borrow_bps_per_year=900.0),
)
STOPS = Execution(stop_loss=0.01, take_profit=0.015, rebalance_band=0.05)


def gapped(symbol: str, bars: int, seed: int, first: int = 0) -> Bars:
    """Hourly bars of a random walk that jumps between closes and opens."""
    plain = a_market(symbol, bars, seed, first)
    opened = plain.open * np.exp(np.random.default_rng(seed + 100).normal(0.0, 0.002, bars))
    return replace(plain, open=opened, high=np.maximum(plain.high, opened), low=np.minimum(plain.low, opened))


def by_hand(rows: list[tuple[float, float]]) -> Bars:
    """Hourly bars from opens and closes."""
    opened, close = (np.array(column) for column in zip(*rows, strict=True))
    time = START + Timeframe.H1.nanoseconds * np.arange(len(rows))
    high = np.maximum(opened, close)
    low = np.minimum(opened, close)
    return Bars("TEST", Timeframe.H1, Calendar.ALWAYS, time, opened, high, low, close, np.ones(len(rows)))


def traded(bars: Bars, positions: Floats, terms: TradingTerms = DEAR) -> TradedStretch:
    market = MarketTerms(terms)
    result = market.backtest(bars, positions)
    regime = (np.arange(len(bars)) // 40 % 5).astype(np.int8)
    return TradedStretch(bars, result.returns, [TradedMarket(bars, result, market, regime)], 1)


def free(bars: Bars, positions: list[float]) -> Profit:
    return profit_of([traded(bars, np.array(positions), TradingTerms(costs=FREE))])


def wild_positions(bars: int, seed: int) -> Floats:
    """Positions of every kind: flips, changes of size, flat and idle stretches."""
    rng = np.random.default_rng(seed)
    values = np.round(rng.uniform(-1.3, 1.3, bars), 1).clip(-1.0, 1.0)
    values[rng.random(bars) < 0.2] = 0.0
    return np.repeat(values, 3)[:bars]


def assert_adds_up(attribution: Attribution) -> None:
    for table in (attribution.split, attribution.months, *attribution.tables):
        assert sum(row.profit for row in table.rows) == pytest.approx(attribution.total, abs=1e-9), table.name
    for table in (attribution.split, attribution.months, *attribution.tables):
        assert sum(row.cost for row in table.rows) == pytest.approx(attribution.cost, abs=1e-9), table.name


@pytest.mark.parametrize(
    "terms",
    [
        pytest.param(TradingTerms(costs=FREE), id="free"),
        pytest.param(DEAR, id="fees, slippage, funding and borrow"),
        pytest.param(DEAR.model_copy(update={"execution": STOPS}), id="stops, targets and rebalancing"),
        pytest.param(DEAR.model_copy(update={"long_only": True}), id="long only"),
    ],
)
def test_every_table_adds_up_to_the_total_return(terms: TradingTerms) -> None:
    bars = gapped("SUMUSD", 900, 1)
    stretch = traded(bars, wild_positions(900, 2), terms)
    attribution = attribution_of(profit_of([stretch]))
    [market] = stretch.markets
    cash = terms.execution.initial_cash
    assert attribution.total == pytest.approx(market.result.equity[-1] / cash - 1.0, abs=1e-12)
    assert_adds_up(attribution)
    paid = (market.result.costs_paid + market.result.holding_costs) / cash
    assert attribution.cost == pytest.approx(paid, rel=2e-3)


def test_the_parts_of_each_trade_add_up_to_its_profit() -> None:
    terms = DEAR.model_copy(update={"execution": STOPS})
    stretch = traded(gapped("TRADEUSD", 900, 3), wild_positions(900, 4), terms)
    held = profit_of([stretch]).held
    trades = stretch.markets[0].result.trades
    by_trade = np.bincount(held.trade, held.profit, len(trades)) * terms.execution.initial_cash
    assert by_trade == pytest.approx(trades.pnl, abs=1e-7)
    assert set(np.unique(trades.reason)) >= {0, 1, 2}


def test_the_members_of_a_pool_add_up_to_the_portfolio() -> None:
    panel = a_panel(["AUSD", "BUSD", "CUSD"], 500)
    members = [gapped("AUSD", 500, 1), gapped("BUSD", 300, 2, first=200), gapped("CUSD", 500, 3)]
    market = MarketTerms(DEAR)
    results = [market.backtest(bars, wild_positions(len(bars), seed)) for seed, bars in enumerate(members)]
    whole = portfolio(panel.index_bars(), list(zip(members, results, strict=True)), 10_000.0)
    markets = [TradedMarket(bars, each, market) for bars, each in zip(members, results, strict=True)]
    attribution = attribution_of(profit_of([TradedStretch(panel.index_bars(), whole.returns, markets, 3)]))
    assert attribution.total == pytest.approx(whole.equity[-1] / 10_000.0 - 1.0, abs=1e-12)
    assert_adds_up(attribution)
    assert [row.name for row in attribution.table("symbol").rows] == ["AUSD", "BUSD", "CUSD"]


def test_successive_stretches_compound() -> None:
    bars = gapped("LIFEUSD", 600, 5)
    positions = wild_positions(600, 6)
    parts = [slice(0, 250), slice(250, 600)]
    stretches = [
        replace(traded(bars[rows], positions[rows]), owner=np.full(rows.stop - rows.start, name))
        for rows, name in zip(parts, ("v1", "v2"), strict=True)
    ]
    attribution = attribution_of(profit_of(stretches))
    grown = np.prod([np.prod(1.0 + each.returns) for each in stretches])
    assert attribution.total == pytest.approx(grown - 1.0, abs=1e-12)
    assert_adds_up(attribution)
    assert attribution.table("version").profit_of("v1") == pytest.approx(
        float(np.prod(1.0 + stretches[0].returns)) - 1.0, abs=1e-12
    )


def test_models_add_up_side_by_side() -> None:
    profits = [
        (name, profit_of([traded(gapped("TWOUSD", 300, seed), wild_positions(300, seed))]))
        for seed, name in enumerate(("one", "two"))
    ]
    attribution = attribution_of(together(profits), owners="model")
    assert_adds_up(attribution)
    assert [row.profit for row in attribution.table("model").rows] == pytest.approx(
        [profit.total for _, profit in profits], abs=1e-12
    )


def by_name(table: AttributionTable) -> dict[str, float]:
    return {row.name: row.profit for row in table.rows}


def test_a_constant_position_earns_by_selection_alone() -> None:
    closes = [100.0, *(100.0 * np.cumprod(np.tile([1.1, 0.9, 1.05], 200)) ** 0.1).tolist()]
    bars = by_hand([(100.0, 100.0), *pairwise(closes)])
    attribution = attribution_of(free(bars, [1.0] * len(bars)))
    assert attribution.total == pytest.approx(closes[-1] / 100.0 - 1.0)
    # in the market from the second bar on
    share = (len(bars) - 1) / len(bars)
    assert by_name(attribution.split) == pytest.approx(
        {
            "selection": share * attribution.total,
            "timing": (1 - share) * attribution.total,
            "sizing": 0.0,
            "cost": 0.0,
        }
    )


def test_right_sides_of_a_market_that_goes_nowhere_are_timing() -> None:
    # 100 -> 110 long, 110 -> 99 short, both by the whole capital
    bars = by_hand([(100.0, 100.0), (100.0, 110.0), (110.0, 99.0), (99.0, 99.0)])
    attribution = attribution_of(free(bars, [1.0, -1.0, 0.0, 0.0]))
    assert attribution.total == pytest.approx(1.1 * 1.1 - 1.0)
    # mean exposure over the four bars: (1 - 1) / 4
    assert by_name(attribution.split) == pytest.approx(
        {"selection": 0.0, "timing": 0.21, "sizing": 0.0, "cost": 0.0}, abs=1e-12
    )
    assert by_name(attribution.table("side")) == pytest.approx({"short": 0.11, "long": 0.1})
    assert by_name(attribution.table("entry")) == pytest.approx(
        {"from flat": 0.1, "flip from the other side": 0.11}
    )


def test_a_larger_position_in_the_better_bar_is_sizing() -> None:
    # 1.0 of the capital through +10 %, then half of it through two bars of 0 %
    bars = by_hand([(100.0, 100.0), (100.0, 110.0), (110.0, 110.0), (110.0, 110.0)])
    attribution = attribution_of(free(bars, [1.0, 0.5, 0.5, 0.5]))
    assert attribution.total == pytest.approx(0.1)
    # mean exposure (0 + 1 + 0.5 + 0.5) / 4, mean size (1 + 0.5 + 0.5) / 3
    assert by_name(attribution.split) == pytest.approx(
        {"selection": 0.05, "timing": 1 / 60, "sizing": 1 / 30, "cost": 0.0}, abs=1e-12
    )


def test_costs_of_a_market_that_stands_still_are_the_whole_result() -> None:
    bars = by_hand([(100.0, 100.0)] * 6)
    terms = TradingTerms(costs=Costs(fee_bps=10.0, slippage_bps=0.0))
    attribution = attribution_of(profit_of([traded(bars, np.array([1.0, 1.0, -1.0, -1.0, 0.0, 0.0]), terms)]))
    assert attribution.total < 0.0
    assert by_name(attribution.split) == pytest.approx(
        {"selection": 0.0, "timing": 0.0, "sizing": 0.0, "cost": attribution.total}, abs=1e-6
    )


def test_a_planted_hour_is_the_only_one_beyond_chance() -> None:
    rng = np.random.default_rng(7)
    hours = np.arange(24 * 120) % 24
    moves = rng.normal(0.0, 0.002, len(hours)) + np.where(hours == 14, 0.004, 0.0)
    close = 100.0 * np.cumprod(1.0 + moves)
    rows = [(100.0, float(close[0])), *((float(a), float(b)) for a, b in pairwise(close))]
    table = attribution_of(free(by_hand(rows), [1.0] * len(rows))).table("hour")
    assert [row.name for row in table.beyond_chance] == ["14:00"]
    [row] = table.beyond_chance
    assert row.mean == pytest.approx(0.004, abs=3 * row.error)
    assert row.error == pytest.approx(0.002 / np.sqrt(120), rel=0.2)
    assert row.count == 120


def test_two_trades_of_a_bar_count_as_one_bar() -> None:
    bars = by_hand([(100.0, 100.0)] * 8)
    profit = free(bars, [1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    attribution = attribution_of(profit)
    assert len(profit.held.time) == 13
    assert sum(row.count for row in attribution.table("hour").rows) == 7
    assert sum(row.count for row in attribution.table("side").rows) == 7


def test_a_ruined_short_loses_the_whole_capital() -> None:
    bars = by_hand([(100.0, 100.0), (100.0, 350.0), (350.0, 350.0), (350.0, 350.0)])
    attribution = attribution_of(profit_of([traded(bars, np.array([-1.0, -1.0, 1.0, 1.0]))]))
    assert attribution.total == -1.0
    assert_adds_up(attribution)
    assert by_name(attribution.table("exit")) == pytest.approx({"liquidation": -1.0})


def test_flat_positions_have_nothing_to_attribute() -> None:
    attribution = attribution_of(free(by_hand([(100.0, 100.0)] * 5), [0.0] * 5))
    assert (attribution.total, attribution.cost) == (0.0, 0.0)
    assert not attribution.table("side").rows
