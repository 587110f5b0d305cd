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
ROWS = re.findall(r"^\| (`.+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", GUIDE.read_text(), re.MULTILINE)
STATED = {kind: row[1:] for row in ROWS for kind in re.findall(r"\w+", row[0])}


def short(timeframe: Timeframe) -> Bars:
    time = np.arange(365, dtype=np.int64) * timeframe.nanoseconds
    return Bars("COIN", timeframe, Calendar.ALWAYS, time, *(np.ones(365) for _ in range(5)))


def test_the_guide_has_every_built_in_kind_but_ensembles() -> None:
    assert STATED.keys() == set(kinds()) - {ModelType.ENSEMBLE}


@pytest.mark.parametrize("kind", STATED)
def test_the_guide_states_the_bars_and_the_days_of_a_fit(kind: str) -> None:
    of_kind = recipe(ModelType(kind), {}, Costs()).inner
    assert isinstance(of_kind, StatesBarsToFit)
    needed = of_kind.bars_to_fit(short(Timeframe.D1))
    days = [days_to_walk(needed, short(each), WalkForwardPlan()) for each in (Timeframe.H1, Timeframe.D1)]
    assert STATED[kind] == tuple(f"{each:,}" for each in (needed, *days))
