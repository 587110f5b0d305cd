"""Writes made_up.csv: hourly bars of a made-up market whose volume announces the drift of the next half day.

    python make_market.py [DAYS]

Two hidden states s and w come and go with a half-life of 12 hours. s drives the price and shows in the
volume; w is a wobble of the price around it:

    log return(t) = sigma (edge s(t - 1) + a (w(t) - w(t - 1)) + noise),    log volume(t) = 0.5 s(t) + noise

The size a of the wobble is chosen so that the returns of different hours are uncorrelated: what the drift
adds to the next returns, the wobble takes away. So a model that reads the volume can earn, and the prices
alone show nothing. No real market is like this.
"""

import sys

import numpy as np
import pandas as pd
from numpy.typing import NDArray

DAYS = 800
HALF_LIFE = 12
SIGMA = 0.005
EDGE = 0.3
DECAY = 0.5 ** (1 / HALF_LIFE)
WOBBLE = EDGE * np.sqrt(DECAY) / (1 - DECAY)


def made_up_market(days: int = DAYS, seed: int = 11) -> pd.DataFrame:
    """Bars over their open times in UTC: open, high, low, close, volume."""
    rng = np.random.default_rng(seed)
    n = 24 * days
    drift = hidden_state(n + 1, rng)
    wobble = WOBBLE * hidden_state(n + 1, rng)
    moves = SIGMA * (EDGE * drift[:-1] + np.diff(wobble) + rng.normal(size=n))
    close = 100 * np.exp(np.cumsum(moves))
    opened = np.concatenate([[100.0], close[:-1]])
    wick = 1 + np.abs(rng.normal(0, SIGMA / 2, size=(2, n)))
    table = {
        "open": opened,
        "high": np.maximum(opened, close) * wick[0],
        "low": np.minimum(opened, close) / wick[1],
        "close": close,
        "volume": 1000 * np.exp(0.5 * drift[1:] + rng.normal(0, 0.25, n)),
    }
    times = pd.date_range("2021-01-01", periods=n, freq="h", tz="UTC", name="timestamp")
    return pd.DataFrame(table, index=times).round(4)


def hidden_state(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Autoregression of variance 1, shape (n,)."""
    state = np.empty(n)
    present = rng.normal()
    for t in range(n):
        state[t] = present
        present = DECAY * present + np.sqrt(1 - DECAY**2) * rng.normal()
    return state


if __name__ == "__main__":
    made_up_market(*map(int, sys.argv[1:])).to_csv("made_up.csv")
    print("Wrote made_up.csv")
