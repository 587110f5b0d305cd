"""Script as written without any framework: a walk-forward of xgboost, backtested by vectorbt.

python -m benchmarks.bare_script BARS.csv

Features by pandas, the sign of the return over 24 bars as label, five folds of equal length over the newest
60 % of the bars and one fit on all of them, early stopping on the newest quarter of each training. Prints
the metrics, and stores, judges and checks nothing.
"""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

HORIZON = 24
FOLDS = 5
TRAINING_SHARE = 0.4
PARAMS = {
    "objective": "binary:logistic",
    "max_depth": 3,
    "learning_rate": 0.02,
    "subsample": 0.8,
    "nthread": 1,
}
ROUNDS = 500
PATIENCE = 100


def features_of(bars: pd.DataFrame) -> pd.DataFrame:
    log_close = pd.Series(np.log(bars["close"]))
    returns = log_close.diff()
    spread = pd.Series(np.log(bars["high"] / bars["low"]))
    columns = {f"return_{span}": log_close.diff(span) for span in (1, 2, 4, 8, 24, 72)}
    for window in (12, 24, 48, 96):
        rolling = returns.rolling(window)
        columns[f"gap_{window}"] = log_close - log_close.rolling(window).mean()
        columns[f"volatility_{window}"] = rolling.std()
        columns[f"z_{window}"] = (returns - rolling.mean()) / rolling.std()
        columns[f"range_{window}"] = spread.rolling(window).mean()
        volume = bars["volume"].rolling(window)
        columns[f"volume_z_{window}"] = (bars["volume"] - volume.mean()) / volume.std()
        lowest = bars["low"].rolling(window).min()
        highest = bars["high"].rolling(window).max()
        columns[f"place_{window}"] = (bars["close"] - lowest) / (highest - lowest)
    for period in (7, 14):
        gains = returns.clip(lower=0)
        losses = -returns.clip(upper=0)
        strength = gains.ewm(alpha=1 / period).mean() / losses.ewm(alpha=1 / period).mean()
        columns[f"rsi_{period}"] = 1 - 1 / (1 + strength)
    index = pd.DatetimeIndex(bars.index)
    columns["hour"] = pd.Series(index.hour, index)
    columns["weekday"] = pd.Series(index.day_of_week, index)
    return pd.DataFrame(columns)


def fitted(features: pd.DataFrame, rises: "pd.Series[float]", predicted: pd.DataFrame) -> "pd.Series[float]":
    """Probabilities of a rise by a model fitted on labelled rows."""
    import xgboost

    newest = 3 * len(features) // 4
    train = xgboost.DMatrix(features[: newest - HORIZON], rises[: newest - HORIZON])
    validation = xgboost.DMatrix(features[newest:], rises[newest:])
    booster = xgboost.train(
        PARAMS,
        train,
        ROUNDS,
        evals=[(validation, "validation")],
        early_stopping_rounds=PATIENCE,
        verbose_eval=False,
    )
    probabilities = booster.predict(xgboost.DMatrix(predicted))
    return pd.Series(probabilities, predicted.index)


def walk_forward(bars: pd.DataFrame) -> "pd.Series[float]":
    """Positions on the newest 60 % of the bars, each by a model fitted on older bars; 0 or 1."""
    features = features_of(bars)
    ahead = pd.Series(np.log(bars["close"])).diff(HORIZON).shift(-HORIZON)
    rises = (ahead > 0).astype(float)
    first = int(TRAINING_SHARE * len(bars))
    edges = np.linspace(first, len(bars), FOLDS + 1).astype(int)
    parts = []
    for begin, end in pairwise(edges.tolist()):
        rows = slice(begin - first, begin - HORIZON)
        parts.append(fitted(features[rows], rises[rows], features[begin:end]))
    # the model to serve
    fitted(features[:-HORIZON], rises[:-HORIZON], features[-1:])
    return (pd.concat(parts) > 0.5).astype(float)


def metrics_of(bars: pd.DataFrame, positions: "pd.Series[float]") -> pd.Series:
    import vectorbt as vbt

    traded = bars.loc[positions.index]
    held = positions.shift(fill_value=0.0) > 0
    portfolio = vbt.Portfolio.from_signals(
        traded["close"],
        entries=held,
        exits=~held,
        price=traded["open"],
        fees=0.0005,
        slippage=0.0002,
        init_cash=10_000,
        freq="1h",
    )
    stats: pd.Series = portfolio.stats()
    return stats


def main(path: Path) -> None:
    bars = pd.read_csv(path, index_col="time", parse_dates=["time"])
    print(metrics_of(bars, walk_forward(bars)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
