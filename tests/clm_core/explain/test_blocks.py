"""Contributions of the blocks of N-HiTS networks."""

import json

import numpy as np
import pytest

from clm_core.domain.costs import Costs
from clm_core.domain.errors import NotEnoughBars
from clm_core.explain.blocks import blocks_section, explain_blocks
from clm_core.market.bars import Bars
from clm_core.models.networks.forecasting import ForecastModel, recipe_of
from clm_core.models.networks.nhits import NHITSParams
from clm_core.retraining.model_sections import sections_on_demand

QUICK = {"steps": 4, "check_steps": 2, "horizon": 6, "hidden_size": 8, "round_trip_bps": 1.0, "shrink": False}


def fitted(bars: Bars, **changes: object) -> ForecastModel:
    return recipe_of(NHITSParams.parse({**QUICK, **changes}), Costs()).fit(bars, seed=0)


@pytest.fixture(scope="module")
def model(bars: Bars) -> ForecastModel:
    return fitted(bars)


def test_base_and_contributions_add_up_to_each_forecast(model: ForecastModel, bars: Bars) -> None:
    decomposition = explain_blocks(model, bars)
    assert decomposition.blocks == ("8 bars pooled", "4 bars pooled", "single bars")
    assert decomposition.contributions.shape == decomposition.of_features.shape == (1_000, 3)
    assert decomposition.largest_error <= 1e-5
    assert np.abs(decomposition.contributions).min(axis=0).max() > 0
    assert np.abs(decomposition.of_features).mean() > 0


def test_contributions_are_shrunk_as_the_forecast_is(model: ForecastModel, bars: Bars) -> None:
    whole = explain_blocks(model, bars)
    model.forecaster.trust.fill_(0.25)
    try:
        kept = explain_blocks(model, bars)
    finally:
        model.forecaster.trust.fill_(1.0)
    assert kept.largest_error <= 1e-5
    assert kept.contributions == pytest.approx(whole.contributions / 4, abs=1e-6)


def test_without_features_every_contribution_is_from_returns(bars: Bars) -> None:
    decomposition = explain_blocks(fitted(bars[:1_000], features=()), bars[:1_000])
    assert decomposition.largest_error <= 1e-5
    assert not decomposition.of_features.any()


def test_the_model_answers_as_before_and_keeps_no_hook(model: ForecastModel, bars: Bars) -> None:
    before = model.forecast(bars)
    section = blocks_section(explain_blocks(model, bars))
    assert np.array_equal(model.forecast(bars), before, equal_nan=True)
    assert not any(each._forward_hooks for each in model.forecaster.modules())
    assert "contributes most" in section.sentences[0]
    assert sum(each["share"] for each in section.values["blocks"]) == pytest.approx(1.0)
    json.dumps([section.values, section.charts[0].figure], allow_nan=False)


def test_a_network_without_kept_forecasts_says_that_no_block_contributes(
    model: ForecastModel, bars: Bars
) -> None:
    model.forecaster.trust.fill_(0.0)
    try:
        section = blocks_section(explain_blocks(model, bars))
    finally:
        model.forecaster.trust.fill_(1.0)
    assert section.sentences[0].startswith("No block contributes")


def test_bars_without_a_whole_window_are_too_few(model: ForecastModel, bars: Bars) -> None:
    with pytest.raises(NotEnoughBars, match="no whole window of 24 bars"):
        explain_blocks(model, bars[:100])


def test_the_command_explains_the_network_by_its_blocks(model: ForecastModel, bars: Bars) -> None:
    sections = sections_on_demand(model, bars, rows=100, only="blocks")
    assert [each.name for each in sections] == ["features", "blocks"]
