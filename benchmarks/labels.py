"""Skill of the labels of XGBoost on real series, out of sample: the figures of decision 47.

    python -m benchmarks.labels ../shared/data

The folder holds Parquet files of bars, named by series (`BTCUSDT_1h.parquet`), with the columns timestamp,
open, high, low, close and volume. Bars from 2022 on are left out.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clm_core.backtest.engine import backtest
from clm_core.backtest.walk_forward import OutOfSample, walk_forward
from clm_core.domain.costs import Costs, MarketCosts
from clm_core.domain.errors import NotEnoughBars
from clm_core.domain.execution import Execution
from clm_core.domain.vocabulary import ModelType
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.market.arrow_files import read_parquet
from clm_core.market.bars import Bars, Floats
from clm_core.market.labels import forward_return
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.models import catalog

SERIES = {
    "BTCUSDT_1h": "24x7",
    "ETHUSDT_1h": "24x7",
    "SOLUSDT_1h": "24x7",
    "XRPUSDT_1h": "24x7",
    "BNBUSDT_1h": "24x7",
    "EURUSD_1h": "24x5",
    "XAUUSD_1h": "24x5",
}
BEFORE = "2022-01-01"
HORIZON = 24
"""Bars of the return that forecasts and positions are compared with."""
OLD = catalog.own_params(catalog.stored_params(ModelType.XGBOOST, {}))
PARAMS: dict[str, dict[str, Any]] = {
    "sign, 24 bars": OLD,
    "volatility_scaled_return": {},
    "direction": {"label": "direction"},
    "triple_barrier": {"label": "triple_barrier"},
    "meta": {"label": "meta"},
}


def read(folder: Path, name: str) -> Bars:
    table = read_parquet((folder / f"{name}.parquet").read_bytes()).to_pandas()
    table = table[table.timestamp < BEFORE]
    time = table.timestamp.astype("datetime64[ns, UTC]").astype("int64").to_numpy().copy()
    columns = {
        each: table[each].to_numpy(float).copy() for each in ("open", "high", "low", "close", "volume")
    }
    symbol, _, timeframe = name.partition("_")
    return Bars(symbol, Timeframe(timeframe), Calendar(SERIES[name]), time, **columns)


def at_ten_percent(bars: Bars, positions: Floats) -> Floats:
    """Positions smoothed over a day and brought to 10 % volatility, changed by 0.05 at least."""
    returns = np.diff(np.log(bars.close), prepend=np.log(bars.close[0]))
    volatility = np.sqrt(pd.Series(returns**2).ewm(halflife=96).mean().to_numpy() * bars.periods_per_year)
    smooth = pd.Series(positions).ewm(halflife=24).mean()
    usual = np.sqrt((smooth**2).ewm(halflife=1000).mean().to_numpy())
    targets = smooth.to_numpy() / np.maximum(usual, 0.1) * 0.10 / np.maximum(volatility, 1e-9)
    held = 0.0
    sized = np.zeros(len(bars))
    for row, target in enumerate(np.clip(targets, -1, 1)):
        held = target if abs(target - held) > 0.05 else held
        sized[row] = held
    return sized


def figures(bars: Bars, run: OutOfSample) -> dict[str, float]:
    moved = forward_return(bars, HORIZON).values
    rows = np.flatnonzero(~np.isnan(run.forecast) & ~np.isnan(moved))
    rows = rows[rows >= run.rows.start]

    def t(values: Floats) -> float:
        varies = values[rows].std() > 0
        scale = np.sqrt(len(rows) / HORIZON)
        return float(np.corrcoef(values[rows], moved[rows])[0, 1] * scale) if varies else 0.0

    sized = at_ten_percent(bars, run.positions)[run.rows]
    returns = backtest(bars[run.rows], sized, Costs(), Execution()).returns
    return {
        "t of the forecast": t(run.forecast),
        "t of the position": t(run.positions),
        "net Sharpe ratio": float(returns.mean() / returns.std() * np.sqrt(bars.periods_per_year)),
        "short": float(np.mean(run.positions[run.rows] < 0)),
    }


def main(folder: Path) -> None:
    for label, params in PARAMS.items():
        measured = []
        for name in SERIES:
            bars = read(folder, name)
            recipe = catalog.find_kind(ModelType.XGBOOST).recipe(params, MarketCosts())
            try:
                measured.append(figures(bars, walk_forward(recipe, bars, WalkForwardPlan(folds=4), seed=0)))
            except NotEnoughBars as error:
                print(f"{label}: {name} left out: {error}")
        means = pd.DataFrame(measured).mean()
        print(f"{label} ({len(measured)} series): " + ", ".join(f"{k} {v:.2f}" for k, v in means.items()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
