"""A trader: holds the position of the version in production on an exchange, and none while it is halted."""

import os

import httpx
import pandas as pd

from clm_core.serving import Served, follow

EXCHANGE = os.environ["EXCHANGE_URL"]


def candles(count: int) -> pd.DataFrame:
    answer = httpx.get(f"{EXCHANGE}/candles", params={"limit": count}).raise_for_status()
    return pd.DataFrame(answer.json(), columns=["time", "open", "high", "low", "close", "volume"])


def position(served: Served) -> float:
    # one more for the candle that is still open
    bars = served.bars(candles(1 + (served.bars_needed or 5000)), drop_open_bar=True)
    return float(served.positions(bars)[-1])


with follow(
    os.environ["MODEL"],
    mlflow=os.environ["MLFLOW_TRACKING_URI"],
    api=os.environ["CLM_API"],
    token=os.environ["CLM_TOKEN"],
) as followed:
    while True:
        served = followed.served
        order = {"position": position(served) if served else 0.0}
        order["version"] = served.mlflow_version if served else 0
        httpx.put(f"{EXCHANGE}/position", json=order).raise_for_status()
        print(order, flush=True)
        followed.wait(60.0)  # seconds to the next look at the candles; less when another version serves
