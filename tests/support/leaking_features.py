"""Own features with the leaks that public tools miss, and harmless ones that such tools accuse.

The classes of freqtrade's issues, as features: #11346 passes the analysis with the value of the next bar, and
with bars of a longer timeframe merged before their close; #13547, #12168 and #10380 are accused without a
leak, because the strategy's answers depend on the other pairs of the run, come with a delay, or depend on
state that another run left behind.
"""

import math

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

from clm_core.market.bars import Bars, Floats
from clm_core.market.own_features import feature

STATE = {"calls": 0, "high": 0.0}
HOUR = 3_600_000_000_000


@feature(warm_up=0)
def next_bar(bars: Bars) -> Floats:
    """A single bar of the future, in every row (#11346)."""
    return np.append(bars.close[1:] / bars.close[:-1] - 1, 0.0)


@feature(warm_up=24)
def longer_timeframe_merged_early(bars: Bars) -> Floats:
    """Close of the day, from the first hour of the day on (#11346)."""
    day = pd.Series(bars.time // (24 * HOUR))
    close = pd.Series(bars.close)
    return (close.groupby(day).transform("last") / close - 1).to_numpy()


@feature(warm_up=0)
def whole_series_mean(bars: Bars) -> Floats:
    """Distance from the mean of all bars given."""
    return bars.close / bars.close.mean() - 1


@feature(warm_up=0)
def whole_series_maximum(bars: Bars) -> Floats:
    """Share of the highest price of all bars given."""
    return bars.close / bars.high.max()


@feature(warm_up=0)
def global_scaler(bars: Bars) -> Floats:
    """Standardised with the mean and deviation of all bars given, as by a fitted scaler."""
    change = np.diff(np.log(bars.close), prepend=math.log(bars.close[0]))
    return (change - change.mean()) / (change.std() or 1.0)


@feature(warm_up=0)
def last_row(bars: Bars) -> Floats:
    """Distance from the last price, as `.iloc[-1]` gives it."""
    close = pd.Series(bars.close)
    return (close / close.iloc[-1] - 1).to_numpy()


@feature(warm_up=10)
def centred_window(bars: Bars) -> Floats:
    """Distance from a centred rolling mean."""
    close = pd.Series(bars.close)
    return (close / close.rolling(11, center=True, min_periods=1).mean() - 1).to_numpy()


@feature(warm_up=5)
def confirmed_later(bars: Bars) -> Floats:
    """1 at highs that stay the highest for three more bars: a signal that shows at certain bars only."""
    pivots = np.zeros(len(bars))
    if len(bars) > 8:
        windows = sliding_window_view(bars.high, 9)
        pivots[5:-3] = (windows[:, 5] == windows.max(axis=1)).astype(np.float64)
    return pivots


@feature(warm_up=30)
def back_filled(bars: Bars) -> Floats:
    """Return at every eighth hour, filled backwards."""
    eighth = (bars.time // HOUR) % 8 == 0
    change = pd.Series(np.diff(np.log(bars.close), prepend=math.log(bars.close[0])))
    return change.where(eighth).bfill().fillna(0.0).to_numpy()


@feature(warm_up=0)
def transform_of_the_whole(bars: Bars) -> Floats:
    """Smooth by a Fourier transform of all bars given."""
    spectrum = np.fft.rfft(bars.close)
    spectrum[20:] = 0
    return bars.close / np.fft.irfft(spectrum, len(bars)) - 1


@feature(warm_up=0)
def one_bar_of_the_week(bars: Bars) -> Floats:
    """First return of the week, one bar early: a leak at one bar of 168 (#11346)."""
    change = np.append(np.log(bars.close[1:] / bars.close[:-1]), 0.0)
    return np.where((bars.time // HOUR + 73) % 168 == 0, change, 0.0)


@feature(warm_up=0)
def rank_in_the_series(bars: Bars) -> Floats:
    """Quantile of the price among all bars given."""
    return pd.Series(bars.close).rank(pct=True).to_numpy()


LEAKS = (
    next_bar,
    longer_timeframe_merged_early,
    whole_series_mean,
    whole_series_maximum,
    global_scaler,
    last_row,
    centred_window,
    confirmed_later,
    back_filled,
    transform_of_the_whole,
    one_bar_of_the_week,
    rank_in_the_series,
)


@feature(warm_up=30)
def longer_timeframe_after_its_close(bars: Bars) -> Floats:
    """Close of the day before, known at its end."""
    close = pd.Series(bars.close)
    at_midnight = close.where(bars.time // HOUR % 24 == 23)
    return (close / at_midnight.ffill().fillna(close) - 1).to_numpy()


@feature(warm_up=40)
def delayed_signal(bars: Bars) -> Floats:
    """Return of five bars, five bars later (#12168)."""
    return pd.Series(np.log(bars.close)).diff(5).shift(5).to_numpy()


@feature(warm_up=12)
def confirmed_when_known(bars: Bars) -> Floats:
    """1 three bars after a high that stayed the highest."""
    known = np.zeros(len(bars))
    if len(bars) > 8:
        windows = sliding_window_view(bars.high, 9)
        known[8:] = (windows[:, 5] == windows.max(axis=1)).astype(np.float64)
    return known


@feature(warm_up=24)
def rolling_sum_of_differences(bars: Bars) -> Floats:
    """Rolling mean by differences of a running sum, whose rounding depends on the start."""
    total = np.concatenate([[0.0], np.cumsum(bars.close)])
    mean = np.full(len(bars), np.nan)
    mean[23:] = (total[24:] - total[:-24]) / 24
    return bars.close / mean - 1


HARMLESS = (
    longer_timeframe_after_its_close,
    delayed_signal,
    confirmed_when_known,
    rolling_sum_of_differences,
)


@feature(warm_up=0)
def counts_its_calls(bars: Bars) -> Floats:
    """Answers that depend on the calls before (#13547)."""
    STATE["calls"] += 1
    return bars.close * STATE["calls"]


@feature(warm_up=0)
def remembers_another_run(bars: Bars) -> Floats:
    """Answers that depend on what other calls left behind (#10380)."""
    STATE["high"] = max(STATE["high"] * 1.0001, float(bars.high[0]))
    return bars.close / STATE["high"]


WITH_STATE = (counts_its_calls, remembers_another_run)
