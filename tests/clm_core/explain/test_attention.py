"""Attention of PatchTST networks."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from clm_core.domain.costs import Costs
from clm_core.domain.errors import NotEnoughBars
from clm_core.explain.attention import Attention, attention_section, explain_attention
from clm_core.market.bars import Bars, Floats
from clm_core.models.contract import TrainedOn
from clm_core.models.networks.forecasting import LEVELS, ForecastModel, recipe_of
from clm_core.models.networks.patchtst import PatchTSTParams
from clm_core.retraining.model_sections import sections_on_demand

MOMENT = datetime(2025, 12, 4, tzinfo=UTC)


@pytest.fixture(scope="module")
def model(bars: Bars) -> ForecastModel:
    """An untrained network with random weights, whose attention differs from window to window."""
    import torch

    from clm_core.models.networks import architecture

    params = PatchTSTParams(input_size=48, patch_len=8, layers=2, hidden_size=16, heads=2, horizon=6)
    params = recipe_of(params, Costs()).params
    forecaster = architecture.untrained(params, LEVELS, seed=3).eval()
    rng = np.random.default_rng(1)
    with torch.no_grad():
        for weight in forecaster.network.parameters():
            if weight.requires_grad:
                weight.copy_(torch.from_numpy(rng.normal(0, 0.3, weight.shape)))
    return ForecastModel(params, TrainedOn.of(bars, 3), {}, forecaster)


def test_rows_of_the_weights_sum_to_one_and_differ(model: ForecastModel, bars: Bars) -> None:
    explanation = explain_attention(model, model.params, bars)
    assert explanation.weights.shape == (7, 7)
    assert explanation.received.shape == explanation.effects.shape == (256, 7)
    assert explanation.weights.sum(axis=1) == pytest.approx(np.ones(7), abs=1e-6)
    assert explanation.received.sum(axis=1) == pytest.approx(np.ones(256), abs=1e-6)
    assert np.ptp(explanation.received, axis=0).min() > 0.01
    assert explanation.names() == ["47 to 40", "39 to 32", "31 to 24", "23 to 16", "15 to 8", "7 to 0", "0"]


def test_the_model_answers_as_before_and_keeps_no_hook(model: ForecastModel, bars: Bars) -> None:
    before = model.forecast(bars)
    explain_attention(model, model.params, bars)
    assert np.array_equal(model.forecast(bars), before, equal_nan=True)
    assert not any(each._forward_hooks for each in model.forecaster.modules())


def test_the_effect_of_a_patch_is_the_move_of_the_forecast_without_its_returns(
    model: ForecastModel, bars: Bars
) -> None:
    explanation = explain_attention(model, model.params, bars[:200])
    assert (explanation.effects > 0).all()
    kept = explain_attention(replace(model, forecaster=half_trusted(model)), model.params, bars[:200])
    assert kept.effects == pytest.approx(explanation.effects / 2, abs=1e-5)


def half_trusted(model: ForecastModel) -> Any:
    from copy import deepcopy

    forecaster = deepcopy(model.forecaster)
    forecaster.trust.fill_(0.5)
    return forecaster


def attention(received: Floats, effects: Floats, trust: float = 1.0) -> Attention:
    patches = tuple(slice(4 * number, 4 * number + 4) for number in range(received.shape[1]))
    weights = np.full((len(patches), len(patches)), 1 / len(patches))
    return Attention(
        "TEST", len(received), MOMENT, MOMENT, patches, weights, received, effects, 4 * len(patches), trust
    )


@pytest.mark.parametrize(
    ("followed", "trust", "answer"),
    [
        (0.9, 1.0, "Attention says what the forecast is made of"),
        (0.5, 1.0, "Attention explains nothing here: the most attended patch"),
        (0.9, 0.0, "Attention explains nothing here: the model keeps no part"),
    ],
    ids=["effects follow attention", "effects at random in half of the windows", "no forecast is kept"],
)
def test_attention_explains_where_the_most_attended_patch_has_the_largest_effect(
    followed: float, trust: float, answer: str
) -> None:
    rng = np.random.default_rng(2)
    received = rng.dirichlet(np.ones(5), 400)
    follows = rng.random((400, 1)) < followed
    explanation = attention(received, np.where(follows, received, -received), trust)
    assert explanation.share == pytest.approx(followed, abs=0.05)
    section = attention_section(explanation)
    assert section.sentences[0].startswith(answer)
    assert section.values["explains"] is answer.startswith("Attention says")
    json.dumps([section.values, *(each.figure for each in section.charts)], allow_nan=False)


def test_bars_without_a_whole_window_are_too_few(model: ForecastModel, bars: Bars) -> None:
    with pytest.raises(NotEnoughBars, match="no whole window of 48 bars"):
        explain_attention(model, model.params, bars[:100])


def test_the_command_explains_the_network_by_its_attention(model: ForecastModel, bars: Bars) -> None:
    sections = sections_on_demand(model, bars[-1_000:], rows=100, only="attention")
    assert [each.name for each in sections] == ["features", "attention"]
