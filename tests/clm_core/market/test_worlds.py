from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from clm_core.decisions.health import alarm_of
from clm_core.domain.vocabulary import KnownWorld
from clm_core.market.bars import Floats
from clm_core.market.worlds import TOO_LATE, KnownMarket, known_market

START = datetime(2018, 1, 1, tzinfo=UTC)
CHANGE = START + timedelta(hours=60_000)


def made(world: KnownWorld, seed: int = 0, n_bars: int = 120_000) -> KnownMarket:
    return known_market(world, seed, START, n_bars, CHANGE)


def earned_by_followers(market: KnownMarket) -> Floats:
    """Returns of a position after each bar on the side of the volume of a day, shape (n_bars - 1,)."""
    volume = np.log(market.bars.volume)
    day = np.convolve(volume, np.ones(24) / 24, mode="full")[: len(volume)]
    return np.asarray(
        np.sign(day - np.log(1000.0))[:-1] * np.diff(market.bars.close) / market.bars.close[:-1]
    )


@pytest.mark.parametrize(
    ("world", "before", "after"),
    [
        (KnownWorld.PLANTED, 1, 1),
        (KnownWorld.DYING, 1, -1),
        (KnownWorld.MOVING, 1, -1),
        (KnownWorld.NONE, 0, 0),
    ],
)
def test_followers_of_the_volume_earn_while_the_edge_lives(
    world: KnownWorld, before: int, after: int
) -> None:
    returns = earned_by_followers(made(world))
    signs = []
    for part in (returns[:60_000], returns[60_000:]):
        t = part.mean() / part.std() * np.sqrt(len(part))
        signs.append(int(np.sign(t)) if abs(t) > 4.0 else 0)
    assert signs == [before, after]


def test_the_edge_of_the_turning_world_goes_from_the_volume_to_the_range_and_to_the_opposite() -> None:
    """Quarters of a turn of four years: who follows the volume earns in the first, loses in the third."""
    market = made(KnownWorld.TURNING, n_bars=4 * 365 * 24)
    returns = earned_by_followers(market)
    spread = np.log(market.bars.high / market.bars.low)
    day = np.convolve(spread, np.ones(24) / 24, mode="full")[: len(spread)]
    by_range = np.sign(day - np.median(day))[:-1] * np.diff(market.bars.close) / market.bars.close[:-1]
    eighth = len(returns) // 8
    for followed, turned in ((returns, 0), (by_range, 2)):
        parts = np.roll(followed[: 8 * eighth].reshape(8, eighth).mean(axis=1), 1 - turned)
        gained = parts[:2].mean()
        lost = parts[4:6].mean()
        assert gained > 1e-4
        assert lost < -1e-4
    assert (market.strength == 1.0).all()


@pytest.mark.parametrize("world", list(KnownWorld))
def test_returns_differ_from_the_expected_returns_by_noise_of_mean_zero(world: KnownWorld) -> None:
    market = made(world)
    returns = np.diff(market.bars.close) / market.bars.close[:-1]
    surprise = returns - market.expected[1:]
    assert abs(surprise.mean()) < 4.0 * surprise.std() / np.sqrt(len(surprise))
    tied = np.mean(surprise * market.expected[1:]) / surprise.std() / max(market.expected.std(), 1e-9)
    assert abs(tied) < 4.0 / np.sqrt(len(surprise))


def test_the_edge_has_its_strength_up_to_the_change_and_another_from_then_on() -> None:
    strength = made(KnownWorld.DYING).strength
    assert strength[59_999] == 1.0
    assert strength[60_000] == -TOO_LATE
    assert not made(KnownWorld.NONE).expected.any()


def test_a_world_is_the_same_by_seed_and_start_however_many_bars() -> None:
    short = made(KnownWorld.DYING, n_bars=500)
    long = made(KnownWorld.DYING, n_bars=900)
    assert long.bars[:500].content_hash == short.bars.content_hash
    assert made(KnownWorld.DYING, 1, 500).bars.content_hash != short.bars.content_hash


@pytest.mark.parametrize("seed", range(3))
def test_the_protection_finds_a_dead_edge_and_leaves_a_living_one_alone(seed: int) -> None:
    """Daily returns of followers of the volume, two years before the change and a year after."""
    n_bars = 3 * 365 * 24
    change = START + timedelta(days=2 * 365)
    raised = {}
    for world in (KnownWorld.PLANTED, KnownWorld.DYING):
        market = known_market(world, seed, START, n_bars, change)
        returns = np.append(earned_by_followers(market), 0.0).reshape(-1, 24)
        raised[world] = alarm_of(np.prod(1.0 + returns, axis=1) - 1.0, 365.0).raised_on_day
    assert raised[KnownWorld.PLANTED] is None
    assert raised[KnownWorld.DYING] is not None
    assert 2 * 365 < raised[KnownWorld.DYING] < 3 * 365
