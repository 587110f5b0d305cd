"""P(timing): uniform for positions that know nothing of the returns to come, near 1 for those that do."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_core.decisions.return_streams import Shape, draw_returns
from clm_core.evidence.exposure_null import NO_TIMING, timing_probability
from clm_core.market.bars import Floats

BARS = 3000


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def held(bars: int, spell: float, generator: np.random.Generator) -> Floats:
    """Short, flat or long at random, for `spell` bars on average."""
    spells = np.cumsum(generator.random(bars) < 1.0 / spell)
    return generator.choice([-1.0, 0.0, 1.0], spells[-1] + 1)[spells]


def targeted(returns: Floats) -> Floats:
    """Long at a volatility target: exposure by the volatility of the bars so far."""
    variance = np.empty(len(returns))
    level = float(np.var(returns))
    for bar, value in enumerate(returns):
        level = 0.97 * level + 0.03 * value**2
        variance[bar] = level
    return np.asarray(np.minimum(0.5 * returns.std() / np.sqrt(variance), 1.0))


def directly(positions: list[Floats], returns: list[Floats]) -> float:
    """P(timing) without a Fourier transform."""
    p = np.array([values - values.mean() for values in positions])
    r = np.array([values - values.mean() for values in returns])
    statistics = []
    for shift in range(3 * p.shape[1] // 4 + 1):
        earned = (np.roll(p, shift, axis=1) * r).sum(axis=0)
        statistics.append(earned.sum() / math.sqrt((earned**2).sum()))
    return float(np.mean(np.array(statistics[1:]) < statistics[0]))


@pytest.mark.parametrize("members", [1, 3])
def test_the_probability_is_that_of_shifting_one_by_one(members: int) -> None:
    returns = [rng(member).standard_normal(501) for member in range(members)]
    positions = [held(501, 20, rng(10 + member)) for member in range(members)]
    assert timing_probability(positions, returns) == pytest.approx(directly(positions, returns), abs=1e-9)


def share_passed(streams: int, mean: float, kind: str) -> float:
    passed = 0
    for stream, returns in enumerate(draw_returns(Shape.GARCH, mean, (BARS, streams), rng(0)).T):
        positions = targeted(returns) if kind == "targeted" else held(BARS, 24, rng(10_000 + stream))
        passed += timing_probability([positions[:-1]], [returns[1:]]) >= 0.95
    return passed / streams


@pytest.mark.parametrize("mean", [0.0, 0.05])
@pytest.mark.parametrize("kind", ["targeted", "held"])
def test_positions_that_know_nothing_pass_in_about_one_case_of_twenty(kind: str, mean: float) -> None:
    """A volatility target and held positions on GARCH bars, without drift and with a strong one."""
    streams = 300
    error = math.sqrt(0.05 * 0.95 / streams)
    assert share_passed(streams, mean, kind) == pytest.approx(0.05, abs=3.5 * error)


def test_positions_that_foresee_the_returns_have_timing() -> None:
    returns = rng(1).standard_normal(BARS)
    foreseen = np.sign(returns + 3.0 * rng(2).standard_normal(BARS))
    assert timing_probability([foreseen], [returns]) > 0.99
    assert timing_probability([-foreseen], [returns]) < 0.01


def test_a_profitable_trend_rule_is_not_hidden_by_the_bars_it_reacts_to() -> None:
    """Positions shortly before the returns that made them would earn more than any skill does."""
    shocks = rng(4).standard_normal(BARS)
    drift = np.zeros(BARS)
    for bar in range(1, BARS):
        drift[bar] = 0.995 * drift[bar - 1] + 0.02 * shocks[bar]
    returns = rng(3).standard_normal(BARS) + drift
    totals = np.concatenate([[0.0], np.cumsum(returns)])
    trend = np.sign(np.append(np.zeros(299), totals[300:] - totals[:-300]))
    assert timing_probability([trend[:-1]], [returns[1:]]) > 0.95


@pytest.mark.parametrize("level", [0.0, 1.0, 0.3])
def test_positions_that_never_vary_have_no_timing(level: float) -> None:
    assert timing_probability([np.full(BARS, level)], [rng(4).standard_normal(BARS)]) == NO_TIMING


@pytest.mark.parametrize(
    ("positions", "returns"),
    [
        (np.arange(50.0), np.sin(np.arange(50.0))),
        (np.append(np.arange(299.0), np.nan), np.sin(np.arange(300.0))),
        (np.arange(300.0), np.append(np.sin(np.arange(299.0)), np.inf)),
        (np.arange(300.0), np.zeros(300)),
    ],
    ids=["too few", "a position that is not finite", "a return that is not finite", "a still market"],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_an_unmeasurable_timing_has_no_probability(positions: Floats, returns: Floats) -> None:
    assert math.isnan(timing_probability([positions], [returns]))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 20.0), st.floats(-2.0, 2.0), st.floats(0.01, 100.0))
def test_neither_size_nor_mean_exposure_nor_drift_changes_the_probability(
    seed: int, size: float, level: float, scale: float
) -> None:
    returns = rng(seed).standard_normal(400)
    positions = held(400, 10, rng(seed + 1)) + 0.01 * returns
    expected = timing_probability([positions], [returns])
    changed = timing_probability([size * positions + level], [scale * (returns + level)])
    assert changed == pytest.approx(expected, abs=0.01)
