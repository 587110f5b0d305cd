"""Walk-forward: folds, purging and absence of leaks, on series with a known pattern."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from clm_core.backtest.engine import backtest
from clm_core.backtest.walk_forward import OutOfSample, final_rows, fold_rows, split, walk_forward
from clm_core.domain.costs import Costs
from clm_core.domain.errors import NotEnoughBars
from clm_core.domain.execution import Execution
from clm_core.domain.sizing import Sizing
from clm_core.domain.vocabulary import ModelType
from clm_core.domain.walk_forward import FoldGrid, WalkForwardPlan, effective_span
from clm_core.market.bars import Bars, Floats
from clm_core.market.labels import direction
from clm_core.market.look_ahead import first_leak, other_futures
from clm_core.market.panel import Times
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.models.catalog import recipe
from clm_core.models.contract import Progress, TrainedOn
from clm_core.models.kind import EXPENSIVE_FOLDS
from clm_core.models.sizing import size_positions
from clm_core.testing.contract import recipe_of

SEED = 3
PLAN = WalkForwardPlan(folds=3, embargo_bars=10)
ONE_FOLD = WalkForwardPlan(folds=1, first_train_fraction=0.6, embargo_bars=10)
BOOSTED = [ModelType.XGBOOST, ModelType.LIGHTGBM]
LEARNT_BY_TRADING: dict[ModelType, dict[str, Any]] = {
    # an eighth of the default, after which seeds 0 to 5 earn 15 to 17 bps per bar with the planted pattern
    ModelType.RL_V2: {"bars_played": 8_000},
    ModelType.RL_V3: {},
}
FAST = {"rounds": 30, "learning_rate": 0.1, "horizon": 1, "threshold": 0.0}
LEARNERS = {
    **dict.fromkeys(BOOSTED, FAST),
    # the model kept after 120 steps is one of the first 60: seed 3 is as often right, to four digits
    ModelType.NHITS: {"horizon": 1, "learning_rate": 2e-3, "steps": 60, "patience": 3},
    ModelType.PATCHTST: {
        "horizon": 1,
        "learning_rate": 2e-3,
        # seeds 0 to 5 are right about 0.647 to 0.653 of the planted pattern, after 120 steps too
        "steps": 60,
        "patience": 3,
        "input_size": 24,
        "patch_len": 8,
        "hidden_size": 16,
        "heads": 2,
        "layers": 1,
    },
}
MEMBERS = [
    {
        "asked": f"{kind}_test_1h@v1",
        "model_id": f"{kind}_test_1h",
        "version": "v1",
        "model_type": kind.value,
        "params": FAST,
        "bundle_digest": "0" * 64,
    }
    for kind in BOOSTED
]
EVERY_LEARNER: dict[str, dict[str, Any]] = {
    **LEARNERS,
    "ridge": {"horizon": 1, "threshold": 0.0},
    ModelType.ENSEMBLE: {"members": MEMBERS, "folds": 2},
}
SMALL: dict[ModelType, dict[str, Any]] = {
    **{kind: {**params, "rounds" if kind in BOOSTED else "steps": 10} for kind, params in LEARNERS.items()},
    ModelType.RL_V2: {"bars_played": 3_000, "memory": 24},
    ModelType.RL_V3: {"bars_played": 10_000, "memory": 24},
}


def series(momentum: float, n: int = 3000, seed: int = 11, deviation: float = 0.005) -> Bars:
    """Hourly bars with autoregressive one-bar log returns; `momentum` is the coefficient, 0 for none, and
    `deviation` that of the new part of a return."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, deviation, n)
    for t in range(1, n):
        steps[t] += momentum * steps[t - 1]
    close = 1000 * np.exp(np.cumsum(steps))
    open_ = np.concatenate([close[:1], close[:-1]])
    wick = 1 + rng.exponential(0.001, n)
    time = np.arange(n, dtype=np.int64) * Timeframe.H1.nanoseconds
    high = np.maximum(open_, close) * wick
    low = np.minimum(open_, close) / wick
    return Bars("TEST", Timeframe.H1, Calendar.ALWAYS, time, open_, high, low, close, rng.lognormal(3, 1, n))


@dataclass(frozen=True)
class RevealingModel:
    """A model that reveals the number of training bars by its positions, of given bars by its forecasts."""

    trained_on: TrainedOn
    model_type: ModelType = ModelType.OTHER
    train_metrics: dict[str, float] = field(default_factory=dict)

    def positions(self, bars: Bars) -> Floats:
        return np.full(len(bars), 1 / self.trained_on.bars)

    def forecast(self, bars: Bars) -> Floats:
        return np.full(len(bars), 1 / len(bars))

    def importances(self) -> dict[str, float]:
        return {}

    def save(self, folder: Path) -> None:
        (folder / "memory.json").write_text("{}")


@dataclass(frozen=True)
class RecordingRecipe:
    """A recipe that records the bars of every fit."""

    seen: list[Bars] = field(default_factory=list)
    model_type: ModelType = ModelType.OTHER

    def describe(self) -> dict[str, Any]:
        return {}

    def fit(self, bars: Bars, seed: int, progress: Progress | None = None) -> RevealingModel:
        self.seen.append(bars)
        for done in (0.5, 1.0):
            if progress:
                progress(done)
        return RevealingModel(TrainedOn.of(bars, seed))


def hits(result: OutOfSample, bars: Bars) -> float:
    """Share of out-of-sample forecasts on the right side of one half."""
    rises = direction(bars, horizon=1).values
    known = ~np.isnan(rises) & ~np.isnan(result.forecast)
    return float(np.mean((result.forecast[known] > 0.5) == (rises[known] > 0.5)))


def mean_log_return(result: OutOfSample, bars: Bars, costs: Costs) -> float:
    """Mean log return per out-of-sample bar."""
    equity = backtest(
        bars[result.rows], result.positions[result.rows], costs, Execution(initial_cash=1.0)
    ).equity
    return float(np.log(equity[-1])) / len(equity)


@pytest.mark.parametrize("kind", EVERY_LEARNER)
def test_a_planted_pattern_is_found_out_of_sample(kind: str):
    bars = series(momentum=0.5)
    learner = recipe_of(kind, EVERY_LEARNER[kind])
    # knowing the rule, sign(last return), is right with probability 1/2 + asin(0.5) / pi = 2/3
    assert hits(walk_forward(learner, bars, PLAN, SEED), bars) > 0.6


@pytest.mark.parametrize("kind", [*LEARNERS, "ridge"])
def test_no_pattern_is_found_in_a_series_without_a_pattern(kind: str):
    bars = series(momentum=0.0)
    learner = recipe_of(kind, EVERY_LEARNER[kind])
    # 1,800 forecasts: three standard errors are 0.035
    assert abs(hits(walk_forward(learner, bars, PLAN, SEED), bars) - 0.5) < 0.035


@pytest.mark.parametrize("model_type", LEARNT_BY_TRADING)
def test_a_planted_pattern_is_traded_at_a_profit_out_of_sample_and_after_costs(model_type: ModelType):
    bars = series(momentum=0.5)
    # the pattern lasts a bar, and the default smoothing would leave little even of the known rule
    policy = recipe(model_type, LEARNT_BY_TRADING[model_type] | {"sizing": "none"}, Costs())
    result = walk_forward(policy, bars, ONE_FOLD, SEED)
    # trading each sign of the known rule earns some 15 bps per bar after costs
    assert 10_000 * mean_log_return(result, bars, Costs()) > 10


def test_sized_by_default_a_policy_trades_a_slow_pattern_at_a_profit_and_seldom():
    # the half-life of a return is 46 bars
    bars = series(momentum=0.985, deviation=0.0005)
    result = walk_forward(recipe(ModelType.RL_V3, {}, Costs()), bars, ONE_FOLD, SEED)
    known_rule = np.sign(np.diff(bars.close, prepend=bars.close[0]))
    best = replace(result, positions=size_positions(bars, known_rule, Sizing()))
    assert mean_log_return(result, bars, Costs()) > 0.5 * mean_log_return(best, bars, Costs()) > 0
    assert np.abs(np.diff(result.positions[result.rows])).mean() < 0.01


@pytest.mark.parametrize("model_type", LEARNT_BY_TRADING)
def test_a_policy_without_a_pattern_to_learn_earns_nothing_before_costs_and_trades_little(
    model_type: ModelType,
):
    bars = series(momentum=0.0)
    result = walk_forward(recipe(model_type, {"sizing": "none"}, Costs()), bars, ONE_FOLD, SEED)
    # 1,200 bars of 50 bps: three standard errors are 4.3 bps for a policy always in the market
    assert abs(10_000 * mean_log_return(result, bars, Costs(fee_bps=0, slippage_bps=0))) < 4.3
    assert np.abs(np.diff(result.positions[result.rows])).mean() < 0.15


@pytest.mark.parametrize("model_type", list(SMALL))
def test_positions_do_not_depend_on_the_number_of_folds_fitted_in_parallel(model_type: ModelType):
    bars = series(momentum=0.3, n=1500)
    fast = recipe(model_type, SMALL[model_type], Costs())
    sequential, parallel = (walk_forward(fast, bars, PLAN, SEED, workers=workers) for workers in (1, 3))
    assert np.array_equal(sequential.positions, parallel.positions)
    assert np.array_equal(sequential.forecast, parallel.forecast, equal_nan=True)
    assert sequential.folds == parallel.folds


def test_no_test_row_uses_a_later_bar_not_even_through_the_training_of_its_model():
    bars = series(momentum=0.3, n=1500)
    fast = recipe(ModelType.LIGHTGBM, {**FAST, "rounds": 5}, Costs())

    def positions(changed: Bars) -> Floats:
        # the folds stay the same: only the bars after the cut differ
        padded = np.zeros(len(changed))
        for train, test in split(len(bars), PLAN):
            if test.stop <= len(changed):
                padded[test] = fast.fit(changed[train], SEED).positions(changed[: test.stop])[test]
        return padded

    assert np.array_equal(positions(bars), walk_forward(fast, bars, PLAN, SEED).positions)
    assert first_leak(positions, bars, [899, 1199]) is None


def test_folds_with_warm_start_continue_the_fold_before_and_see_no_later_bar():
    bars = series(momentum=0.3, n=1500)
    params = {**LEARNERS[ModelType.NHITS], "steps": 6, "warm_start_steps": 3}
    warm = recipe(ModelType.NHITS, params, Costs())
    result = walk_forward(warm, bars, PLAN, SEED)
    (first, test), (second, later), _ = split(len(bars), PLAN)
    older = warm.fit(bars[first], SEED)
    newer = warm.fit_after(older, bars[second], SEED)
    assert np.array_equal(result.positions[test], older.positions(bars[: test.stop])[test])
    assert np.array_equal(result.forecast[later], newer.forecast(bars[: later.stop])[later])
    changed = next(other for kind, other in other_futures(bars, test.stop - 1) if kind == "reversed")
    assert np.array_equal(walk_forward(warm, changed, PLAN, SEED).positions[test], result.positions[test])


@given(
    n_bars=st.integers(200, 5000),
    folds=st.integers(1, 9),
    fraction=st.floats(0.2, 0.8),
    embargo=st.integers(0, 20),
    train_bars=st.none() | st.integers(1, 500),
)
def test_folds_test_every_row_after_the_first_once_and_train_on_older_rows_only(
    n_bars: int, folds: int, fraction: float, embargo: int, train_bars: int | None
):
    plan = WalkForwardPlan(
        folds=folds, first_train_fraction=fraction, embargo_bars=embargo, train_bars=train_bars
    )
    cuts = split(n_bars, plan)
    tested = [row for _, test in cuts for row in range(test.start, test.stop)]
    assert len(cuts) == folds
    assert tested == list(range(int(n_bars * fraction), n_bars))
    lengths = [test.stop - test.start for _, test in cuts]
    assert max(lengths) - min(lengths) <= 1
    for train, test in cuts:
        assert 0 <= train.start < train.stop == test.start - embargo
        assert train.start == 0 if train_bars is None else train.stop - train.start <= train_bars


def test_each_model_is_fitted_on_the_training_rows_of_its_fold_only():
    bars = series(0.0, n=1000)
    recording = RecordingRecipe()
    result = walk_forward(recording, bars, PLAN, SEED, workers=1)
    assert [(seen.start, seen.end) for seen in recording.seen] == [
        (fold.train_start, fold.train_end) for fold in result.folds
    ]
    assert [len(seen) for seen in recording.seen] == [390, 590, 790]


def test_a_label_in_need_of_a_test_bar_is_undefined_in_the_training_rows():
    bars = series(0.0, n=1000)
    horizon = 24
    for train, test in split(len(bars), WalkForwardPlan(folds=4, embargo_bars=0)):
        assert direction(bars[train], horizon).end.max() < test.start


def test_rows_before_the_first_test_row_have_no_position_and_later_rows_those_of_their_fold():
    bars = series(0.0, n=1000)
    result = walk_forward(RecordingRecipe(), bars, PLAN, SEED)
    assert result.rows == slice(400, 1000)
    assert np.all(result.positions[:400] == 0)
    assert np.all(np.isnan(result.forecast[:400]))
    assert result.positions[[400, 599, 600, 800, 999]].tolist() == [
        1 / 390,
        1 / 390,
        1 / 590,
        1 / 790,
        1 / 790,
    ]
    assert result.forecast[[400, 599, 600, 999]].tolist() == [1 / 600, 1 / 600, 1 / 800, 1 / 1000]
    assert [(fold.test_start, fold.test_end) for fold in result.folds] == [
        (bars[fold.test].start, bars[fold.test].end) for fold in result.folds
    ]


def test_a_rolling_window_forgets_the_oldest_bars():
    bars = series(0.0, n=1000)
    recording = RecordingRecipe()
    walk_forward(recording, bars, PLAN.model_copy(update={"train_bars": 300}), SEED, workers=1)
    assert [len(seen) for seen in recording.seen] == [300, 300, 300]


def test_progress_adds_up_over_folds_and_ends_at_one():
    reported: list[float] = []
    walk_forward(RecordingRecipe(), series(0.0, n=1000), PLAN, SEED, reported.append)
    assert reported == pytest.approx([share / 6 for share in range(1, 7)])


@pytest.mark.parametrize(
    ("n_bars", "plan"),
    [
        (0, WalkForwardPlan()),
        (50, WalkForwardPlan(embargo_bars=24)),
        (10, WalkForwardPlan(folds=9, embargo_bars=0)),
    ],
    ids=["no bars", "embargo eats the training rows", "more folds than test rows"],
)
def test_too_few_bars_for_the_plan_are_refused(n_bars: int, plan: WalkForwardPlan):
    with pytest.raises(NotEnoughBars, match=f"{n_bars} bars cannot be walked forward"):
        split(n_bars, plan)


def test_a_fold_with_too_few_rows_to_fit_is_refused_by_the_recipe():
    with pytest.raises(NotEnoughBars, match="rows to fit on"):
        walk_forward(recipe(ModelType.XGBOOST, FAST, Costs()), series(0.0, n=800), PLAN, SEED)


def test_too_few_days_are_refused_with_the_days_that_the_market_takes():
    """A share has 252 daily bars a year: 365 days are too few, and the days named are enough."""
    whole = days_of_new_york(12)
    fitting = recipe(ModelType.XGBOOST, FAST, Costs())
    with pytest.raises(
        NotEnoughBars, match=r"which are (\d+) days of this market \(25\d bars a year\)"
    ) as refused:
        walk_forward(fitting, whole.last_days(365), WalkForwardPlan(), SEED)
    days = int(re.search(r"--days (\d+)", str(refused.value))[1])
    assert 1500 < days < 2000
    assert len(walk_forward(fitting, whole.last_days(days), WalkForwardPlan(), SEED).folds) > 5


def days_of_new_york(years: int) -> Bars:
    from exchange_calendars import get_calendar

    time = get_calendar("XNYS", start="2005-01-03", end=f"{2004 + years}-12-31").sessions.as_unit("ns").asi8
    walk = series(0.2, n=len(time))
    return replace(walk, timeframe=Timeframe.D1, calendar=Calendar("XNYS"), time=time)


START = pd.Timestamp("2022-11-17 05:00").value
FIVE_YEARS = WalkForwardPlan().for_request(1825, 1825)


def hours(days: float, first: int = START) -> Times:
    """Open times of hourly bars."""
    return first + np.arange(int(days * 24), dtype=np.int64) * Timeframe.H1.nanoseconds


def moments(time: Times, plan: WalkForwardPlan) -> dict[str, tuple[int, int, int]]:
    """First and last training bar and last test bar by the first test bar of each fold."""
    return {
        str(pd.Timestamp(time[test.start])): (
            int(time[train.start]), int(time[train.stop - 1]), int(time[test.stop - 1])
        )
        for train, test in fold_rows(time, plan)
    }  # fmt: skip


def test_three_years_out_of_sample_take_twelve_fits_that_begin_with_the_quarters():
    dates = list(moments(hours(1825), FIVE_YEARS))
    assert len(dates) == 12
    assert dates[0] == "2025-01-01 00:00:00"
    assert dates[-1] == "2027-10-01 00:00:00"
    assert FIVE_YEARS.grid is FoldGrid.QUARTER


def test_a_kind_with_costly_fits_has_six_that_begin_with_the_half_years():
    plan = WalkForwardPlan().for_request(1825, 1825, EXPENSIVE_FOLDS)
    dates = list(moments(hours(1825), plan))
    assert dates == [f"{year}-0{month}-01 00:00:00" for year in (2025, 2026, 2027) for month in (1, 7)]


def test_every_fold_trains_on_the_same_span_before_its_date_less_the_embargo():
    time = hours(1825)
    for first_test, (first, last, _) in moments(time, FIVE_YEARS).items():
        date = pd.Timestamp(first_test)
        assert pd.Timestamp(first) == date - pd.Timedelta(days=730)
        assert pd.Timestamp(last) == date - pd.Timedelta(hours=FIVE_YEARS.embargo_bars + 1)


@given(
    days=st.sampled_from((30, 60, 120, 365, 1825)),
    later_hours=st.integers(1, 24 * 200),
    start=st.integers(0, 24 * 400),
)
def test_a_later_run_changes_no_fold_that_has_ended_and_cuts_none_of_its_training_rows(
    days: int, later_hours: int, start: int
):
    plan = WalkForwardPlan().for_request(days, days)
    first = START + start * Timeframe.H1.nanoseconds
    before = moments(hours(days, first), plan)
    after = moments(hours(days, first + later_hours * Timeframe.H1.nanoseconds), plan)
    for date in before.keys() & after.keys():
        *trained, tested_to = before[date]
        assert trained == list(after[date][:2])
        assert tested_to <= after[date][2]
    # the dates of the later run are those of the earlier one, without the oldest and with newer ones
    assert [date for date in after if date in before] == [date for date in before if date >= min(after)]


def test_longer_history_than_requested_changes_no_fold():
    time = hours(2500)
    requested = moments(time[-1825 * 24 :], FIVE_YEARS)
    whole = moments(time, FIVE_YEARS)
    assert requested.items() <= whole.items()
    assert len(whole) > len(requested)


def test_the_final_fit_has_the_span_of_a_fold_and_ends_with_the_newest_bar():
    time = hours(1825)
    rows = final_rows(time, FIVE_YEARS)
    assert rows == slice(1095 * 24, 1825 * 24)
    assert final_rows(time, PLAN) == slice(0, len(time))


def test_the_final_fit_of_a_short_request_has_all_bars():
    plan = WalkForwardPlan().for_request(364, 364)
    assert final_rows(hours(364), plan) == slice(0, 364 * 24)
    year = WalkForwardPlan().for_request(365, 365)
    assert final_rows(hours(365), year) == slice(219 * 24, 365 * 24)


def test_a_rolling_number_of_bars_takes_the_place_of_the_training_span():
    plan = FIVE_YEARS.model_copy(update={"train_bars": 1000})
    folds = fold_rows(hours(1825), plan)
    assert {train.stop - train.start for train, _ in folds} == {1000}
    assert final_rows(hours(1825), plan) == slice(1825 * 24 - 1000, 1825 * 24)


@pytest.mark.parametrize(
    ("requested", "series", "span"),
    [
        (1825, 1825, 1825),
        (1825, 1400, 1825),
        (1825, 1300, 1095),
        (1825, 400, 365),
        (1825, 700, 365),
        (1825, 361, 365),
        (8760, 1825, 1825),
        (8760, 6000, 5475),
        (36_500, 9125, 7300),
        (60, 61, 60),
        (90, 20, 14),
        (90, 3.5, 3),
    ],
)
def test_a_series_much_shorter_than_requested_has_the_longest_shorter_span(
    requested: int, series: float, span: int
):
    assert effective_span(requested, series) == span


def test_positions_of_a_past_fold_do_not_depend_on_the_bars_loaded_before_it_or_after():
    bars = series(0.3, n=24 * 100)
    fast = recipe_of("ridge", {"horizon": 1, "threshold": 0.0, "sizing": "none"})
    plan = WalkForwardPlan(embargo_bars=10).for_request(60, 60)
    early = bars[: 24 * 80]
    late = bars[24 * 20 :]
    one, other = (walk_forward(fast, loaded, plan, SEED) for loaded in (early, late))
    # the last date of the early run is one whose fold both runs have; its rows up to the end of the early run
    first = one.folds[-1].test_start
    assert first in [fold.test_start for fold in other.folds]
    ours = one.positions[early.row_after(first) - 1 :]
    begin = late.row_after(first) - 1
    assert np.abs(ours).max() > 0
    assert np.array_equal(ours, other.positions[begin : begin + len(ours)])


def test_the_model_of_a_fold_knows_the_bars_from_its_first_training_bar_on_and_no_older_one():
    plan = WalkForwardPlan().for_request(60, 60)
    result = walk_forward(RecordingRecipe(), series(0.0, n=24 * 60), plan, SEED)
    for fold in result.folds:
        assert result.forecast[fold.test.start] == 1 / (fold.test.stop - fold.train.start)


def test_a_corrected_bar_changes_the_folds_that_saw_the_bar_and_no_earlier_one():
    bars = series(0.3, n=24 * 60)
    plan = WalkForwardPlan(embargo_bars=10).for_request(60, 60)
    fast = recipe_of("ridge", {"horizon": 1, "threshold": 0.0, "sizing": "none"})
    before = walk_forward(fast, bars, plan, SEED)
    row = before.folds[2].test.start
    close = bars.close.copy()
    close[row] *= 1.1
    corrected = replace(bars, close=close, high=np.maximum(bars.high, close))
    after = walk_forward(fast, corrected, plan, SEED)
    assert np.array_equal(before.positions[:row], after.positions[:row])
    assert not np.array_equal(before.positions[row:], after.positions[row:])


def test_a_plan_stored_before_folds_had_dates_keeps_its_folds_and_its_digest():
    stored = {"folds": 5, "first_train_fraction": 0.4, "embargo_bars": 24, "seeds": 1, "train_bars": None}
    plan = WalkForwardPlan.model_validate(stored)
    assert plan.recorded() == stored
    assert plan.for_request(1825, 1825) == plan
    assert fold_rows(hours(100), plan) == split(2400, plan)


@pytest.mark.parametrize(
    "wrong",
    [{"folds": 0}, {"first_train_fraction": 1.0}, {"embargo_bars": -1}, {"train_bars": 0}, {"fold": 3}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_an_invalid_plan_is_refused(wrong: dict[str, Any]):
    with pytest.raises(ValidationError):
        WalkForwardPlan(**wrong)
