"""SHAP values of trees against the libraries' own: 2,000 rows, 300 trees of depth 6, processor time.

python -m benchmarks.run tree_shap      under a minute

Ours includes reading the trees from the file and the walk through them; the peers have theirs loaded.
"""

import lightgbm
import numpy as np
import xgboost

from benchmarks.table import PROCESSOR, SECONDS, Row, faster, timed
from clm_core.explain.forest import lightgbm_forest, xgboost_forest
from clm_core.explain.tree_shap import shap_values

N_ROWS = 2_000
N_FEATURES = 30
N_TREES = 300
DEPTH = 6
TRAINING_ROWS = 20_000
ROUNDS = 3
TOLERANCE = 1e-5
SEED = 0


def rows() -> list[Row]:
    rng = np.random.default_rng(SEED)
    values = rng.normal(size=(TRAINING_ROWS, N_FEATURES))
    signal = values[:, 0] * values[:, 1] + np.sin(values[:, 2]) + values[:, 3:].sum(axis=1) / 10
    target = signal + rng.normal(size=TRAINING_ROWS)
    sample = values[:N_ROWS]
    params = {"max_depth": DEPTH, "nthread": 1, "learning_rate": 0.05}
    booster = xgboost.train(params, xgboost.QuantileDMatrix(values, target, nthread=1), N_TREES)
    raw = bytes(booster.save_raw("ubj"))
    matrix = xgboost.DMatrix(sample, nthread=1)
    leaves = {"num_leaves": 2**DEPTH, "num_threads": 1, "learning_rate": 0.05, "verbosity": -1}
    light = lightgbm.train(leaves | {"max_depth": DEPTH}, lightgbm.Dataset(values, target), N_TREES)
    text = light.model_to_string().encode()
    name = f"SHAP values of {N_ROWS:,} rows, {N_TREES} trees of depth {DEPTH}"

    def ours() -> np.ndarray:
        return shap_values(xgboost_forest(raw), sample).margins

    def ours_of_lightgbm() -> np.ndarray:
        return shap_values(lightgbm_forest(text), sample).margins

    apart = np.abs(ours() - booster.predict(matrix, output_margin=True)).max()
    apart_of_lightgbm = np.abs(ours_of_lightgbm() - light.predict(sample, raw_score=True)).max()
    if not max(apart, apart_of_lightgbm) <= TOLERANCE:
        raise SystemExit("SHAP values do not add up to the margins")
    return [
        faster(
            name,
            timed(ours, ROUNDS),
            f"pred_contribs of xgboost {xgboost.__version__}",
            timed(lambda: booster.predict(matrix, pred_contribs=True), ROUNDS),
            10.0,
            SECONDS,
            PROCESSOR,
        ),
        faster(
            name,
            timed(ours_of_lightgbm, ROUNDS),
            f"pred_contrib of lightgbm {lightgbm.__version__}",
            timed(lambda: light.predict(sample, pred_contrib=True, num_threads=1), ROUNDS),
            10.0,
            SECONDS,
            PROCESSOR,
        ),
    ]
