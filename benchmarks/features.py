"""Features against polars: one call of `compute_features` and one `select` of polars, with equal values.

Both use one thread: polars takes less processor time on one thread than on several.
"""

import math
import os
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.table import PROCESSOR, Row, faster, side_by_side
from clm_core.market.bars import FIELDS, Bars, Floats
from clm_core.market.features import compute_features
from clm_core.market.timeframes import Calendar, Timeframe

if TYPE_CHECKING:
    import polars as pl

# read by polars at its import
os.environ.setdefault("POLARS_MAX_THREADS", "1")
N_BARS = 26_000
AGREEMENT = 1e-7
"""Largest allowed difference, relative to the standard deviation of the feature."""
SETTLED = 1_000
"""First row compared, since exponential averages start differently in both libraries."""
ROUNDS = 30
MIN_RATIO = 6.0


def hourly_bars() -> Bars:
    """Three years of bars without an outage, so that polars needs no handling of stretches."""
    rng = np.random.default_rng(0)
    close = 40_000 * np.exp(np.cumsum(rng.normal(0, 0.006, N_BARS)))
    open_ = np.concatenate([close[:1], close[:-1]]) * np.exp(rng.normal(0, 0.0003, N_BARS))
    high = np.maximum(open_, close) * (1 + rng.exponential(0.002, N_BARS))
    low = np.minimum(open_, close) / (1 + rng.exponential(0.002, N_BARS))
    times = 1_577_836_800_000_000_000 + np.arange(N_BARS) * Timeframe.H1.nanoseconds
    volume = rng.lognormal(3, 1, N_BARS)
    return Bars("WALK", Timeframe.H1, Calendar.ALWAYS, times, open_, high, low, close, volume)


def z_score(values: "pl.Expr", window: int) -> "pl.Expr":
    return (values - values.rolling_mean(window)) / values.rolling_std(window, ddof=0)


def wilder(values: "pl.Expr", period: int) -> "pl.Expr":
    return values.ewm_mean(alpha=1 / period, adjust=False)


def place_in_range(window: int) -> "pl.Expr":
    import polars as pl

    lowest = pl.col("low").rolling_min(window)
    return (pl.col("close") - lowest) / (pl.col("high").rolling_max(window) - lowest)


def polars_features() -> dict[str, "pl.Expr"]:
    import polars as pl

    open_, high, low, close, volume = (pl.col(name) for name in FIELDS)
    log_close = close.log()
    log_return = close.log().diff()
    change = close.diff().fill_null(0.0)
    true_range = pl.max_horizontal(high - low, (high - close.shift()).abs(), (low - close.shift()).abs())
    macd = close.ewm_mean(span=12, adjust=False) - close.ewm_mean(span=26, adjust=False)
    minute = pl.col("time").dt.hour().cast(pl.Int32) * 60 + pl.col("time").dt.minute()
    weekday = pl.col("time").dt.weekday().cast(pl.Int32) - 1
    signed = volume * log_return.sign()
    return {
        **{f"log_return_{span}": log_close.diff(span) for span in (1, 2, 4, 8, 24, 72)},
        "opening_gap": (open_ / close.shift()).log(),
        "body": (close / open_).log(),
        "range": (high / low).log(),
        "close_location": (close - low) / (high - low),
        **{f"mean_gap_{w}": log_close - log_close.rolling_mean(w) for w in (12, 24, 96)},
        "close_z_48": z_score(log_close, 48),
        **{f"return_z_{w}": z_score(log_return, w) for w in (24, 96)},
        **{f"volatility_{w}": log_return.rolling_std(w, ddof=0) for w in (12, 24, 96)},
        "volatility_ratio_12_96": log_return.rolling_std(12, ddof=0) / log_return.rolling_std(96, ddof=0),
        "parkinson_24": ((high / low).log().pow(2).rolling_mean(24) / (4 * math.log(2))).sqrt(),
        "atr_14": wilder(true_range, 14) / close,
        "bollinger_position_20": 0.5 + z_score(close, 20) / 4,
        "bollinger_width_20": 4 * close.rolling_std(20, ddof=0) / close.rolling_mean(20),
        **{f"rsi_{p}": wilder(change.clip(lower_bound=0), p) / wilder(change.abs(), p) for p in (7, 14)},
        "stochastic_k_14": place_in_range(14),
        "stochastic_d_14": place_in_range(14).rolling_mean(3),
        "channel_position_72": place_in_range(72),
        "macd": macd / close,
        "macd_histogram": (macd - macd.ewm_mean(span=9, adjust=False)) / close,
        **{f"volume_z_{w}": z_score(volume, w) for w in (24, 96)},
        **{f"obv_change_{w}": signed.rolling_sum(w) / volume.rolling_sum(w) for w in (24, 72)},
        "vwap_gap_24": close * volume.rolling_sum(24) / (close * volume).rolling_sum(24) - 1,
        "hour_sin": (minute * (math.tau / 1440)).sin(),
        "hour_cos": (minute * (math.tau / 1440)).cos(),
        "weekday_sin": (weekday * (math.tau / 7)).sin(),
        "weekday_cos": (weekday * (math.tau / 7)).cos(),
    }


def refuse_disagreement(names: tuple[str, ...], ours: Floats, theirs: Floats) -> None:
    differences = (np.abs(ours - theirs)[SETTLED:] / np.std(theirs[SETTLED:], axis=0)).max(axis=0)
    if not differences.max() <= AGREEMENT:
        raise AssertionError(
            f"{names[differences.argmax()]} is {differences.max():.1e} standard deviations from polars'"
        )


def rows() -> list[Row]:
    import polars as pl

    bars = hourly_bars()
    frame = pl.DataFrame({name: getattr(bars, name) for name in FIELDS}).with_columns(
        time=pl.Series(bars.time).cast(pl.Datetime("ns", "UTC"))
    )
    expressions = polars_features()
    table = compute_features(bars, tuple(expressions))
    refuse_disagreement(table.names, table.values, frame.select(**expressions).select(table.names).to_numpy())
    ours, peers = side_by_side(
        lambda: compute_features(bars, table.names), lambda: frame.select(**expressions), ROUNDS
    )
    name = f"{len(table.names)} features, {len(bars):,} bars, 1 thread"
    peer = f"polars {pl.__version__}, threads: {pl.thread_pool_size()}"
    return [faster(name, ours, peer, peers, MIN_RATIO, by=PROCESSOR)]
