"""Trials of a search for strategies: all for the strategies found, none for other recipes."""

import uuid
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clm_core.domain.kinds import Kind
from clm_core.domain.searches import Placement
from clm_core.domain.strategy_search import StrategySearch, StrategySearchRequest, StrategySearchResult
from clm_core.domain.vocabulary import ModelType
from clm_core.evidence.trials import TrialRecord, count_trials
from clm_core.ledger.strategy_searches import StrategySearchStore
from clm_core.market.sources import MarketData
from clm_core.market.store import SeriesStore
from clm_core.retraining.counted_trials import CountedTrials, counted_trials
from clm_core.retraining.strategy_trials import effective_params, search_result_risk
from clm_core.search.strategy_objectives import space_of
from clm_core.search.strategy_search import open_strategy_search, search_strategies
from clm_core.services import Services

SYMBOL = f"R{uuid.uuid4().hex[:8]}".upper()
OTHER_NAME = f"S{uuid.uuid4().hex[:8]}".upper()
MOMENTUM = Kind(ModelType.OTHER, "momentum")
HERE = Placement(workers=1)


@dataclass(frozen=True)
class Searched:
    clm: Services
    definition: StrategySearch
    result: StrategySearchResult

    @property
    def front_params(self) -> dict[str, Any]:
        """Parameters of a strategy of the front, other than the defaults."""
        defaults = {each.candidate for each in self.result.defaults}
        return next(each.params for each in self.result.front if each.candidate not in defaults)

    def counted(
        self, params: dict[str, Any], symbol: str = SYMBOL, kind: Kind = MOMENTUM, **more: Any
    ) -> CountedTrials:
        now = self.clm.clock() + timedelta(days=1)
        recipe = (kind, params)
        return counted_trials(self.clm.ledger, self.clm.market, symbol, "1h", now=now, recipe=recipe, **more)


@pytest.fixture(scope="module")
def searched(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """A search on a new series, stored under two names."""
    folder: Path = tmp_path_factory.mktemp("searched")
    bars = services.market.bars("BTCUSD", "1h", days=100, closed_by=services.clock())
    close = 100 * np.exp(np.cumsum(0.006 * np.random.default_rng(77).standard_normal(len(bars))))
    opens = np.concatenate([[100.0], close[:-1]])
    high = np.maximum(opens, close) * 1.001
    low = np.minimum(opens, close) * 0.999
    bars = replace(bars, open=opens, high=high, low=low, close=close)
    for symbol in (SYMBOL, OTHER_NAME):
        SeriesStore(folder / "data").add(replace(bars, symbol=symbol), "tests", services.clock())
    clm = replace(services, open_market=lambda: MarketData(folder))
    request = StrategySearchRequest(families=("momentum",), symbol=SYMBOL, population=12, generations=2)
    definition = open_strategy_search(clm, request)
    return Searched(clm, definition, search_strategies(clm, definition, 2, HERE))


def test_the_whole_search_counts_for_what_it_found(searched: Searched) -> None:
    counted = searched.counted(searched.front_params)
    [search] = counted.searches
    front = len(searched.result.front) + len(searched.result.defaults)
    assert search.sketch.trials == searched.result.candidates + front
    count = counted.count(1.0)
    assert count.trials == search.sketch.trials
    assert count.effective == pytest.approx(search.sketch.effective)
    assert count.effective >= searched.result.effective_trials > 2.0
    [warning] = of_searches(counted)
    assert warning.startswith(
        f"the search {searched.definition.name} evaluated these parameters, or close ones"
    )


def of_searches(counted: CountedTrials) -> list[str]:
    """Warnings about searches; others name series of other tests, which are not stored here."""
    return [each for each in counted.warnings if each.startswith("the search ")]


def test_parameters_typed_by_hand_were_searched_too(searched: Searched) -> None:
    typed = {name: str(value) for name, value in searched.front_params.items()}
    sized = typed | {"sizing": {"target_volatility": 0.1}}
    assert len(searched.counted(typed).searches) == len(searched.counted(sized).searches) == 1


def test_parameters_rounded_by_hand_were_searched_too(searched: Searched) -> None:
    params = searched.front_params
    rounded = params | {
        "threshold": float(f"{params['threshold']:.2g}"),
        "stop_loss": float(f"{params['stop_loss']:.2g}"),
        "look_back": params["look_back"] + 1,
    }
    assert len(searched.counted(rounded).searches) == 1


def test_a_search_moves_no_bar_of_a_recipe_it_did_not_find(searched: Searched) -> None:
    others = {
        "defaults": ({}, MOMENTUM),
        "defaults in full": (effective_params(MOMENTUM, {}) or {}, MOMENTUM),
        "another look-back": (
            searched.front_params | {"look_back": 3 * searched.front_params["look_back"]},
            MOMENTUM,
        ),
        "no stop": (searched.front_params | {"stop_loss": "none"}, MOMENTUM),
        "out of the space": (searched.front_params | {"look_back": 900}, MOMENTUM),
        "another family": ({"threshold": 0.02}, Kind(ModelType.OTHER, "ma_cross")),
        "another kind": ({}, Kind(ModelType.LIGHTGBM)),
    }
    now = searched.clm.clock() + timedelta(days=1)
    without_recipe = counted_trials(searched.clm.ledger, searched.clm.market, SYMBOL, "1h", now=now)
    for name, (params, kind) in others.items():
        counted = searched.counted(params, kind=kind)
        assert (counted.searches, counted.records, of_searches(counted)) == ((), [], []), name
        # nor does it add a market to the fleet
        assert counted.markets == without_recipe.markets, name


def test_trials_of_others_and_of_the_search_count_together(searched: Searched) -> None:
    counted = searched.counted(searched.front_params)
    rng = np.random.default_rng(3)
    [search] = counted.searches
    days = np.arange(19_000, 19_400)
    records = [TrialRecord(0.1, 300.0, int(days[0]), rng.normal(0, 0.01, 400)) for _ in range(3)]
    count = replace(counted, records=records).count(1.0)
    assert count.trials == search.sketch.trials + 3
    assert count_trials(records).effective < search.sketch.effective < count.effective
    # trials of days that do not meet are independent
    assert count.effective == pytest.approx(search.sketch.effective + 3.0, rel=0.15)


def test_a_search_counts_under_every_name_of_the_series(searched: Searched) -> None:
    assert len(searched.counted(searched.front_params, OTHER_NAME).searches) == 1


def test_a_search_counts_from_the_moment_it_was_made(searched: Searched) -> None:
    before = searched.definition.created_at - timedelta(seconds=1)
    assert searched.counted(searched.front_params, until=before).searches == ()


def test_the_risk_of_the_choice_is_that_of_the_search(searched: Searched) -> None:
    ledger = searched.clm.ledger
    market = (SYMBOL, "1h")
    risk = search_result_risk(ledger, MOMENTUM, searched.front_params, market)
    assert risk is not None
    result = searched.result
    assert (risk.candidates, risk.days) == (result.candidates, result.selection_days)
    assert (risk.overfitting, risk.loss) == (result.overfitting, result.loss)
    assert search_result_risk(ledger, MOMENTUM, {}, market) is None


def test_a_search_without_a_result_has_an_unknown_risk(
    searched: Searched, monkeypatch: pytest.MonkeyPatch
) -> None:
    clm = searched.clm
    request = StrategySearchRequest(families=("breakout",), symbol=SYMBOL, population=10, generations=1)
    definition = open_strategy_search(clm, request)
    monkeypatch.setattr(StrategySearchStore, "end", killed)
    with pytest.raises(Killed):
        search_strategies(clm, definition, 1, HERE)
    space = space_of(definition)
    [first, _] = [
        each
        for each in clm.ledger.strategy_searches.batches(definition.name, len(space.genes))
        if each.number >= 0
    ]
    evaluated = dict(space.strategies(first.genes[1:2])[0].params)
    risk = search_result_risk(clm.ledger, Kind(ModelType.OTHER, "breakout"), evaluated, (SYMBOL, "1h"))
    assert risk is not None
    assert np.isnan([risk.overfitting, risk.loss]).all()


class Killed(Exception):
    """Stands for SIGKILL of the whole command."""


def killed(*arguments: Any) -> None:
    raise Killed
