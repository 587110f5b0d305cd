"""What every model promises. A new model joins by adding one line to `CASES`."""

from clm_core.domain.vocabulary import ModelType
from clm_core.testing.contract import ModelContract

CASES = {
    ModelType.XGBOOST: {"rounds": 40, "horizon": 6, "threshold": 0.01},
    ModelType.LIGHTGBM: {"rounds": 40, "horizon": 6, "threshold": 0.01},
    # without costs, for one that has hardly learnt would rather not trade at all
    ModelType.RL_V2: {"bars_played": 6_000, "checks": 2, "fee_bps": 0, "slippage_bps": 0},
    ModelType.RL_V3: {"bars_played": 20_000, "checks": 4, "fee_bps": 0, "slippage_bps": 0},
}


class TestEveryModel(ModelContract):
    cases = CASES
    without_forecast = frozenset({ModelType.RL_V2, ModelType.RL_V3})
