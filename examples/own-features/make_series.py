"""Writes attention.csv: a made-up weekly index, published two days after its week and revised a week later.

The values are a seeded random walk, which knows nothing of any market: the file shows the form of a series.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

WEEKS = 121


def rows() -> pd.DataFrame:
    rng = np.random.default_rng(2017)
    week = pd.date_range("2017-06-26", periods=WEEKS, freq="7D", tz="UTC")
    final = 5 + np.cumsum(rng.normal(0, 0.4, WEEKS))
    first = final + rng.normal(0, 0.1, WEEKS)
    published = week + pd.Timedelta(days=9, hours=8)
    early = pd.DataFrame({"week": week, "published": published, "index": first.round(2)})
    revised = pd.DataFrame(
        {"week": week, "published": published + pd.Timedelta(days=7), "index": final.round(2)}
    )
    return pd.concat([early, revised]).sort_values(["published", "week"], kind="stable")


def text() -> str:
    table = rows()
    for column in ("week", "published"):
        table[column] = table[column].dt.strftime("%Y-%m-%dT%H:%MZ")
    return table.to_csv(index=False, lineterminator="\n")


if __name__ == "__main__":
    (Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).with_name("attention.csv")).write_text(text())
