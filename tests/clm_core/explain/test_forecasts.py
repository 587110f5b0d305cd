"""Out-of-sample forecasts and their outcomes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from clm_core.backtest.walk_forward import FoldResult, OutOfSample, fold_result
from clm_core.domain.errors import ExplanationUnavailable, NotEnoughBars
from clm_core.explain.calibration import calibration_of_record
from clm_core.explain.calibration_section import calibration_section
from clm_core.explain.forecasts import ForecastRecord, market_forecasts, outcomes_of
from clm_core.market.bars import Bars, Floats
from clm_core.market.labels import direction

FIRST = 1000
SECOND = 2000


def record(bars: Bars, forecast: Floats, *folds: FoldResult, **params: Any) -> ForecastRecord:
    run = OutOfSample(np.sign(forecast - 0.5), forecast, slice(FIRST, len(bars)), folds)
    return ForecastRecord("nhits", 0.0, (market_forecasts(bars, run, params),))


def known(bars: Bars, horizon: int) -> Floats:
    return np.where(direction(bars, horizon).values > 0, 0.9, 0.1)


def fold(bars: Bars, first: int, stop: int, metrics: Mapping[str, float]) -> FoldResult:
    return fold_result(bars, slice(0, first), slice(first, stop), dict(metrics))


def test_outcomes_are_those_of_the_horizon_of_each_fold(bars: Bars) -> None:
    folds = (
        fold(bars, FIRST, SECOND, {"horizon": 6.0}),
        fold(bars, SECOND, len(bars), {"horizon": 24.0}),
    )
    forecast = np.where(np.arange(len(bars)) < SECOND, known(bars, 6), known(bars, 24))
    outcomes = outcomes_of(record(bars, forecast, *folds, horizon="auto"))
    assert np.array_equal(outcomes.rise > 0.5, outcomes.probability > 0.5)
    assert set((outcomes.end - outcomes.row).tolist()) == {7, 25}
    # the newest bars have no outcome yet
    assert outcomes.row[-1] == len(bars) - FIRST - 26


def test_members_of_a_pool_share_the_outcomes_of_the_same_bars(bars: Bars) -> None:
    one = record(bars, known(bars, 24), horizon=24)
    both = replace(one, markets=one.markets * 2)
    assert len(outcomes_of(both)) == 2 * len(outcomes_of(one))
    assert outcomes_of(both).independent == pytest.approx(outcomes_of(one).independent)


@pytest.mark.parametrize(
    ("params", "horizon"),
    [
        ({"horizon": 12}, 12),
        ({"members": [{"params": {"horizon": 12}}, {"params": {}}, {"params": {"horizon": 12}}]}, 12),
        ({"members": [{"params": {"horizon": 12}}, {"params": {"horizon": 24}}]}, None),
        ({"members": [{"params": {"horizon": "auto"}}]}, None),
        ({}, None),
    ],
    ids=["own", "same of members", "different", "automatic", "none"],
)
def test_a_single_horizon_is_stated_or_the_kind_says_so(
    bars: Bars, params: dict[str, Any], horizon: int | None
) -> None:
    made = record(bars, known(bars, 12), **params)
    if horizon is None:
        with pytest.raises(ExplanationUnavailable, match="nhits states no single horizon"):
            outcomes_of(made)
    else:
        outcomes = outcomes_of(made)
        assert set((outcomes.end - outcomes.row).tolist()) == {horizon + 1}


def test_a_kind_without_forecasts_says_so_by_name(bars: Bars) -> None:
    made = record(bars, np.full(len(bars), np.nan), lookback=10)
    with pytest.raises(ExplanationUnavailable, match="rl_v3 makes no forecasts"):
        calibration_section(replace(made, kind="rl_v3"))


def test_too_few_outcomes_are_not_measured(bars: Bars) -> None:
    with pytest.raises(NotEnoughBars, match="outcomes without overlap, and 20 are needed"):
        outcomes_of(record(bars, known(bars, 24), horizon=168))


def test_figures_and_section_share_one_measurement_of_a_record(bars: Bars) -> None:
    made = record(bars, known(bars, 12), horizon=12)
    assert calibration_of_record(made) is calibration_of_record(made)
    assert calibration_of_record(replace(made, threshold=0.1)) is not calibration_of_record(made)
