"""Writes made_up.csv: hourly bars of a made-up market whose volume announces the drift of the next day.

    python make_market.py [DAYS]

A hidden state s comes and goes with a half-life of a day:

    log return(t) = sigma (edge s(t - 1) + e(t)),    log volume(t) = 0.5 s(t) + noise

so a model that reads the volume can earn, and a model that reads the prices alone hardly tells the drift from
noise.
"""

import sys

import numpy as np
import pandas as pd

DAYS = 800
HALF_LIFE = 24
SIGMA = 0.005
EDGE = 0.2


def made_up_market(days: int = DAYS, seed: int = 11) -> pd.DataFrame:
    """Bars over their open times in UTC: open, high, low, close, volume."""
    rng = np.random.default_rng(seed)
    n = 24 * days
    decay = 0.5 ** (1 / HALF_LIFE)
    state = np.zeros(n + 1)
    for t in range(1, n + 1):
        state[t] = decay * state[t - 1] + np.sqrt(1 - decay**2) * rng.normal()
    moves = SIGMA * (EDGE * state[:-1] + rng.normal(size=n))
    close = 100 * np.exp(np.cumsum(moves))
    opened = np.concatenate([[100.0], close[:-1]])
    wick = 1 + np.abs(rng.normal(0, SIGMA / 2, size=(2, n)))
    table = {
        "open": opened,
        "high": np.maximum(opened, close) * wick[0],
        "low": np.minimum(opened, close) / wick[1],
        "close": close,
        "volume": 1000 * np.exp(0.5 * state[1:] + rng.normal(0, 0.25, n)),
    }
    times = pd.date_range("2021-01-01", periods=n, freq="h", tz="UTC", name="timestamp")
    return pd.DataFrame(table, index=times).round(4)


if __name__ == "__main__":
    made_up_market(*map(int, sys.argv[1:])).to_csv("made_up.csv")
    print("Wrote made_up.csv")
