"""What every model promises. A new model joins by adding one line to `CASES`."""

from typing import Any

from clm_core.domain.vocabulary import ModelType
from clm_core.testing.contract import ModelContract


def member(model_type: ModelType, **params: Any) -> dict[str, Any]:
    """As a job would have resolved it."""
    model_id, label = f"{model_type}_btcusd_1h", "v20251204_143022"
    return {
        "asked": f"{model_id}@production",
        "model_id": model_id,
        "version": label,
        "model_type": model_type.value,
        "plugin": None,
        "params": params,
        "bundle_digest": "b" * 64,
    }


CASES = {
    ModelType.XGBOOST: {"rounds": 40, "horizon": 6, "threshold": 0.01},
    ModelType.LIGHTGBM: {"rounds": 40, "horizon": 6, "threshold": 0.01},
    # without costs, for one that has hardly learnt would rather not trade at all
    ModelType.RL_V2: {"bars_played": 6_000, "checks": 2, "margin": 0, "fee_bps": 0, "slippage_bps": 0},
    ModelType.RL_V3: {"bars_played": 20_000, "checks": 4, "fee_bps": 0, "slippage_bps": 0},
    ModelType.ENSEMBLE: {
        # by what they earned: here every member has a share
        "combine": "vote",
        "folds": 2,
        "members": [
            member(ModelType.LIGHTGBM, rounds=20, horizon=6, threshold=0.01),
            member(ModelType.NHITS, steps=4, horizon=6, round_trip_bps=0.0, shrink=False),
            member(ModelType.RL_V3, bars_played=3_000, checks=1, fee_bps=0, slippage_bps=0),
        ],
    },
    ModelType.NHITS: {"steps": 20, "horizon": 6, "hidden_size": 16, "round_trip_bps": 1.0, "shrink": False},
    ModelType.PATCHTST: {
        "steps": 20,
        "horizon": 6,
        "hidden_size": 16,
        "round_trip_bps": 1.0,
        "shrink": False,
    },
}


class TestEveryModel(ModelContract):
    cases = CASES
    # a member of the ensemble takes positions without a forecast
    without_forecast = frozenset({ModelType.RL_V2, ModelType.RL_V3, ModelType.ENSEMBLE})
