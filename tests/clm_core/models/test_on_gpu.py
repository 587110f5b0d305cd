"""What only a machine with a GPU can tell; skipped wherever the library that trains finds none."""

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
IN_ORDER = [kind for kind in PARAMS if kind is not ModelType.NHITS]
"""Those whose gradients a GPU sums in the same order each time."""
ASKED = """
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
def test_what_a_gpu_has_trained_says_so_and_answers_alike_where_there_is_none(
    kind: ModelType, bars: Bars, tmp_path: Path
) -> None:
    recipe = on_gpu(kind)
    model = recipe.fit(bars, SEED)
    assert model.train_metrics["gpu"] == 1.0
    digest = save_bundle(model, recipe, tmp_path / "bundle", bars)
    without = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    arguments = [sys.executable, "-c", ASKED, str(tmp_path / "bundle"), digest]
    ran = subprocess.run(arguments, env=without, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("kind", IN_ORDER)
def test_folds_that_want_the_gpu_at_the_same_time_come_out_as_one_after_the_other(
    kind: ModelType, bars: Bars
) -> None:
    recipe, plan = on_gpu(kind), WalkForwardPlan(folds=3)
    alone, together = (walk_forward(recipe, bars, plan, SEED, workers=workers) for workers in (1, 3))
    assert np.abs(alone.positions - together.positions).max() <= 1e-5
