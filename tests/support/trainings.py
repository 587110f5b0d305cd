"""Specifications of small trainings, and bars that no training reads."""

from typing import Any

import numpy as np

from clm_core.domain.costs import MarketCosts
from clm_core.domain.vocabulary import ModelType
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.market.bars import Bars
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.retraining.training import TrainingSpec


def a_spec(params: dict[str, Any], seeds: int = 1) -> TrainingSpec:
    return TrainingSpec(
        model_type=ModelType.LIGHTGBM,
        params=params,
        costs=MarketCosts(),
        seed=3,
        seeds=seeds,
        plan=WalkForwardPlan(folds=2),
    )


def three_bars() -> Bars:
    one = np.ones(3)
    series = ("BTCUSD", Timeframe.H1, Calendar.ALWAYS)
    return Bars(*series, np.arange(3, dtype=np.int64), one, one, one, one, one)
