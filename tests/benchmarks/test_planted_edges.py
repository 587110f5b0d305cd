"""Planted edges: what the bars show and do not show, and the sentence on a follower of the trend rule."""

import numpy as np
import pytest

from benchmarks.planted_edges import (
    FALSE_START_DAYS,
    FEW,
    GROUPS,
    LONG_TURN_DAYS,
    Drift,
    Turns,
    sides,
    todo,
)
from benchmarks.timing import evaluated, sized
from clm_core.backtest.terms import MarketTerms
from clm_core.domain.execution import NEW_VERSIONS
from clm_core.domain.terms import TradingTerms
from clm_core.market.bars import Bars, Floats
from clm_core.market.features import compute_features
from clm_core.models.strategies.trend import trend
from clm_core.retraining.case import alpha_of

BARS = 120_000
AHEAD = 48


def turn_lengths(n_bars: int) -> Floats:
    """Days of whole turns, shape (n_turns,)."""
    changes = np.flatnonzero(np.diff(sides(n_bars, np.random.default_rng(1))))
    return np.diff(changes) / 24


def signed_volume(bars: Bars) -> Floats:
    """Volume of rising less falling bars of a day over all volume of the day, shape (n_bars,)."""
    return compute_features(bars, ("obv_change_24",)).values[:, 0]


def of_signed_volume(bars: Bars) -> float:
    """Correlation of the signed volume of a day with the return of the next two days."""
    return correlation_ahead(signed_volume(bars), bars)


def of_prices(bars: Bars) -> float:
    """Correlation of the return of a day with the return of the next two days."""
    return correlation_ahead(compute_features(bars, ("log_return_24",)).values[:, 0], bars)


def correlation_ahead(signal: Floats, bars: Bars) -> float:
    rows = np.arange(100, len(bars) - AHEAD, AHEAD)
    ahead = np.log(bars.close[rows + AHEAD] / bars.close[rows])
    return float(np.corrcoef(signal[rows], ahead)[0, 1])


def test_most_turns_are_false_starts_and_long_turns_take_half_of_the_time() -> None:
    days = turn_lengths(BARS)
    long = days[days > LONG_TURN_DAYS / 2.0]
    assert np.median(days) < 1.3 * FALSE_START_DAYS
    assert len(long) < len(days) / 5
    assert 0.35 < long.sum() / days.sum() < 0.55


def test_volume_tells_more_of_the_next_days_than_prices() -> None:
    bars = Turns(0.15).bars("X", BARS, seed=1)
    assert of_signed_volume(bars) > max(0.15, of_prices(bars) + 0.05)


def test_with_shuffled_labels_volume_shows_the_side_and_nothing_follows() -> None:
    edge, shuffled = (Turns(0.15, each).bars("X", BARS, seed=1) for each in (False, True))
    moves, others = (np.diff(np.log(each.close)) for each in (edge, shuffled))
    assert np.quantile(moves, [0.01, 0.99]) == pytest.approx(np.quantile(others, [0.01, 0.99]), rel=0.02)
    side = sides(BARS, np.random.default_rng(1))
    assert np.corrcoef(side[24:], signed_volume(shuffled)[24:])[0, 1] > 0.3
    assert abs(of_signed_volume(shuffled)) < of_signed_volume(edge) / 3


def test_a_follower_of_the_trend_rule_does_no_better_than_the_trend_rule() -> None:
    bars = Drift(0.3).bars("X", 3 * 8_760, seed=1)
    market = MarketTerms(TradingTerms()).under(NEW_VERSIONS)
    alpha = alpha_of(evaluated(market, bars, sized(bars, trend(bars))))
    assert alpha.joint.at_least(0.95) < 0.0
    assert alpha.simpler_rule == "trend"


def test_groups_take_turns_and_what_was_retrained_is_left_out() -> None:
    first = todo(40, [])
    assert [name for name, _ in first[: len(GROUPS)]] == list(GROUPS)
    assert len(first) == sum(FEW if each.few else 40 for each in GROUPS.values())
