"""What every model promises. A new model joins by adding one line to `CASES`."""

from clm_core.domain.vocabulary import ModelType
from clm_core.testing.contract import ModelContract

CASES = {
    ModelType.XGBOOST: {"rounds": 40, "horizon": 6, "threshold": 0.01},
    ModelType.LIGHTGBM: {"rounds": 40, "horizon": 6, "threshold": 0.01},
}


class TestEveryModel(ModelContract):
    cases = CASES
    without_forecast = frozenset({ModelType.RL_V2, ModelType.RL_V3})
