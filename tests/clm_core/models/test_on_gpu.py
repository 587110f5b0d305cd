"""Training on a GPU; skipped if the training library finds no GPU."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clm_core.backtest.walk_forward import walk_forward
from clm_core.domain.costs import Costs
from clm_core.domain.errors import InvalidTrainingParams
from clm_core.domain.vocabulary import ModelType
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.market.bars import Bars
from clm_core.models import catalog
from clm_core.models.bundle import save_bundle
from clm_core.models.contract import Recipe

SEED = 7
NETWORK = {"steps": 40, "horizon": 6, "round_trip_bps": 0.0, "shrink": False}
POLICY = {"bars_played": 20_000, "checks": 2, "fee_bps": 0, "slippage_bps": 0}
PARAMS: dict[ModelType, dict[str, Any]] = {
    ModelType.XGBOOST: {"rounds": 40, "horizon": 6, "threshold": 0.01},
    ModelType.NHITS: NETWORK,
    ModelType.PATCHTST: NETWORK,
    ModelType.RL_V2: POLICY | {"margin": 0},
    ModelType.RL_V3: POLICY,
}
DETERMINISTIC = [kind for kind in PARAMS if kind is not ModelType.NHITS]
"""Kinds with gradients summed in the same order at each run on a GPU."""
PREFLIGHT_SCRIPT = """
import sys
from pathlib import Path
from clm_core.models.bundle import load_bundle
from clm_core.models.golden import preflight

bundle = Path(sys.argv[1])
preflight(load_bundle(bundle, sys.argv[2]), bundle)
"""


def on_gpu(kind: ModelType) -> Recipe:
    try:
        return catalog.recipe(kind, PARAMS[kind] | {"device": "cuda"}, Costs())
    except InvalidTrainingParams as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("kind", PARAMS)
def test_a_model_trained_on_a_gpu_records_the_gpu_and_passes_the_preflight_without_a_gpu(
    kind: ModelType, bars: Bars, tmp_path: Path
) -> None:
    recipe = on_gpu(kind)
    model = recipe.fit(bars, SEED)
    assert model.train_metrics["gpu"] == 1.0
    digest = save_bundle(model, recipe, tmp_path / "bundle", bars)
    without = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    arguments = [sys.executable, "-c", PREFLIGHT_SCRIPT, str(tmp_path / "bundle"), digest]
    ran = subprocess.run(arguments, env=without, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("kind", DETERMINISTIC)
def test_concurrent_folds_on_a_gpu_give_the_same_positions_as_sequential_folds(
    kind: ModelType, bars: Bars
) -> None:
    recipe = on_gpu(kind)
    plan = WalkForwardPlan(folds=3)
    sequential, concurrent = (walk_forward(recipe, bars, plan, SEED, workers=workers) for workers in (1, 3))
    assert np.abs(sequential.positions - concurrent.positions).max() <= 1e-5
