"""Objectives of rule strategies against the functions that serving and the walk-forward call."""

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest

from clm_core.backtest.engine import RepeatedBacktest, backtest
from clm_core.backtest.metrics import max_drawdown, profit_factor, sharpe_ratio, win_rate
from clm_core.backtest.terms import MarketTerms
from clm_core.decisions.gate import promotion_score
from clm_core.domain.costs import Costs, HoldingCosts
from clm_core.domain.errors import NotEnoughBars
from clm_core.domain.execution import Execution
from clm_core.domain.sizing import Sizing
from clm_core.domain.strategy_search import Objective
from clm_core.domain.terms import TradingTerms
from clm_core.domain.vocabulary import RuleFamily
from clm_core.evidence.trials import daily_sums
from clm_core.evolution.combinatorial import COLUMNS, TestSets, lower_quartile
from clm_core.evolution.genome import default_genome
from clm_core.evolution.nsga2 import SearchRules, search
from clm_core.evolution.rule_objectives import RuleObjectives
from clm_core.market.bars import Bars, Floats
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.models.sizing import side_sizes, size_positions, size_sides
from clm_core.models.strategies.families import RULES
from clm_core.models.strategies.rules import SIZING

N_BARS = 3_000
TRADED = slice(600, 2_700)
MOMENTUM = RULES[RuleFamily.MOMENTUM]
TERMS = TradingTerms(
    costs=Costs(fee_bps=3, slippage_bps=1),
    holding=HoldingCosts(funding_bps_per_8h=0.5),
    execution=Execution(rebalance_band=0.02),
)
MARKETS = {
    "both sides": MarketTerms(TERMS),
    "long only": MarketTerms(TERMS.model_copy(update={"long_only": True})),
}

families = pytest.mark.parametrize("family", RULES)


@pytest.fixture(scope="module")
def bars() -> Bars:
    """Hourly bars with two outages."""
    rng = np.random.default_rng(5)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.006, N_BARS)))
    opens = np.concatenate([[100.0], close[:-1]]) * np.exp(rng.normal(0, 0.0005, N_BARS))
    high = np.maximum(opens, close) * 1.002
    low = np.minimum(opens, close) * 0.998
    hours = 438_288 + np.arange(N_BARS) + 40 * (np.arange(N_BARS) > 900) + 90 * (np.arange(N_BARS) > 2_000)
    time = hours * Timeframe.H1.nanoseconds
    return Bars("COIN", Timeframe.H1, Calendar.ALWAYS, time, opens, high, low, close, np.ones(N_BARS))


def candidates(objectives: RuleObjectives, count: int) -> Floats:
    return objectives.genes.random(count, np.random.default_rng(7))


@families
@pytest.mark.parametrize("market", MARKETS.values(), ids=MARKETS)
def test_a_candidate_is_measured_as_a_version_with_its_parameters_is_served(
    bars: Bars, family: RuleFamily, market: MarketTerms
) -> None:
    assert len(list(bars.stretches())) == 3
    rule = RULES[family]
    objectives = RuleObjectives(rule, market, bars, TRADED)
    values = candidates(objectives, 6)
    measured = objectives.metrics(values)
    sets = TestSets.of(TRADED.stop - TRADED.start)
    traded = 0
    for genome, metrics in zip(objectives.genes.genomes(objectives.space, values), measured, strict=True):
        given = dict(zip(objectives.space, genome, strict=True))
        known = bars[: TRADED.stop]
        sides = rule.positions(rule.params.parse(given), known)
        positions = market.tradable(size_positions(known, sides, SIZING))
        assert np.array_equal(objectives.targets(given), positions)
        result = market.backtest(bars[TRADED], positions[TRADED])
        traded += len(result.trades.net_return)
        for place, (first, second) in enumerate(sets.groups):
            kept = np.r_[
                sets.bounds[first] : sets.bounds[first + 1], sets.bounds[second] : sets.bounds[second + 1]
            ]
            closed = result.trades.net_return[np.isin(result.trades.exit_bar, kept)]
            sharpe = sharpe_ratio(result.returns[kept], bars.periods_per_year)
            won = win_rate(closed)
            factor = profit_factor(closed)
            drawdown = max_drawdown(result.returns[kept])
            expected = [sharpe, drawdown, won, factor, promotion_score(sharpe, won, factor)]
            assert metrics[place] == pytest.approx(expected, rel=1e-8, abs=1e-12, nan_ok=True)
    assert traded > 20


def test_scores_are_lower_quartiles_of_the_objectives_asked_for(bars: Bars) -> None:
    pair = (Objective.PROFIT_FACTOR, Objective.SHARPE_RATIO)
    objectives = RuleObjectives(MOMENTUM, MARKETS["both sides"], bars, TRADED, pair)
    values = candidates(objectives, 20)
    expected = lower_quartile(objectives.metrics(values))[:, [COLUMNS.index(each) for each in pair]]
    scores = objectives(values)
    assert scores.shape == (20, 2)
    assert np.array_equal(scores, expected, equal_nan=True)
    assert np.isfinite(scores).any()


def test_daily_returns_are_sums_of_the_returns_of_the_backtest(bars: Bars) -> None:
    objectives = RuleObjectives(MOMENTUM, MARKETS["both sides"], bars, TRADED)
    [params] = [dict(zip(objectives.space, each, strict=True)) for each in [default_genome(objectives.space)]]
    result = objectives.backtest(params)
    days, daily = daily_sums(bars[TRADED].time, result.returns)
    assert np.array_equal(objectives.days, days)
    assert objectives.measure([params]).daily[0] == pytest.approx(daily, rel=1e-6)
    assert len(result.trades.net_return) > 10


def test_all_rows_can_be_a_single_test_set(bars: Bars) -> None:
    objectives = RuleObjectives(MOMENTUM, MARKETS["both sides"], bars, TRADED, groups=1, tested=1)
    params = dict(zip(objectives.space, default_genome(objectives.space), strict=True))
    result = objectives.backtest(params)
    [[metrics]] = objectives.measure([params]).metrics
    assert metrics[0] == pytest.approx(sharpe_ratio(result.returns, bars.periods_per_year))
    assert metrics[2] == pytest.approx(win_rate(result.trades.net_return))


@families
def test_bars_laid_aside_are_never_looked_at(bars: Bars, family: RuleFamily) -> None:
    changed = {name: getattr(bars, name).copy() for name in ("open", "high", "low", "close")}
    for column in changed.values():
        column[TRADED.stop :] = np.nan
    scores = []
    for each in (bars, replace(bars, **changed)):
        objectives = RuleObjectives(RULES[family], MARKETS["both sides"], each, TRADED)
        scores.append(objectives(candidates(objectives, 10)))
    assert np.array_equal(*scores, equal_nan=True)


@families
@pytest.mark.parametrize("threads", [2, 3])
def test_scores_do_not_depend_on_threads_or_on_the_other_candidates(
    bars: Bars, family: RuleFamily, threads: int
) -> None:
    alone = RuleObjectives(RULES[family], MARKETS["both sides"], bars, TRADED)
    several = RuleObjectives(RULES[family], MARKETS["both sides"], bars, TRADED, threads=threads)
    values = candidates(alone, 25)
    expected = np.concatenate([alone(values[place : place + 1]) for place in range(25)])
    assert np.array_equal(several(values), expected, equal_nan=True)
    assert several(values[:0]).shape == (0, 3)


def test_a_search_over_momentum_rules_finds_the_same_for_any_number_of_threads(bars: Bars) -> None:
    searches = []
    for threads in (1, 2):
        objectives = RuleObjectives(MOMENTUM, MARKETS["both sides"], bars, TRADED, threads=threads)
        searches.append(list(search(objectives.genes, SearchRules(30, 5, seed=2), objectives)))
    for one, other in zip(*searches, strict=True):
        assert one.genes.tobytes() == other.genes.tobytes()
        assert one.scores.tobytes() == other.scores.tobytes()
    assert searches[0][-1].hypervolume > searches[0][0].hypervolume


def test_parameters_that_are_not_searched_for_are_fixed(bars: Bars) -> None:
    rule = RULES[RuleFamily.VOLATILITY_TREND]
    objectives = RuleObjectives(rule, MARKETS["both sides"], bars, TRADED, fixed={"stop_loss": "none"})
    without = {name: each.default for name, each in objectives.space.items() if name != "stop_loss"}
    positions = rule.positions(rule.params.parse({"stop_loss": "none"}), bars[: TRADED.stop])
    expected = size_positions(bars[: TRADED.stop], positions, SIZING)
    assert np.array_equal(objectives.targets(without), expected)


def test_fewer_than_twenty_bars_to_trade_are_refused(bars: Bars) -> None:
    with pytest.raises(NotEnoughBars):
        RuleObjectives(MOMENTUM, MARKETS["both sides"], bars, slice(600, 619))


@pytest.mark.parametrize(
    "changes",
    [{}, {"long_only": True}, {"target_volatility": None, "max_position": 0.4}, {"no_trade_band": 0.0}],
    ids=str,
)
def test_sides_are_sized_as_positions_are(bars: Bars, changes: dict[str, float]) -> None:
    sizing = SIZING.model_copy(update=changes)
    rng = np.random.default_rng(8)
    sides = np.repeat(rng.integers(-1, 2, N_BARS // 10), 10).astype(float)
    sized = size_sides(sides, side_sizes(bars, sizing))
    assert np.array_equal(sized, size_positions(bars, sides, sizing))
    assert (np.abs(sized) > 0).any()


@pytest.mark.parametrize(
    "sizing", [Sizing(), SIZING.model_copy(update={"max_turnover": 50.0})], ids=["smoothed", "max_turnover"]
)
def test_sides_are_not_sized_by_a_sizing_that_changes_them(bars: Bars, sizing: Sizing) -> None:
    with pytest.raises(ValueError, match="without smoothing, scaling and max_turnover"):
        side_sizes(bars, sizing)


def test_a_repeated_backtest_is_that_of_a_single_one(bars: Bars) -> None:
    rng = np.random.default_rng(9)
    execution = Execution(stop_loss=0.03, rebalance_band=0.1)
    repeated = RepeatedBacktest(bars, TERMS.costs, execution)
    for _ in range(3):
        targets = np.repeat(rng.uniform(-1, 1, N_BARS // 20), 20)
        single = backtest(bars, targets, TERMS.costs, execution)
        returns, closed = repeated.run(targets)
        assert np.array_equal(returns, single.returns)
        assert np.array_equal(closed["exit_bar"], single.trades.exit_bar)
        assert np.array_equal(closed["net_return"], single.trades.net_return)


def test_scores_kept_are_freed_with_the_objectives(bars: Bars) -> None:
    objectives = RuleObjectives(MOMENTUM, MARKETS["both sides"], bars, TRADED)
    objectives(candidates(objectives, 3))
    gc.disable()
    try:
        owner = weakref.ref(objectives)
        del objectives
        assert owner() is None
    finally:
        gc.enable()
