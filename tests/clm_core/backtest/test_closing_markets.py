"""Markets that close: the backtest runs across closures, and annual figures count the bars that exist."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_core.backtest.engine import backtest
from clm_core.backtest.metrics import summarise
from clm_core.domain.costs import Costs
from clm_core.domain.execution import Execution
from clm_core.market.bars import Bars
from clm_core.market.calendars import learn
from clm_core.market.features import LOOK_BACK, compute_features
from clm_core.market.labels import forward_return
from clm_core.market.look_ahead import first_leak
from clm_core.market.timeframes import Calendar, Timeframe

HOUR = Timeframe.H1.nanoseconds
FREE = Costs(fee_bps=0, slippage_bps=0)


def share(sessions: int, seed: int = 5, calendar: str = "XNYS") -> Bars:
    """Hourly bars of a share in New York, a random walk that also moves overnight."""
    from exchange_calendars import get_calendar

    schedule = get_calendar("XNYS", start="2015-01-02", end="2020-12-31").schedule[:sessions]
    opens = schedule["open"].dt.as_unit("ns").astype("int64").tolist()
    closes = schedule["close"].dt.as_unit("ns").astype("int64").tolist()
    hours = [np.arange(o // HOUR * HOUR, c, HOUR) for o, c in zip(opens, closes, strict=True)]
    time = np.concatenate(hours)
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.004, len(time))))
    overnight = np.concatenate([[0], np.diff(time) > HOUR]) * rng.normal(0, 0.01, len(time))
    open_ = np.concatenate([close[:1], close[:-1]]) * np.exp(overnight)
    wick = 1 + rng.exponential(0.001, len(time))
    high = np.maximum(open_, close) * wick
    low = np.minimum(open_, close) / wick
    volume = rng.lognormal(3, 1, len(time))
    return Bars("SHARE", Timeframe.H1, Calendar(calendar), time, open_, high, low, close, volume)


def holes(bars: Bars, *spans: slice) -> Bars:
    keep = np.ones(len(bars), dtype=np.bool_)
    for span in spans:
        keep[span] = False
    columns = {name: getattr(bars, name)[keep] for name in ("time", "open", "high", "low", "close", "volume")}
    return replace(bars, **columns)


SHARE = share(900)
WITH_HOLES = holes(SHARE, slice(2003, 2006), slice(4000, 4040))
"""A share with an outage of 3 bars that is carried through and a long one."""


class TestAcrossClosures:
    @pytest.mark.parametrize("calendar", ["XNYS", "learnt"])
    def test_a_night_is_no_outage_for_features_and_labels(self, calendar):
        name = str(learn(SHARE.time, SHARE.timeframe)) if calendar == "learnt" else calendar
        bars = replace(SHARE, calendar=Calendar(name))
        assert compute_features(bars).complete[LOOK_BACK:].all()
        labels = forward_return(bars, 24)
        assert np.array_equal(np.flatnonzero(labels.end < 0), np.arange(len(bars) - 25, len(bars)))

    def test_the_overnight_gap_is_a_return_like_any_other(self):
        first_of_day = int(np.flatnonzero(np.diff(SHARE.time) > HOUR)[200]) + 1
        table = compute_features(SHARE, ["log_return_1", "opening_gap"])
        moved = np.log(SHARE.close[first_of_day] / SHARE.close[first_of_day - 1])
        gap = np.log(SHARE.open[first_of_day] / SHARE.close[first_of_day - 1])
        assert table.values[first_of_day] == pytest.approx([moved, gap], rel=1e-9)

    def test_no_feature_or_label_uses_a_later_bar(self):
        rows = [1000, 2002, 2003, 3999, 4000, int(np.flatnonzero(np.diff(WITH_HOLES.time) > HOUR)[300])]
        for bars in (WITH_HOLES, replace(WITH_HOLES, calendar=learn(WITH_HOLES.time, Timeframe.H1))):
            assert first_leak(lambda b: compute_features(b).values, bars, rows) is None
            assert first_leak(lambda b: compute_features(b).bridged.astype(float), bars, rows) is None

    def test_a_short_outage_is_carried_through_and_marked_and_a_long_one_warms_up_anew(self):
        table = compute_features(WITH_HOLES)
        assert np.flatnonzero(table.bridged).tolist() == [2003]
        incomplete = np.flatnonzero(~table.complete).tolist()
        assert incomplete == [*range(LOOK_BACK), *range(3997, 3997 + LOOK_BACK)]
        before = compute_features(WITH_HOLES.under(gap_rules=1))
        assert not before.bridged.any()
        assert np.count_nonzero(~before.complete) == 3 * LOOK_BACK

    @given(first=st.integers(0, 4000), length=st.integers(2, 1000), seed=st.integers(0, 2**32 - 1))
    def test_the_engine_earns_the_same_with_and_without_closing_times(self, first, length, seed):
        bars = SHARE[first : first + length]
        contiguous = replace(bars, calendar=Calendar.ALWAYS, time=bars.time[0] + np.arange(length) * HOUR)
        positions = np.random.default_rng(seed).choice([-1.0, 0.0, 0.5, 1.0], length)
        rules = Execution(stop_loss=0.02, take_profit=0.03)
        closing = backtest(bars, positions, Costs(), rules)
        always = backtest(contiguous, positions, Costs(), rules)
        assert np.array_equal(closing.equity, always.equity)

    def test_a_stop_fills_at_the_open_beyond_it_after_a_night(self):
        time = np.array([18, 19, 20, 38, 39], dtype=np.int64) * HOUR
        open_ = np.array([100.0, 100.0, 100.0, 90.0, 91.0])
        bars = Bars("S", Timeframe.H1, Calendar.ALWAYS, time, open_, open_ + 1, open_ - 1, open_, open_)
        result = backtest(bars, np.ones(5), FREE, Execution(stop_loss=0.05))
        assert result.trades.exit_price.tolist() == [90.0]
        assert result.equity[-1] == pytest.approx(0.9 * result.equity[0])


class TestAnnualFigures:
    @pytest.mark.parametrize(("sessions", "a_year"), [(900, 1757), (60, 1757), (15, 1757)])
    def test_bars_a_year_are_those_of_the_exchange(self, sessions, a_year):
        assert SHARE[: sessions * 7].periods_per_year == pytest.approx(a_year, rel=0.03)

    def test_annual_figures_are_those_of_a_hand_calculation(self):
        positions = np.sign(np.sin(np.arange(len(SHARE)) / 9))
        result = backtest(SHARE, positions, Costs(), Execution())
        metrics = summarise(result, SHARE.periods_per_year)
        span = pd.Timestamp(SHARE.end) - pd.Timestamp(SHARE.start) + pd.Timedelta("1h")
        years = span / pd.Timedelta("365.25D")
        returns = result.returns
        a_year = len(SHARE) / years
        below = np.minimum(returns, 0.0)
        assert SHARE.periods_per_year == pytest.approx(a_year)
        assert metrics.sharpe_ratio == pytest.approx(
            returns.mean() / returns.std() * np.sqrt(a_year), rel=1e-3
        )
        assert metrics.sortino_ratio == pytest.approx(
            returns.mean() / np.sqrt(np.mean(below**2)) * np.sqrt(a_year), rel=1e-3
        )
        assert metrics.volatility == pytest.approx(returns.std() * np.sqrt(a_year), rel=1e-3)
        assert metrics.cagr == pytest.approx(np.prod(1 + returns) ** (1 / years) - 1, rel=1e-6)
        assert metrics.turnover == pytest.approx(result.turnover.sum() / years, rel=1e-6)
