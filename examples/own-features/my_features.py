"""Own features: three of the bars, one of the bars and an own series."""

import numpy as np
import pandas as pd

from clm_core.market.own_features import feature


@feature(warm_up=48)
def momentum_48(bars):
    """log(close / close 48 bars ago)"""
    values = np.full(len(bars), np.nan)
    values[48:] = np.log(bars.close[48:] / bars.close[:-48])
    return values


@feature(warm_up=72)
def drawdown_72(bars):
    """log(close / highest close of 73 bars), at most 0"""
    close = pd.Series(bars.close)
    return np.log(close / close.rolling(73).max())


@feature(warm_up=0, memory=500)
def slow_gap(bars):
    """close over its exponential average of 48 bars, minus 1"""
    # an exponential average remembers much more than 48 bars: `clm features check` measures how many
    close = pd.Series(bars.close)
    return close / close.ewm(span=48, adjust=False).mean() - 1


@feature(warm_up=24, series=["attention"])
def attention_against_volatility(bars, series):
    """attention minus the range of the last 25 bars in per cent; unknown where attention is"""
    highest = pd.Series(bars.high).rolling(25).max()
    lowest = pd.Series(bars.low).rolling(25).min()
    return series["attention"] - 100 * np.log(highest / lowest)
