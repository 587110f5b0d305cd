from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_core.market.bars import FIELDS, Bars
from clm_core.market.labels import (
    LARGEST_SCALED_RETURN,
    VOLATILITY_WINDOW,
    Labels,
    direction,
    forward_return,
    return_unit,
    ties,
    trade_outcome,
    triple_barrier,
    volatility_scaled_return,
)
from clm_core.market.look_ahead import other_futures
from clm_core.testing.tick_walks import mirror_image, tick_walk

MakeWalk = Callable[..., Bars]

EVERY_LABEL = {
    "forward_return": lambda bars: forward_return(bars, 5),
    "direction": lambda bars: direction(bars, 5),
    "volatility_scaled_return": lambda bars: volatility_scaled_return(bars, 5),
    "triple_barrier": lambda bars: triple_barrier(bars, 12, take_profit=2.0, stop_loss=1.5),
    "trade_outcome": lambda bars: trade_outcome(bars, 12, 1.0),
    "trade_outcome of trades in the direction of the last bar": lambda bars: trade_outcome(
        bars, 12, 1.0, np.sign(bars.close - bars.open)
    ),
}
every_label = pytest.mark.parametrize("label", EVERY_LABEL.values(), ids=EVERY_LABEL)


def with_opens(walk: Bars, opens: Sequence[float]) -> Bars:
    return replace(walk[: len(opens)], open=np.array(opens, dtype=np.float64))


def known_by(labels: Labels, row: int) -> tuple[np.ndarray, np.ndarray]:
    known = np.flatnonzero((labels.end >= 0) & (labels.end <= row))
    return known, labels.values[known].view(np.int64)


def test_a_forward_return_runs_from_the_next_open_to_the_open_a_horizon_later(walk: Bars) -> None:
    labels = forward_return(with_opens(walk, [1, 10, 11, 12, 9]), horizon=2)

    np.testing.assert_allclose(labels.values, [0.2, 9 / 11 - 1, np.nan, np.nan, np.nan])
    assert labels.end.tolist() == [3, 4, -1, -1, -1]


def test_a_direction_is_up_or_down_and_a_tie_has_none(walk: Bars) -> None:
    bars = with_opens(walk, [1, 10, 11, 11, 9])
    labels = direction(bars, horizon=1)

    np.testing.assert_array_equal(labels.values, [1.0, np.nan, 0.0, np.nan, np.nan])
    assert labels.end.tolist() == [2, -1, 4, -1, -1]
    assert ties(bars, horizon=1).tolist() == [False, True, False, False, False]


@pytest.mark.parametrize("standstill", [0.0, 0.8])
def test_directions_of_mirrored_prices_are_the_opposite(standstill: float) -> None:
    bars = tick_walk(2_000, standstill, seed=1)
    labels = direction(bars, horizon=4)
    mirrored = direction(mirror_image(bars), horizon=4)

    assert np.array_equal(mirrored.values, 1 - labels.values, equal_nan=True)
    assert np.array_equal(mirrored.end, labels.end)


@settings(deadline=None, max_examples=25)
@given(row=st.integers(30, 298), seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("name", EVERY_LABEL)
def test_labels_that_ended_are_not_changed_by_what_comes_after(
    name: str, row: int, seed: int, make_walk: MakeWalk
) -> None:
    bars = make_walk(300, seed=seed, outages=(120,))
    rows, bits = known_by(EVERY_LABEL[name](bars), row)

    for change, other in other_futures(bars, row):
        rows_after, bits_after = known_by(EVERY_LABEL[name](other), row)
        assert np.array_equal(rows_after, rows), change
        assert np.array_equal(bits_after, bits), change


@every_label
def test_labels_never_reach_across_an_outage(label: Callable[[Bars], Labels], walk: Bars) -> None:
    labels = label(walk)
    defined = np.flatnonzero(labels.end >= 0)

    assert np.array_equal(walk.segments[labels.end[defined]], walk.segments[defined])
    assert (labels.end[defined] > defined).all()
    for stretch in walk.stretches():
        alone = label(walk[stretch])
        assert np.array_equal(alone.values, labels.values[stretch], equal_nan=True)


@every_label
def test_labels_are_defined_where_they_have_an_end(label: Callable[[Bars], Labels], walk: Bars) -> None:
    labels = label(walk)

    assert np.array_equal(np.isnan(labels.values), labels.end == -1)
    assert np.isnan(labels.values[-1])
    assert np.isfinite(labels.values).any()


@every_label
def test_labels_of_ten_times_the_price_are_the_same(label: Callable[[Bars], Labels], walk: Bars) -> None:
    tenfold = replace(walk, **{name: getattr(walk, name) * 10 for name in FIELDS})

    np.testing.assert_allclose(label(tenfold).values, label(walk).values, rtol=1e-9, atol=1e-12)


@every_label
def test_labels_cannot_be_changed_afterwards(label: Callable[[Bars], Labels], walk: Bars) -> None:
    with pytest.raises(ValueError, match="read-only"):
        label(walk).end[0] = 0


DECIDED = VOLATILITY_WINDOW
"""The first row with a trailing volatility."""


def bars_after_a_calm_day(walk: Bars, after: Sequence[tuple[float, float, float]]) -> Bars:
    """Closes alternate by 1 % until the decision, at a close of 100; then open, high and low as given."""
    close = np.where(np.arange(DECIDED + 1) % 2 == 0, 100.0, 100.0 * np.exp(0.01))
    opens, highs, lows = np.array(after).T
    return replace(
        walk[: DECIDED + 1 + len(after)],
        open=np.concatenate([close, opens]),
        high=np.concatenate([close, highs]),
        low=np.concatenate([close, lows]),
        close=np.concatenate([close, opens]),
        volume=np.ones(DECIDED + 1 + len(after)),
    )


CALM = (100.0, 100.5, 99.5)


@pytest.mark.parametrize(
    ("after", "value", "bars_waited"),
    [
        ([CALM, (100, 102.1, 99.5), CALM], 1.0, 2),
        ([CALM, (100, 100.5, 97.9), CALM], -1.0, 2),
        ([(100, 103, 97), CALM, CALM], -1.0, 1),
        ([CALM, CALM, CALM], 0.0, 3),
        ([CALM, CALM, CALM, (100, 200, 50)], 0.0, 3),
        ([(100, 102.1, 99.5)], 1.0, 1),
        ([CALM, (110, 111, 109), CALM], 1.0, 2),
        ([(50, 50.5, 49.5), (50, 51.1, 49.5), CALM], 1.0, 2),
    ],
    ids=[
        "profit",
        "loss",
        "both in one bar count as a loss",
        "neither",
        "what comes after the wait does not count",
        "decided before the bars end",
        "a gap over the barrier is a touch",
        "barriers stand around the entry, not the close before it",
    ],
)
def test_the_barrier_that_is_touched_first_decides(
    after: list[tuple[float, float, float]], value: float, bars_waited: int, walk: Bars
) -> None:
    # one-bar log returns of +-1 % have a standard deviation of 1 %: the barriers stand at +-2 %
    labels = triple_barrier(bars_after_a_calm_day(walk, after), horizon=3, take_profit=2.0, stop_loss=2.0)

    assert labels.values[DECIDED] == value
    assert labels.end[DECIDED] == DECIDED + bars_waited


def test_a_scaled_return_is_measured_in_standard_deviations_of_the_horizon(make_walk: MakeWalk) -> None:
    walk = make_walk(400, seed=3)
    labels = volatility_scaled_return(walk, horizon=9)
    deviation = return_unit(walk)[200] * 3
    assert labels.values[200] == pytest.approx(np.log(walk.open[210] / walk.open[201]) / deviation)
    assert labels.end[200] == 210
    assert np.isnan(labels.values[:96]).all()


def test_a_crash_counts_as_four_standard_deviations(make_walk: MakeWalk) -> None:
    walk = make_walk(300, seed=3)
    crash = np.where(np.arange(300) >= 250, 0.01, 1.0)
    crashed = replace(
        walk, **{name: getattr(walk, name) * crash for name in ("open", "high", "low", "close")}
    )
    assert volatility_scaled_return(crashed, horizon=5).values[248] == -LARGEST_SCALED_RETURN


@pytest.mark.parametrize(
    ("after", "bought", "sold"),
    [
        ([CALM, (100, 102.1, 99.5), CALM, CALM], 1.0, 0.0),
        ([CALM, (100, 100.5, 97.9), CALM, CALM], 0.0, 1.0),
        ([(100, 103, 97), CALM, CALM, CALM], 0.0, 0.0),
        ([CALM, CALM, CALM, (100.3, 100.5, 99.5)], 1.0, 0.0),
        ([CALM, CALM, CALM, CALM], np.nan, np.nan),
    ],
    ids=["up", "down", "both in one bar are a loss", "a gain at the end", "no return at the end"],
)
def test_a_trade_wins_at_its_profit_barrier_or_by_its_return_at_the_end(
    after: list[tuple[float, float, float]], bought: float, sold: float, walk: Bars
) -> None:
    bars = bars_after_a_calm_day(walk, after)
    # barriers at 2 * 1 %: a standard deviation of four bars
    for side, value in ((1.0, bought), (-1.0, sold), (0.0, np.nan)):
        labels = trade_outcome(bars, 4, 1.0, np.full(len(bars), side))
        np.testing.assert_equal(labels.values[DECIDED], value)
        assert (labels.end[DECIDED] == -1) == np.isnan(value)


def test_trades_without_a_side_have_no_label(walk: Bars) -> None:
    assert np.isnan(trade_outcome(walk, 5, 1.0, np.full(len(walk), np.nan)).values).all()


def test_a_sale_of_the_price_is_a_purchase_of_the_mirrored_price() -> None:
    bars = tick_walk(2_000, 0.3, seed=1)
    sold = triple_barrier(bars, 8, 4.0, 4.0, np.full(2_000, -1.0))
    mirrored = triple_barrier(mirror_image(bars), 8, 4.0, 4.0)
    # barriers of a mirrored price are a little narrower, and few paths end in between
    assert np.mean(sold.values[100:-20] == mirrored.values[100:-20]) > 0.95


@pytest.mark.parametrize("waited", [0, 1, 2])
def test_an_undecided_wait_cut_short_has_no_label(waited: int, walk: Bars) -> None:
    bars = bars_after_a_calm_day(walk, [CALM, CALM, CALM])[: DECIDED + 1 + waited]
    labels = triple_barrier(bars, horizon=3, take_profit=2.0, stop_loss=2.0)

    assert np.isnan(labels.values[DECIDED])
    assert labels.end[DECIDED] == -1


def test_before_a_trailing_volatility_and_without_movement_there_is_no_barrier(walk: Bars) -> None:
    moving = triple_barrier(walk, 5, 1.0, 1.0)
    still = replace(walk, **{name: np.full(len(walk), 3.0) for name in FIELDS})

    assert np.isnan(moving.values[:VOLATILITY_WINDOW]).all()
    assert not np.isnan(moving.values[VOLATILITY_WINDOW])
    assert np.isnan(triple_barrier(still, 5, 1.0, 1.0).values).all()


@pytest.mark.parametrize("horizon", [0, -1])
def test_a_horizon_without_a_bar_is_refused(horizon: int, walk: Bars) -> None:
    with pytest.raises(ValueError, match="at least 1 bar"):
        forward_return(walk, horizon)
    with pytest.raises(ValueError, match="at least 1 bar"):
        triple_barrier(walk, horizon, 1.0, 1.0)


@pytest.mark.parametrize(("take", "stop"), [(0.0, 1.0), (1.0, -1.0), (float("nan"), 1.0)])
def test_barriers_on_the_wrong_side_are_refused(take: float, stop: float, walk: Bars) -> None:
    with pytest.raises(ValueError, match="positive multiples"):
        triple_barrier(walk, 5, take, stop)
