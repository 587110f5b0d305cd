"""Training parameters of every kind of model for the tests: the fixture to add with a new kind."""

from dataclasses import dataclass, replace
from typing import Any

from clm_core.domain.vocabulary import ModelType


@dataclass(frozen=True)
class KindCase:
    """Training parameters of a kind, small enough to fit in seconds."""

    params: dict[str, Any]
    """Parameters for the contract tests: enough training on 3,000 bars for varying positions."""
    quick: dict[str, Any]
    """Parameters for a whole retraining with several fits: the least training that leads to trades."""
    without_forecast: bool = False
    """True for a kind without forecasts."""


def member(model_type: ModelType, **params: Any) -> dict[str, Any]:
    """Member of an ensemble as a job resolves the name of a version."""
    model_id = f"{model_type}_btcusd_1h"
    label = "v20251204_143022"
    return {
        "asked": f"{model_id}@production",
        "model_id": model_id,
        "version": label,
        "model_type": model_type.value,
        "plugin": None,
        "params": params,
        "bundle_digest": "b" * 64,
    }


FREE = {"fee_bps": 0, "slippage_bps": 0}
"""Trading without costs, since a policy after little training would otherwise not trade at all."""
TREES = KindCase(
    params={"rounds": 40, "horizon": 6},
    quick={"rounds": 20, "horizon": 6},
)
NETWORK = KindCase(
    params={"steps": 20, "horizon": 6, "hidden_size": 16, "round_trip_bps": 1.0, "shrink": False},
    quick={"steps": 6, "horizon": 6, "hidden_size": 16, "round_trip_bps": 0.0, "shrink": False},
)
SMALL_TRANSFORMER = {"input_size": 48, "layers": 1}
"""A quarter of the default computation a forecast, which the contract tests make by the hundred thousand."""
CASES = {
    ModelType.XGBOOST: TREES,
    ModelType.LIGHTGBM: replace(TREES, params={"rounds": 40, "horizon": 6, "label": "triple_barrier"}),
    ModelType.NHITS: NETWORK,
    ModelType.PATCHTST: KindCase(
        params=NETWORK.params | SMALL_TRANSFORMER,
        quick=NETWORK.quick | SMALL_TRANSFORMER,
    ),
    ModelType.RL_V2: KindCase(
        params={"bars_played": 6_000, "checks": 2, "margin": 0, **FREE},
        quick={"bars_played": 3_000, "checks": 1, "margin": 0, **FREE},
        without_forecast=True,
    ),
    ModelType.RL_V3: KindCase(
        params={"bars_played": 20_000, "checks": 4, **FREE},
        # a fine step, since a policy after little training mostly chooses positions below half a quarter
        quick={"bars_played": 5_000, "checks": 1, "step": 0.05, **FREE},
        without_forecast=True,
    ),
    ModelType.ENSEMBLE: KindCase(
        params={
            # a vote, since weights by results could leave a member without a share
            "combine": "vote",
            "folds": 2,
            "members": [
                member(ModelType.LIGHTGBM, rounds=20, horizon=6, label="direction"),
                member(ModelType.NHITS, steps=4, horizon=6, round_trip_bps=0.0, shrink=False),
                member(ModelType.RL_V3, bars_played=3_000, checks=1, **FREE),
            ],
        },
        # names of registered versions, added by the test that registers members
        quick={"weights": "2,1", "allow_failed": True},
        # a member of the ensemble takes positions without a forecast
        without_forecast=True,
    ),
}
