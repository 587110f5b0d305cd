"""The contract tests for every kind in the catalog; a kind without an entry in `kind_cases.CASES` fails."""

from typing import ClassVar

from kind_cases import CASES, member

from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars
from clm_core.market.regimes import with_regimes
from clm_core.market.timeframes import Timeframe
from clm_core.models import catalog
from clm_core.testing.contract import ModelContract


class TestEveryModel(ModelContract):
    cases: ClassVar = {kind: CASES[kind].params for kind in catalog.kinds()}
    on_walks: ClassVar = {"steps": 10, "round_trip_bps": 0.0, "bars_played": 5_000, "checks": 1}
    without_forecast = frozenset(kind for kind in catalog.kinds() if CASES[kind].without_forecast)


class TestMetaLabelling(ModelContract):
    """The label that filters the trend rule, whose look-back is 120 days: 720 bars of 4 hours."""

    cases: ClassVar = {ModelType.LIGHTGBM: {"rounds": 40, "horizon": 6, "label": "meta"}}
    timeframe = Timeframe.H4


class TestPoolsOfRegimes(ModelContract):
    """Weights by regime, which takes 152 days: 3,000 bars of 12 hours."""

    cases: ClassVar = {
        ModelType.ENSEMBLE: {
            "combine": "regime",
            "best": 1,
            "folds": 2,
            "members": [
                member(ModelType.LIGHTGBM, rounds=20, horizon=6, label="direction"),
                member(ModelType.LIGHTGBM, rounds=20, horizon=12, label="triple_barrier") | {"version": "v2"},
            ],
        }
    }
    timeframe = Timeframe.H12
    without_forecast = frozenset([ModelType.ENSEMBLE])

    @classmethod
    def prepared(cls, bars: Bars) -> Bars:
        return with_regimes(bars, bars)
