"""The guide to a retrain states the bars of a fit as the recipes do."""

import re
from pathlib import Path

import numpy as np
import pytest

from clm_core.backtest.walk_forward import days_to_walk
from clm_core.domain.costs import Costs
from clm_core.domain.vocabulary import ModelType
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.market.bars import Bars
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.models.catalog import kinds, recipe
from clm_core.models.contract import StatesBarsToFit

GUIDE = Path(__file__).parents[3] / "docs" / "how-to" / "retrain.md"
ROWS = re.findall(r"^\| (`.+`) ((?:\| [\d,]+ ){4})\|$", GUIDE.read_text(), re.MULTILINE)
STATED = {kind: re.findall(r"[\d,]+", row[1]) for row in ROWS for kind in re.findall(r"\w+", row[0])}


def short(timeframe: Timeframe) -> Bars:
    """A year of a market with the volatility of BTC, or 365 hours of it."""
    years = 365 * timeframe.seconds / (365 * 86_400)
    steps = np.random.default_rng(0).normal(0, 0.6 * np.sqrt(years / 365), 365)
    prices = 100.0 * np.exp(np.cumsum(steps))
    time = np.arange(365, dtype=np.int64) * timeframe.nanoseconds
    return Bars("COIN", timeframe, Calendar.ALWAYS, time, *(prices for _ in range(4)), np.ones(365))


def test_the_guide_has_every_built_in_kind_but_ensembles() -> None:
    assert STATED.keys() == set(kinds()) - {ModelType.ENSEMBLE}


@pytest.mark.parametrize("kind", STATED)
def test_the_guide_states_the_bars_and_the_days_of_a_fit(kind: str) -> None:
    of_kind = recipe(ModelType(kind), {}, Costs()).inner
    assert isinstance(of_kind, StatesBarsToFit)
    stated = []
    for bars in (short(Timeframe.H1), short(Timeframe.D1)):
        needed = of_kind.bars_to_fit(bars)
        stated += [needed, days_to_walk(needed, bars, WalkForwardPlan())]
    assert STATED[kind] == [f"{each:,}" for each in stated]
