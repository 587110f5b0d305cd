"""Trading environments: the rules of the backtest engine, unbroken bars only, gymnasium's interface."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lazily import Lazily

from clm_core.backtest.engine import backtest
from clm_core.domain.costs import Costs, HoldingCosts
from clm_core.domain.execution import Execution
from clm_core.market.bars import Bars, Floats
from clm_core.market.carry import holding_rates
from clm_core.market.features import compute_features
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.models.policies.trading import MAX_UNREALISED, MIN_EQUITY, MarketArrays, TradingRules

if TYPE_CHECKING:
    from clm_core.models.policies.trading_env import TradingEnv, TradingEpisodes

trading_env: Any = Lazily("clm_core.models.policies.trading_env")
FREE = HoldingCosts()
FINE = 1 / 64
"""Step that is a power of two: rounding leaves multiples of the step exactly as they are."""


def episodes_of(
    bars: Bars, costs: Costs, discrete: bool = False, holding: HoldingCosts = FREE, **rules: float
) -> "TradingEpisodes":
    """A single feature, the bar's number, and a single episode over all of the bars."""
    features = np.arange(len(bars), dtype=np.float32)[:, None]
    length = len(bars) - 1
    starts = np.zeros(1, dtype=np.int64)
    trading_rules = TradingRules.at(costs, **{"step": FINE, "unit": 0.01} | rules)
    return trading_env.TradingEpisodes(
        features, MarketArrays.of(bars, holding), starts, length, trading_rules, discrete
    )


def made_bars(prices: Floats) -> Bars:
    """Bars from rows of (open, close), with wicks of 2 % on either side."""
    opens, closes = prices.T.copy()
    highs = np.maximum(opens, closes) * 1.02
    lows = np.minimum(opens, closes) / 1.02
    time = np.arange(len(prices), dtype=np.int64) * Timeframe.H1.nanoseconds
    return Bars("TEST", Timeframe.H1, Calendar.ALWAYS, time, opens, highs, lows, closes, np.ones(len(prices)))


@st.composite
def traded_bars(draw: st.DrawFn) -> tuple[Bars, Floats, Costs]:
    """Bars with jumps of scale `wildness` between and within bars, and a position for each bar."""
    n = draw(st.integers(2, 40))
    wildness = draw(st.sampled_from([0.01, 0.2, 1.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    prices = 100 * np.exp(np.cumsum(rng.normal(0, wildness, 2 * n))).reshape(n, 2)
    choices = draw(st.sampled_from([[-1.0, 1.0], [-1.0, 0.0, 1.0], np.arange(-64, 65) * FINE, [-1.0]]))
    positions = np.repeat(rng.choice(choices, n), rng.integers(1, 4, n))[:n]
    costs = Costs(fee_bps=draw(st.sampled_from([0, 5, 300])), slippage_bps=draw(st.sampled_from([0, 2, 150])))
    return made_bars(prices), positions.astype(float), costs


def played(env: "TradingEnv", positions: Floats) -> list[float]:
    env.reset(seed=0)
    rewards = []
    for position in positions[:-1]:
        _, reward, ruined, over, _ = env.step(np.array([position]))
        rewards.append(reward)
        if ruined or over:
            break
    return rewards


@given(episode=traded_bars())
def test_the_rewards_of_an_episode_sum_to_the_log_equity_of_the_backtest_engine(
    episode: tuple[Bars, Floats, Costs],
):
    bars, positions, costs = episode
    result = backtest(bars, positions, costs, Execution(initial_cash=1.0))
    rewards = played(trading_env.TradingEnv(episodes_of(bars, costs)), positions)
    assert sum(rewards) == pytest.approx(np.log(max(result.equity[-1], MIN_EQUITY)), abs=1e-9)
    known = np.log(np.maximum(result.equity, MIN_EQUITY))[1 : len(rewards) + 1]
    assert np.cumsum(rewards) == pytest.approx(known, abs=1e-9)


@given(
    episode=traded_bars(),
    funding=st.sampled_from([-900.0, -1.0, 1.0, 900.0]),
    borrow=st.sampled_from([0.0, 500.0, 90_000.0]),
)
def test_an_episode_pays_the_costs_of_holding_that_the_backtest_engine_charges(
    episode: tuple[Bars, Floats, Costs], funding: float, borrow: float
):
    bars, positions, costs = episode
    holding = HoldingCosts(funding_bps_per_8h=funding, borrow_bps_per_year=borrow)
    result = backtest(bars, positions, costs, Execution(initial_cash=1.0), holding_rates(bars, holding))
    rewards = played(trading_env.TradingEnv(episodes_of(bars, costs, holding=holding)), positions)
    known = np.log(np.maximum(result.equity, MIN_EQUITY))[1 : len(rewards) + 1]
    assert np.cumsum(rewards) == pytest.approx(known, abs=1e-9)


def test_a_long_only_episode_trades_a_short_target_as_no_position():
    bars = made_bars(np.array([[100.0, 101.0], [101.0, 90.0], [90.0, 120.0], [119.0, 118.0]]))
    positions = np.array([-1.0, 1.0, -0.5, 0.0])
    rewards = played(trading_env.TradingEnv(episodes_of(bars, Costs(), lowest=0.0)), positions)
    assert rewards == played(trading_env.TradingEnv(episodes_of(bars, Costs())), np.maximum(positions, 0.0))


def test_ruin_ends_an_episode_at_the_minimum_equity():
    wild = made_bars(np.array([[100.0, 100.0], [100.0, 150.0], [160.0, 230.0], [100.0, 90.0]]))
    short = np.full(4, -1.0)
    assert backtest(wild, short, Costs(), Execution(initial_cash=1.0)).equity[-1] == 0.0
    rewards = played(trading_env.TradingEnv(episodes_of(wild, Costs())), short)
    assert len(rewards) == 2
    assert sum(rewards) == pytest.approx(np.log(MIN_EQUITY))


@given(episode=traded_bars(), penalty=st.sampled_from([0.5, 2.0]))
def test_the_drawdown_penalty_subtracts_the_deepest_drawdown_of_the_episode_once(
    episode: tuple[Bars, Floats, Costs], penalty: float
):
    bars, positions, costs = episode
    plain = played(trading_env.TradingEnv(episodes_of(bars, costs)), positions)
    penalised = played(
        trading_env.TradingEnv(episodes_of(bars, costs, drawdown_penalty=penalty, reward_unit=0.1)), positions
    )
    wealth = np.concatenate([[0.0], np.cumsum(plain)])
    deepest = np.max(np.maximum.accumulate(wealth) - wealth)
    assert 0.1 * sum(penalised) == pytest.approx(sum(plain) - penalty * deepest, abs=1e-9)


@pytest.mark.parametrize("discrete", [False, True], ids=["any position", "short, flat, long"])
def test_the_environment_passes_the_checkers_of_gymnasium_and_stable_baselines(discrete: bool):
    bars = made_bars(np.full((30, 2), 100.0))
    from gymnasium.utils.env_checker import check_env as check_gymnasium_env
    from stable_baselines3.common.env_checker import check_env

    check_env(trading_env.TradingEnv(episodes_of(bars, Costs(), discrete)))
    check_gymnasium_env(trading_env.TradingEnv(episodes_of(bars, Costs(), discrete)), skip_render_check=True)


@pytest.mark.parametrize("discrete", [False, True], ids=["any position", "short, flat, long"])
def test_parallel_episodes_give_the_same_results_as_single_episodes(bars: Bars, discrete: bool):
    table = compute_features(bars)
    playable = replace(
        episodes_of(bars, Costs(), discrete, drawdown_penalty=0.3),
        features=table.values.astype(np.float32),
        starts=trading_env.episode_starts(bars, table.complete, 24),
        length=24,
    )
    rng = np.random.default_rng(3)
    parallel = trading_env.VectorTradingEnv(playable, 8, np.random.default_rng(5))
    single = [trading_env.TradingEnv(playable) for _ in range(8)]
    ends = 0
    observations = parallel.reset()
    rows = np.random.default_rng(5)

    def start(indices: list[int]) -> None:
        for index, row in zip(indices, rows.choice(playable.starts, len(indices)), strict=True):
            observation, _ = single[index].reset(options={"row": row})
            assert np.array_equal(observation, observations[index])

    start(list(range(8)))
    for _ in range(60):
        actions = rng.integers(0, 3, 8) if discrete else rng.uniform(-1, 1, (8, 1)).astype(np.float32)
        steps = [env.step(action) for env, action in zip(single, actions, strict=True)]
        observations, rewards, done, infos = parallel.step(actions)
        assert rewards.tolist() == [step[1] for step in steps]
        assert done.tolist() == [step[2] or step[3] for step in steps]
        last = [info.get("terminal_observation", observations[index]) for index, info in enumerate(infos)]
        assert np.array_equal(last, [step[0] for step in steps])
        assert [info.get("TimeLimit.truncated", False) for info in infos] == [step[3] for step in steps]
        ends += int(done.sum())
        start(np.flatnonzero(done).tolist())
    assert ends == 16


def test_no_episode_reaches_across_an_outage_or_into_rows_without_features(bars: Bars):
    complete = compute_features(bars).complete
    length = 100
    starts = trading_env.episode_starts(bars, complete, length)
    outage = 1500
    assert len(starts) == (1500 - 150 - length) + (len(bars) - 1500 - 150 - length)
    for start in (starts.min(), starts[starts < outage].max(), starts[starts >= outage].min(), starts.max()):
        rows = slice(start, start + length + 1)
        assert complete[rows].all()
        assert len(set(bars.segments[rows].tolist())) == 1
    assert not len(trading_env.episode_starts(bars[:100], complete[:100], length))


def test_an_observation_holds_features_the_position_and_the_return_of_the_open_trade():
    bars = made_bars(
        np.array([[100.0, 100.0], [100.0, 102.0], [102.0, 102.0], [102.0, 120.0], [120.0, 120.0]])
    )
    env = trading_env.TradingEnv(episodes_of(bars, Costs(fee_bps=100, slippage_bps=0)))
    observation, _ = env.reset()
    assert observation.tolist() == [0, 0, 0]
    assert env.step(np.array([0.5]))[0].tolist() == pytest.approx([1, 0.5, 2])
    assert env.step(np.array([0.0]))[0].tolist() == [2, 0, 0]
    assert env.step(np.array([1.0]))[0].tolist() == pytest.approx([3, 1, MAX_UNREALISED])
    env.reset()
    env.step(np.array([-1.0]))
    assert env.step(np.array([-1.0]))[0].tolist() == pytest.approx([2, -1, -2])
    assert env.step(np.array([-1.0]))[0].tolist() == [3, -1, -MAX_UNREALISED]


@pytest.mark.parametrize(
    ("action", "position"), [([0.13], 0.25), ([-0.12], 0.0), ([7.0], 1.0), ([-0.9], -1.0)], ids=str
)
def test_a_target_position_is_rounded_to_the_step(action: list[float], position: float):
    env = trading_env.TradingEnv(episodes_of(made_bars(np.full((9, 2), 100.0)), Costs(), step=0.25))
    env.reset()
    assert env.step(np.array(action))[0][1] == position


@pytest.mark.parametrize(("action", "position"), [(0, -1.0), (1, 0.0), (2, 1.0)])
def test_discrete_actions_are_short_flat_and_long(action: Any, position: float):
    env = trading_env.TradingEnv(episodes_of(made_bars(np.full((9, 2), 100.0)), Costs(), discrete=True))
    env.reset()
    assert env.step(action)[0][1] == position
