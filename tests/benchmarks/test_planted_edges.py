"""Planted edges: what the bars show and do not show, and the sentence on a follower of the trend rule."""

import numpy as np
import pytest

from benchmarks.planted_edges import FEW, GROUPS, LOUDNESS, Continuation, Drift, todo
from benchmarks.timing import evaluated, sized
from clm_core.backtest.terms import MarketTerms
from clm_core.domain.execution import NEW_VERSIONS
from clm_core.domain.terms import TradingTerms
from clm_core.market.bars import Bars, Floats
from clm_core.models.strategies.trend import trend
from clm_core.retraining.case import alpha_of

BARS = 120_000
AHEAD = 72


def of_heavy_moves(bars: Bars) -> float:
    """Correlation of the heavy moves of three days with the return of the next three days."""
    returns = np.diff(np.log(bars.close))
    heavy = np.where(np.log(bars.volume[1:] / 1000.0) > LOUDNESS / 2.0, returns, 0.0)
    return correlation_ahead(heavy, returns)


def of_light_moves(bars: Bars) -> float:
    returns = np.diff(np.log(bars.close))
    light = np.where(np.log(bars.volume[1:] / 1000.0) > LOUDNESS / 2.0, 0.0, returns)
    return correlation_ahead(light, returns)


def correlation_ahead(signal: Floats, returns: Floats) -> float:
    days = len(returns) // AHEAD
    past, ahead = (each[: days * AHEAD].reshape(days, AHEAD).sum(axis=1) for each in (signal, returns))
    return float(np.corrcoef(past[:-1], ahead[1:])[0, 1])


def test_moves_on_heavy_volume_tell_more_of_the_next_days_than_others() -> None:
    bars = Continuation(0.06).bars("X", BARS, seed=1)
    # light moves have the drift in common with heavy ones
    assert of_heavy_moves(bars) > max(0.2, of_light_moves(bars) + 0.05)


def test_shuffled_labels_keep_the_moves_and_announce_none() -> None:
    edge, shuffled = (Continuation(0.1, each).bars("X", BARS, seed=1) for each in (False, True))
    moves, others = (np.sort(np.diff(np.log(each.close))) for each in (edge, shuffled))
    assert np.quantile(moves, [0.01, 0.99]) == pytest.approx(np.quantile(others, [0.01, 0.99]), rel=1e-3)
    assert abs(of_heavy_moves(shuffled)) < of_heavy_moves(edge) / 3


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
