"""The bench of recipes walks forward by the plan of a retrain, and names broken limits."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.recipes import Risk, YearResult, default_plan
from clm_core.domain.vocabulary import ModelType
from clm_core.domain.walk_forward import FoldGrid
from clm_core.market.bars import Bars
from clm_core.market.timeframes import Calendar, Timeframe

YEAR = YearResult(
    window="BTCUSDT 1h",
    end="2025-09-19",
    sharpe=0.5,
    gross_sharpe=0.6,
    max_drawdown=-0.1,
    volatility=0.1,
    turnover=20.0,
    exposure=0.3,
    is_capped=False,
    in_market=0.5,
)


def bars_of(timeframe: Timeframe, days: int) -> Bars:
    n = days * 86_400 // timeframe.seconds
    time = 1_600_560_000_000_000_000 + np.arange(n, dtype=np.int64) * timeframe.nanoseconds
    return Bars("BTCUSDT", timeframe, Calendar.ALWAYS, time, *(np.ones(n) for _ in range(5)))


@pytest.mark.parametrize(
    ("model_type", "timeframe", "days", "span", "grid"),
    [
        (ModelType.XGBOOST, Timeframe.H1, 1825, 1825, FoldGrid.QUARTER),
        (ModelType.PATCHTST, Timeframe.H1, 1825, 1825, FoldGrid.HALF_YEAR),
        (ModelType.XGBOOST, Timeframe.H1, 361, 365, FoldGrid.MONTH),
        # a request for daily bars is longer than most series
        (ModelType.XGBOOST, Timeframe.D1, 1825, 1825, FoldGrid.QUARTER),
    ],
)
def test_the_plan_is_that_of_a_retrain_with_the_default_days(
    model_type: ModelType, timeframe: Timeframe, days: int, span: int, grid: FoldGrid
) -> None:
    plan = default_plan(model_type, bars_of(timeframe, days))
    assert (plan.span_days, plan.grid) == (span, grid)


def test_recipes_of_before_have_equal_folds() -> None:
    assert not default_plan(ModelType.XGBOOST, bars_of(Timeframe.D1, 365), folds=5).on_dates


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({}, ()),
        ({"max_drawdown": -0.36}, ("drawdown", "deep years")),
        ({"max_drawdown": float("nan")}, ("drawdown",)),
        ({"volatility": 0.06}, ("volatility",)),
        ({"volatility": 0.13}, ("volatility",)),
        # without any position nothing is out of bounds
        ({"volatility": 0.0, "in_market": 0.0}, ()),
        ({"turnover": 61.0}, ("turnover",)),
    ],
)
def test_limits_that_do_not_hold_are_named(changes: dict[str, float], missed: tuple[str, ...]) -> None:
    assert Risk.of([replace(YEAR, **changes)]).missed == missed


def test_a_series_whose_cap_binds_in_any_year_has_no_limit_of_volatility() -> None:
    capped = replace(YEAR, volatility=0.03, is_capped=True)
    assert Risk.of([capped]).missed == ()
    assert Risk.of([capped, replace(YEAR, window="ETHUSDT 1h")]).missed == ()
