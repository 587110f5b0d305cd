"""The environment plays by the engine's rules, on unbroken bars only, and is what gymnasium asks for."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as check_gymnasium_env
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.env_checker import check_env

from clm_core.backtest.engine import backtest
from clm_core.domain.costs import Costs
from clm_core.domain.execution import Execution
from clm_core.market.bars import Bars, Floats
from clm_core.market.features import compute_features
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.models.policies.trading import MAX_UNREALISED, MIN_EQUITY, MarketArrays, TradingRules
from clm_core.models.policies.trading_env import TradingEnv, TradingEpisodes, VectorTradingEnv, episode_starts

FINE = 1 / 64
"""A power of two: positions that are multiples of it are not moved by rounding."""


def episodes_of(bars: Bars, costs: Costs, discrete: bool = False, **play: float) -> TradingEpisodes:
    """One feature, the bar's number; one episode, all of the bars."""
    features = np.arange(len(bars), dtype=np.float32)[:, None]
    length = len(bars) - 1
    starts = np.zeros(1, dtype=np.int64)
    terms = TradingRules.at(costs, **{"step": FINE, "unit": 0.01} | play)
    return TradingEpisodes(features, MarketArrays.of(bars), starts, length, terms, discrete)


def made_bars(prices: Floats) -> Bars:
    """From rows of (open, close); the shadows are as long as the body."""
    opens, closes = prices.T.copy()
    highs, lows = np.maximum(opens, closes) * 1.02, np.minimum(opens, closes) / 1.02
    time = np.arange(len(prices), dtype=np.int64) * Timeframe.H1.nanoseconds
    return Bars("TEST", Timeframe.H1, Calendar.ALWAYS, time, opens, highs, lows, closes, np.ones(len(prices)))


@st.composite
def episodes(draw: st.DrawFn) -> tuple[Bars, Floats, Costs]:
    """Bars that jump by up to `wildness` between and within them, and as many positions."""
    n, wildness = draw(st.integers(2, 40)), draw(st.sampled_from([0.01, 0.2, 1.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    prices = 100 * np.exp(np.cumsum(rng.normal(0, wildness, 2 * n))).reshape(n, 2)
    choices = draw(st.sampled_from([[-1.0, 1.0], [-1.0, 0.0, 1.0], np.arange(-64, 65) * FINE, [-1.0]]))
    positions = np.repeat(rng.choice(choices, n), rng.integers(1, 4, n))[:n]
    costs = Costs(fee_bps=draw(st.sampled_from([0, 5, 300])), slippage_bps=draw(st.sampled_from([0, 2, 150])))
    return made_bars(prices), positions.astype(float), costs


def played(env: TradingEnv, positions: Floats) -> list[float]:
    env.reset(seed=0)
    rewards = []
    for position in positions[:-1]:
        _, reward, ruined, over, _ = env.step(np.array([position]))
        rewards.append(reward)
        if ruined or over:
            break
    return rewards


@given(episode=episodes())
def test_the_rewards_of_an_episode_sum_to_the_log_of_what_the_engine_makes_of_the_same_positions(
    episode: tuple[Bars, Floats, Costs],
):
    bars, positions, costs = episode
    result = backtest(bars, positions, costs, Execution(initial_cash=1.0))
    rewards = played(TradingEnv(episodes_of(bars, costs)), positions)
    assert sum(rewards) == pytest.approx(np.log(max(result.equity[-1], MIN_EQUITY)), abs=1e-9)
    known = np.log(np.maximum(result.equity, MIN_EQUITY))[1 : len(rewards) + 1]
    assert np.cumsum(rewards) == pytest.approx(known, abs=1e-9)


def test_ruin_ends_an_episode_with_as_good_as_nothing_left():
    wild = made_bars(np.array([[100.0, 100.0], [100.0, 150.0], [160.0, 230.0], [100.0, 90.0]]))
    short = np.full(4, -1.0)
    assert backtest(wild, short, Costs(), Execution(initial_cash=1.0)).equity[-1] == 0.0
    rewards = played(TradingEnv(episodes_of(wild, Costs())), short)
    assert len(rewards) == 2
    assert sum(rewards) == pytest.approx(np.log(MIN_EQUITY))


@given(episode=episodes(), penalty=st.sampled_from([0.5, 2.0]))
def test_the_drawdown_penalty_takes_off_the_deepest_drawdown_of_the_episode_once(
    episode: tuple[Bars, Floats, Costs], penalty: float
):
    bars, positions, costs = episode
    plain = played(TradingEnv(episodes_of(bars, costs)), positions)
    penalised = played(
        TradingEnv(episodes_of(bars, costs, drawdown_penalty=penalty, reward_unit=0.1)), positions
    )
    wealth = np.concatenate([[0.0], np.cumsum(plain)])
    deepest = np.max(np.maximum.accumulate(wealth) - wealth)
    assert 0.1 * sum(penalised) == pytest.approx(sum(plain) - penalty * deepest, abs=1e-9)


@pytest.mark.parametrize("discrete", [False, True], ids=["any position", "short, flat, long"])
def test_the_environment_is_what_gymnasium_and_stable_baselines_ask_for(discrete: bool):
    bars = made_bars(np.full((30, 2), 100.0))
    check_env(TradingEnv(episodes_of(bars, Costs(), discrete)))
    check_gymnasium_env(TradingEnv(episodes_of(bars, Costs(), discrete)), skip_render_check=True)


@pytest.mark.parametrize("discrete", [False, True], ids=["any position", "short, flat, long"])
def test_many_players_at_once_play_as_each_would_alone(bars: Bars, discrete: bool):
    table = compute_features(bars)
    arena = replace(
        episodes_of(bars, Costs(), discrete, drawdown_penalty=0.3),
        features=table.values.astype(np.float32),
        starts=episode_starts(bars, table.complete, 24),
        length=24,
    )
    rng, together = np.random.default_rng(3), VectorTradingEnv(arena, 8, np.random.default_rng(5))
    alone, ends = [TradingEnv(arena) for _ in range(8)], 0
    seen = together.reset()
    rows = np.random.default_rng(5)

    def begin(players: list[int]) -> None:
        for player, row in zip(players, rows.choice(arena.starts, len(players)), strict=True):
            seen_alone, _ = alone[player].reset(options={"row": row})
            assert np.array_equal(seen_alone, seen[player])

    begin(list(range(8)))
    for _ in range(60):
        actions = rng.integers(0, 3, 8) if discrete else rng.uniform(-1, 1, (8, 1)).astype(np.float32)
        answers = [env.step(action) for env, action in zip(alone, actions, strict=True)]
        seen, rewards, done, infos = together.step(actions)
        assert rewards.tolist() == [answer[1] for answer in answers]
        assert done.tolist() == [answer[2] or answer[3] for answer in answers]
        last = [info.get("terminal_observation", seen[player]) for player, info in enumerate(infos)]
        assert np.array_equal(last, [answer[0] for answer in answers])
        assert [info.get("TimeLimit.truncated", False) for info in infos] == [a[3] for a in answers]
        ends += int(done.sum())
        begin(np.flatnonzero(done).tolist())
    assert ends == 16


def test_no_episode_reaches_across_an_outage_or_into_rows_without_features(bars: Bars):
    complete, length = compute_features(bars).complete, 100
    starts = episode_starts(bars, complete, length)
    outage = 1500
    assert len(starts) == (1500 - 150 - length) + (len(bars) - 1500 - 150 - length)
    for start in (starts.min(), starts[starts < outage].max(), starts[starts >= outage].min(), starts.max()):
        rows = slice(start, start + length + 1)
        assert complete[rows].all()
        assert len(set(bars.segments[rows].tolist())) == 1
    assert not len(episode_starts(bars[:100], complete[:100], length))


def test_an_observation_holds_features_the_position_and_the_return_of_the_open_trade():
    bars = made_bars(
        np.array([[100.0, 100.0], [100.0, 102.0], [102.0, 102.0], [102.0, 120.0], [120.0, 120.0]])
    )
    env = TradingEnv(episodes_of(bars, Costs(fee_bps=100, slippage_bps=0)))
    seen, _ = env.reset()
    assert seen.tolist() == [0, 0, 0]
    assert env.step(np.array([0.5]))[0].tolist() == pytest.approx([1, 0.5, 2])
    assert env.step(np.array([0.0]))[0].tolist() == [2, 0, 0]
    assert env.step(np.array([1.0]))[0].tolist() == pytest.approx([3, 1, MAX_UNREALISED])
    env.reset()
    env.step(np.array([-1.0]))
    assert env.step(np.array([-1.0]))[0].tolist() == pytest.approx([2, -1, -2])
    assert env.step(np.array([-1.0]))[0].tolist() == [3, -1, -MAX_UNREALISED]


@pytest.mark.parametrize(
    ("action", "held"), [([0.13], 0.25), ([-0.12], 0.0), ([7.0], 1.0), ([-0.9], -1.0)], ids=str
)
def test_a_wanted_position_is_rounded_to_the_step(action: list[float], held: float):
    env = TradingEnv(episodes_of(made_bars(np.full((9, 2), 100.0)), Costs(), step=0.25))
    env.reset()
    assert env.step(np.array(action))[0][1] == held


@pytest.mark.parametrize(("action", "held"), [(0, -1.0), (1, 0.0), (2, 1.0)])
def test_discrete_actions_are_short_flat_and_long(action: Any, held: float):
    env = TradingEnv(episodes_of(made_bars(np.full((9, 2), 100.0)), Costs(), discrete=True))
    env.reset()
    assert env.step(action)[0][1] == held
