"""Sizing of signals: bounds, no look-ahead, finite memory to the last bit, volatility, turnover and speed."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_core.domain.costs import Costs
from clm_core.domain.errors import InvalidTrainingParams
from clm_core.domain.execution import ExecutionRules
from clm_core.domain.sizing import Sizing
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import FIELDS, Bars, Floats
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.models import catalog
from clm_core.models.policies import rl_v2
from clm_core.models.sizing import convictions_of, size_positions
from clm_core.models.trees.boosting import SIZING

YEAR = 8_760
HOUR = Timeframe.H1.nanoseconds
AN_HOUR = Timeframe.H1.seconds
QUICK = Sizing(scale_half_life=30.0, volatility_half_life=20.0, anchor_bars=48)
"""Short windows: 190 bars of memory."""
ABRUPT = Sizing(smoothing_half_life=0.0, target_volatility=None, no_trade_band=0.0, anchor_bars=1)
"""Positions are the signal; other steps act alone."""
STEPS = st.builds(
    Sizing,
    smoothing_half_life=st.sampled_from([0.0, 3.0, 12.0]),
    scale_half_life=st.sampled_from([10.0, 40.0]),
    target_volatility=st.sampled_from([None, 0.05, 0.1, 0.5]),
    volatility_half_life=st.sampled_from([5.0, 30.0]),
    min_edge=st.sampled_from([0.0, 1.0]),
    long_only=st.booleans(),
    max_position=st.sampled_from([0.3, 1.0]),
    no_trade_band=st.sampled_from([0.0, 0.4, 1.0]),
    anchor_bars=st.sampled_from([1, 24, 100]),
    max_turnover=st.sampled_from([None, 60.0, 400.0]),
)
unhurried = settings(max_examples=60, deadline=None)


def random_bars(n: int, seed: int, volatility: float = 0.6, calendar: Calendar = Calendar.ALWAYS) -> Bars:
    """Hourly bars of a random walk with a yearly volatility, since a Wednesday; week-ends are left out of a
    market that closes."""
    rng = np.random.default_rng(seed)
    grid = 1_700_006_400_000_000_000 // HOUR * HOUR + np.arange(2 * n) * HOUR
    weekday = (grid // (24 * HOUR) + 3) % 7
    grid = grid if calendar is Calendar.ALWAYS else grid[weekday < 5]
    closes = 100 * np.exp(np.cumsum(rng.standard_normal(n) * volatility / np.sqrt(YEAR)))
    opens = np.append(100.0, closes[:-1])
    high = np.maximum(opens, closes)
    low = np.minimum(opens, closes)
    return Bars("TEST", Timeframe.H1, calendar, grid[:n], opens, high, low, closes, np.ones(n))


def random_signal(n: int, seed: int, half_life: float = 24.0) -> Floats:
    """Signal in [-1, 1] with a half-life, flat at times."""
    rng = np.random.default_rng(seed + 1_000)
    keep = 0.5 ** (1 / half_life)
    values = np.zeros(n)
    for row in range(1, n):
        values[row] = keep * values[row - 1] + rng.standard_normal() * np.sqrt(1 - keep**2)
    return np.where(np.abs(values) < 0.3, 0.0, np.clip(values, -1, 1))


def without(bars: Bars, first: int, count: int) -> Bars:
    keep = np.r_[0:first, first + count : len(bars)]
    return replace(bars, **{name: getattr(bars, name)[keep] for name in ("time", *FIELDS)})


def realised(bars: Bars, positions: Floats) -> float:
    """Yearly volatility of the returns of positions before costs."""
    moved = bars.close[1:] / bars.close[:-1] - 1.0
    return float(np.std(positions[:-1] * moved) * np.sqrt(YEAR))


@pytest.fixture(scope="module")
def holed() -> Bars:
    """1,200 bars with 3 missing (carried through) and 30 missing (an outage)."""
    return without(without(random_bars(1_233, seed=3), 700, 30), 400, 3)


@unhurried
@given(STEPS, st.integers(0, 1_000))
def test_positions_are_finite_and_never_larger_than_the_cap(sizing: Sizing, seed: int) -> None:
    bars = random_bars(400, seed)
    signal = random_signal(400, seed)
    expected = np.where(signal == 0, np.nan, 0.003 * signal)
    positions = size_positions(bars, signal, sizing, 14.0, expected)
    assert positions.shape == (400,)
    assert np.isfinite(positions).all()
    assert np.abs(positions).max() <= sizing.max_position
    assert not sizing.long_only or positions.min() >= 0


@unhurried
@given(STEPS, st.integers(0, 1_000), st.integers(1, 399))
def test_no_position_depends_on_a_later_bar_or_signal(sizing: Sizing, seed: int, cut: int) -> None:
    bars = without(random_bars(420, seed), 150, 20)
    signal = random_signal(400, seed)
    whole = size_positions(bars, signal, sizing)
    assert np.array_equal(size_positions(bars[:cut], signal[:cut], sizing), whole[:cut])
    later = replace(bars, close=np.where(np.arange(400) < cut, bars.close, bars.close * 3))
    turned = np.where(np.arange(400) < cut, signal, -signal)
    assert np.array_equal(size_positions(later, turned, sizing)[:cut], whole[:cut])


@unhurried
@given(STEPS, st.integers(0, 1_000), st.booleans())
def test_the_bars_needed_give_the_position_of_all_history_to_the_bit(
    sizing: Sizing, seed: int, closes: bool
) -> None:
    calendar = Calendar.WEEKDAYS if closes else Calendar.ALWAYS
    bars = random_bars(1_500, seed, calendar=calendar)
    signal = random_signal(1_500, seed)
    whole = size_positions(bars, signal, sizing, periods_per_year=YEAR)
    # a signal without memory needs the last bar alone
    needed = sizing.bars_needed(1, AN_HOUR)
    for end in (1_500, 1_423):
        for count in (needed, needed + 1, needed + 37):
            window = slice(end - count, end)
            last = size_positions(bars[window], signal[window], sizing, periods_per_year=YEAR)[-1]
            assert last == whole[end - 1]


def test_a_bar_less_than_the_bars_needed_gives_other_positions_somewhere() -> None:
    bars = random_bars(1_500, seed=5)
    signal = random_signal(1_500, seed=5)
    whole = size_positions(bars, signal, QUICK)
    needed = QUICK.bars_needed(1) - 1
    lasts = [
        size_positions(bars[end - needed : end], signal[end - needed : end], QUICK)[-1]
        for end in range(needed, 1_500)
    ]
    assert not np.array_equal(lasts, whole[needed - 1 : -1])


@pytest.mark.parametrize("jumpiness", [0.01, 0.1, 0.5])
def test_the_bars_needed_with_a_turnover_limit_are_not_one_too_few_or_too_many(jumpiness: float) -> None:
    n = 3_000
    bars = random_bars(n, seed=1)
    rng = np.random.default_rng(1)
    signal = np.cumsum(rng.choice([-1.0, 0.0, 1.0], n) * (rng.random(n) < jumpiness)) % 3 - 1
    sizing = ABRUPT.model_copy(update={"smoothing_half_life": 0.5, "max_turnover": 2 * YEAR / 9})
    whole = size_positions(bars, signal, sizing)
    needed = sizing.bars_needed(1, AN_HOUR)
    assert needed == 22

    def differing(count: int) -> int:
        windows = (slice(end - count, end) for end in range(needed, n))
        lasts = [size_positions(bars[window], signal[window], sizing)[-1] for window in windows]
        return int(np.count_nonzero(lasts != whole[needed - 1 : -1]))

    assert differing(needed) == 0
    assert differing(needed - 1) > 0


def test_a_stretch_after_an_outage_starts_as_a_series_of_its_own(holed: Bars) -> None:
    signal = random_signal(len(holed), seed=3)
    whole = size_positions(holed, signal, QUICK)
    after = list(holed.stretches())[1].start
    alone = size_positions(holed[after:], signal[after:], QUICK)
    assert np.array_equal(whole[after:], alone)
    assert not whole[after : after + 20].any()
    assert whole[after + 20 :].any()


def test_closures_and_short_outages_cost_no_memory(holed: Bars) -> None:
    signal = np.ones(len(holed))
    positions = size_positions(holed, signal, QUICK)
    assert np.flatnonzero(holed.bridged).tolist() == [400]
    assert positions[400:420].all()


@pytest.mark.parametrize("volatility", [0.3, 0.6, 1.5])
@pytest.mark.parametrize(
    "style",
    ["constant", "signs", "faint", "slow", "a fifth of the full size"],
)
def test_realised_volatility_is_near_the_target_for_every_style_of_signal(
    volatility: float, style: str
) -> None:
    n = 2 * YEAR
    bars = random_bars(n, seed=7, volatility=volatility)
    signal = random_signal(n, seed=7)
    signals = {
        "constant": np.ones(n),
        "signs": np.where(random_signal(n, seed=8) >= 0, 1.0, -1.0),
        "faint": 0.1 * signal,
        "slow": random_signal(n, seed=9, half_life=200),
        "a fifth of the full size": np.full(n, 0.2),
    }
    assert 0.07 <= realised(bars, size_positions(bars, signals[style], Sizing())) <= 0.12


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_faint_signals_reach_the_target_while_they_are_on_with_a_small_least_scale(share: float) -> None:
    n = 2 * YEAR
    bars = random_bars(n, seed=7)
    slow = random_signal(n, seed=9, half_life=48)
    faint = 0.02 * np.where(np.abs(slow) >= np.quantile(np.abs(slow), 1 - share), slow, 0.0)
    volatilities = []
    for min_scale in (0.001, 0.05):
        positions = size_positions(bars, faint, Sizing(min_scale=min_scale))
        on = positions[:-1] != 0
        moved = bars.close[1:] / bars.close[:-1] - 1.0
        volatilities.append(np.std((positions[:-1] * moved)[on]) * np.sqrt(YEAR))
    assert 0.07 <= volatilities[0] <= 0.12
    assert volatilities[1] < 0.03


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("length", [12, 48])
def test_positions_seldom_taken_reach_the_target_while_they_are_held(share: float, length: int) -> None:
    n = 5 * YEAR
    bars = random_bars(n, seed=7)
    rng = np.random.default_rng(length)
    ends = np.cumsum(rng.geometric(share / length, n // length))
    signal = np.zeros(n)
    for end in ends[ends < n - length]:
        signal[end : end + length] = rng.choice([-1.0, 1.0])
    positions = size_positions(bars, signal, rl_v2.SIZING)
    on = positions[:-1] != 0
    moved = bars.close[1:] / bars.close[:-1] - 1.0
    assert 0.07 <= np.std((positions[:-1] * moved)[on]) * np.sqrt(YEAR) <= 0.12


def test_a_section_stored_in_full_before_a_field_keeps_the_meaning_of_its_absence() -> None:
    older = Sizing(smoothing_half_life=36.0).model_dump(exclude={"min_scale"})
    recorded = catalog.recipe(ModelType.NHITS, {"sizing": older}, Costs()).sizing
    requested = catalog.recipe(ModelType.NHITS, {"sizing.long_only": True}, Costs()).sizing
    assert recorded is not None
    assert requested is not None
    assert (recorded.min_scale, requested.min_scale) == (0.05, 0.001)
    assert catalog.version_sizing({"sizing": older}) == Sizing(smoothing_half_life=36.0)


def test_a_section_stored_before_the_turnover_limit_means_none() -> None:
    older = Sizing(scale_half_life=40.0).model_dump(exclude={"max_turnover"})
    recorded = catalog.recipe(ModelType.RL_V2, {"sizing": older}, Costs()).sizing
    requested = catalog.recipe(ModelType.RL_V2, {"sizing.long_only": True}, Costs()).sizing
    lifted = catalog.recipe(ModelType.RL_V2, {"sizing.max_turnover": "none"}, Costs()).sizing
    assert recorded is not None
    assert requested is not None
    assert lifted is not None
    assert (recorded.max_turnover, requested.max_turnover, lifted.max_turnover) == (None, 50.0, None)
    assert catalog.version_sizing({"sizing": older}) == Sizing(scale_half_life=40.0)


def test_volatility_that_doubles_halves_the_positions() -> None:
    calm = random_bars(2_000, seed=1, volatility=0.3)
    steps = np.diff(np.log(calm.close), prepend=np.log(100.0))
    steps[1_000:] *= 2
    closes = 100 * np.exp(np.cumsum(steps))
    bars = replace(calm, close=closes)
    positions = size_positions(bars, np.ones(2_000), Sizing())
    ratio = positions[1_400:].mean() / positions[400:1_000].mean()
    assert ratio == pytest.approx(0.5, abs=0.08)


def test_a_rule_that_is_seldom_on_is_not_blown_up() -> None:
    """On for one bar in a hundred: twice the size of a constant rule, not ten times."""
    n = 5_000
    bars = random_bars(n, seed=2)
    seldom = np.where(np.arange(n) // 24 % 100 == 50, 1.0, 0.0)
    sizing = Sizing(smoothing_half_life=0.0, no_trade_band=0.0)
    always = size_positions(bars, np.ones(n), sizing)
    on = seldom == 1.0
    sized = size_positions(bars, seldom, sizing)
    assert (sized[on] <= 2.0 * always[on] + 1e-12).all()
    assert not sized[~on].any()
    # half a conviction stays smaller than a whole one
    falling = np.where(np.arange(n) % 24 < 12, 1.0, 0.5) * seldom
    assert convictions_of(bars, falling, sizing)[falling == 0.5].max() < 1.5


def test_the_no_trade_band_and_smoothing_cut_the_turnover_by_more_than_half() -> None:
    bars = random_bars(YEAR, seed=4)
    signal = random_signal(YEAR, seed=4, half_life=48)
    eager = Sizing(smoothing_half_life=0.0, no_trade_band=0.0)
    turnover = [np.abs(np.diff(size_positions(bars, signal, sizing))).sum() for sizing in (eager, Sizing())]
    assert turnover[1] < 0.5 * turnover[0]


def largest_excess(positions: Floats, a_bar: float) -> float:
    """Largest excess of the turnover of any span of bars over an amount a bar."""
    turnover = np.abs(np.diff(positions, prepend=0.0)) - a_bar
    balance = np.append(0.0, np.cumsum(turnover))
    return float((balance - np.minimum.accumulate(balance)).max())


@unhurried
@given(
    st.builds(
        Sizing,
        smoothing_half_life=st.sampled_from([0.0, 3.0]),
        scale_half_life=st.just(10.0),
        target_volatility=st.sampled_from([None, 0.5]),
        volatility_half_life=st.just(5.0),
        max_position=st.sampled_from([0.3, 1.0]),
        no_trade_band=st.sampled_from([0.0, 0.6]),
        anchor_bars=st.sampled_from([1, 100]),
        max_turnover=st.sampled_from([30.0, 60.0, 300.0, 2_000.0]),
    ),
    st.integers(0, 1_000),
    st.sampled_from([0.002, 0.02, 0.3]),
    st.booleans(),
)
def test_the_turnover_of_any_span_is_at_most_the_limit_and_five_full_positions(
    sizing: Sizing, seed: int, jumpiness: float, closes: bool
) -> None:
    n = 6_000
    bars = random_bars(n, seed, calendar=Calendar.WEEKDAYS if closes else Calendar.ALWAYS)
    rng = np.random.default_rng(seed)
    jumps = rng.random(n) < jumpiness
    signal = rng.choice([-1.0, -0.5, 0.0, 0.5, 1.0], n)[np.maximum.accumulate(np.arange(n) * jumps)]
    positions = size_positions(bars, signal, sizing, periods_per_year=YEAR)
    limit = sizing.growth_limit(AN_HOUR)
    assert limit is not None
    assert sizing.max_turnover is not None
    # the hours of a closed market count as well: the excess is measured on the clock
    hours = np.diff(bars.time, prepend=bars.time[0] - HOUR) // HOUR
    held = np.repeat(positions, np.append(hours[1:], 1))
    slack = 4 * limit.allowance + sizing.max_position
    assert largest_excess(held, sizing.max_turnover / YEAR) <= slack + 1e-6
    assert sizing.max_position < limit.allowance
    assert limit.allowance <= sizing.max_position + sizing.max_turnover / 2 / YEAR + 1e-6


def test_a_turnover_limit_keeps_sides_never_adds_and_lets_positions_be_reduced_at_once() -> None:
    bars = random_bars(6_000, seed=4)
    signal = random_signal(6_000, seed=4)
    free = size_positions(bars, signal, Sizing(target_volatility=0.6))
    held = size_positions(bars, signal, Sizing(target_volatility=0.6, max_turnover=40.0))
    assert (held * free >= 0).all()
    assert (np.abs(held) <= np.abs(free)).all()
    assert not held[free == 0].any()
    turnover = [np.abs(np.diff(each)).sum() for each in (held, free)]
    assert turnover[0] < 0.8 * turnover[1]


def test_growth_beyond_the_allowance_waits_for_the_first_bar_of_the_next_period() -> None:
    bars = random_bars(1_000, seed=1)
    sizing = ABRUPT.model_copy(update={"max_turnover": 2 * YEAR / 100})
    limit = sizing.growth_limit(AN_HOUR)
    assert limit is not None
    assert (limit.period, limit.allowance) == (101, pytest.approx(1.01))
    first = int(np.flatnonzero((bars.time // HOUR + 72) % 101 == 0)[1])
    signal = np.zeros(1_000)
    # bought, given up and sold short within a period: the allowance is spent
    signal[first : first + 10] = 1.0
    signal[first + 20 :] = -1.0
    positions = size_positions(bars, signal, sizing)
    assert positions[first : first + 10].tolist() == [1.0] * 10
    assert positions[first + 20 : first + 202] == pytest.approx(-0.01)
    assert positions[first + 202 :] == pytest.approx(-1.0)


def test_a_turnover_limit_that_is_never_reached_changes_no_bit() -> None:
    bars = random_bars(3_000, seed=4)
    signal = random_signal(3_000, seed=4)
    limited = size_positions(bars, signal, Sizing(max_turnover=1_000.0))
    assert np.array_equal(limited, size_positions(bars, signal, Sizing()))


@pytest.mark.parametrize(("timeframe", "period"), [("1m", 21_025), ("1h", 351), ("1d", 15), ("1w", 3)])
def test_the_memory_of_a_turnover_limit_is_a_span_of_time(timeframe: str, period: int) -> None:
    sizing = Sizing(max_turnover=50.0)
    seconds = Timeframe(timeframe).seconds
    assert sizing.bars_needed(7, seconds) == Sizing().bars_needed(7) + 2 * period
    assert sizing.bars_by_signal(sizing.bars_needed(7, seconds), seconds) == 7
    with pytest.raises(ValueError, match="name the length of a bar"):
        sizing.bars_needed(7)


@unhurried
@given(sizings=st.lists(STEPS, min_size=2, max_size=4), seed=st.integers(0, 3))
def test_positions_are_the_same_whatever_was_sized_before_on_the_same_bars(
    sizings: list[Sizing], seed: int
) -> None:
    bars = random_bars(400, seed)
    signal = np.sign(np.random.default_rng(seed).standard_normal(400))
    for number, sizing in enumerate([*sizings, *reversed(sizings)]):
        per_year = YEAR + number % 2
        positions = size_positions(bars, signal, sizing, periods_per_year=per_year)
        # bars never sized before
        anew = size_positions(replace(bars), signal, sizing, periods_per_year=per_year)
        np.testing.assert_array_equal(positions, anew)


def test_between_anchors_a_position_within_the_band_is_kept() -> None:
    bars = random_bars(2_000, seed=4)
    signal = random_signal(2_000, seed=4, half_life=48)
    targets = size_positions(bars, signal, Sizing(no_trade_band=0.0, anchor_bars=10_000))
    held = size_positions(bars, signal, Sizing(anchor_bars=10_000))
    moved = np.flatnonzero(np.diff(held)) + 1
    assert np.array_equal(held[moved], targets[moved])
    assert len(moved) < 400


def test_an_expected_return_below_the_costs_takes_no_position_and_an_unknown_one_does() -> None:
    bars = random_bars(600, seed=6)
    signal = np.ones(600)
    expected = np.where(np.arange(600) < 400, 0.0029, 0.0027)
    expected[500:] = np.nan
    sizing = QUICK.model_copy(update={"min_edge": 2.0})
    positions = size_positions(bars, signal, sizing, round_trip_bps=14.0, expected_return=expected)
    assert positions[100:400].all()
    assert not positions[400:500].any()
    assert positions[500:].all()


def test_a_price_that_does_not_move_takes_no_position() -> None:
    bars = random_bars(400, seed=1, volatility=0.0)
    assert not size_positions(bars, np.ones(400), QUICK).any()


def test_five_years_of_hourly_bars_take_well_under_50_ms() -> None:
    bars = random_bars(44_000, seed=1)
    signal = random_signal(44_000, seed=1)
    size_positions(bars, signal, Sizing())
    seconds = []
    for _ in range(5):
        began = time.process_time()
        size_positions(bars, signal, Sizing())
        seconds.append(time.process_time() - began)
    assert min(seconds) < 0.05


def params_of(params: dict[str, Any]) -> dict[str, Any]:
    return catalog.requested_params(ModelType.XGBOOST, params)


def test_a_request_is_stored_with_every_value_of_both_sections() -> None:
    stored = params_of({"max_depth": 4, "sizing.target_volatility": "0.15", "execution": {"stop_loss": 0.05}})
    assert stored["sizing"] == SIZING.model_copy(update={"target_volatility": 0.15}).model_dump(mode="json")
    assert stored["execution"] == {
        "stop_loss": 0.05,
        "take_profit": None,
        "lot_size": None,
        "rebalance_band": 0.02,
    }
    assert params_of(stored) == stored


def test_the_rules_of_the_installation_are_the_defaults_of_a_request() -> None:
    rules = ExecutionRules(stop_loss=0.1, rebalance_band=0.05)
    stored = catalog.requested_params(ModelType.XGBOOST, {"execution.lot_size": 2}, execution=rules)
    assert ExecutionRules(**stored["execution"]) == rules.model_copy(update={"lot_size": 2.0})


def test_stored_parameters_without_sections_mean_no_sizing_and_fixed_units() -> None:
    recipe = catalog.recipe(
        ModelType.XGBOOST, catalog.stored_params(ModelType.XGBOOST, {"max_depth": 4}), Costs()
    )
    assert recipe.sizing is None
    assert recipe.execution == ExecutionRules()
    assert recipe.execution.rebalance_band is None
    assert recipe.describe()["sizing"] == "none"


def test_sizing_none_and_a_band_of_none_are_written_as_text() -> None:
    stored = params_of({"sizing": "none", "execution.rebalance_band": "none"})
    assert stored["sizing"] == "none"
    assert stored["execution"]["rebalance_band"] is None


def test_the_cost_of_a_round_trip_comes_from_the_market() -> None:
    recipe = catalog.recipe(ModelType.XGBOOST, {}, Costs(fee_bps=1.0, slippage_bps=0.5))
    assert recipe.sizing is not None
    assert recipe.sizing.round_trip_bps == 3.0
    assert params_of({})["sizing"]["round_trip_bps"] is None


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"sizing": {"target": 1}}, r"sizing\.target: .*Valid parameters: sizing\.smoothing_half_life"),
        ({"sizing.target_volatility": -1}, r"sizing\.target_volatility: .*greater than 0"),
        (
            {"sizing": "full"},
            r'sizing=full: name a value, as sizing\.target_volatility=0\.15, or sizing="none"',
        ),
        ({"sizing": "none", "sizing.long_only": True}, r"sizing=none: name a value|given twice"),
        ({"sizing": {"long_only": True}, "sizing.long_only": False}, r"sizing\.long_only is given twice"),
        ({"execution": "none"}, r"execution=none: name a value, as execution\.stop_loss=0\.05"),
        ({"execution.stop": 0.1}, r"execution\.stop: .*Valid parameters: execution\.stop_loss"),
        ({"execution.initial_cash": 5}, r"execution\.initial_cash: "),
        ({"target_volatility": 0.1}, r"Valid parameters: .*sizing\.NAME, execution\.NAME"),
    ],
)
def test_a_bad_section_is_refused_with_the_valid_names(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidTrainingParams, match=message):
        catalog.recipe(ModelType.XGBOOST, params, Costs())
