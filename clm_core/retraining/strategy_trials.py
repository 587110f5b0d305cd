"""Trials of the searches for strategies behind a version's parameters, found by content.

A search evaluates thousands of strategies; only what is handed to the gate is a trial of the market. A
version whose parameters a search has evaluated owes its luck to the whole search, whether the parameters came
by `--params-from` or were typed. So do parameters rounded by hand, close to those of a strategy of the front.
Defaults were declared beforehand, and owe nothing to a search.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from clm_core.domain.costs import Costs
from clm_core.domain.errors import CLMError
from clm_core.domain.kinds import Kind
from clm_core.domain.strategy_search import StrategySearch
from clm_core.domain.vocabulary import ModelType, RuleFamily
from clm_core.evidence.overfitting import SelectionRisk
from clm_core.evidence.trials import TrialSketch
from clm_core.evolution.strategies import Strategy
from clm_core.ledger.store import Ledger
from clm_core.ledger.strategy_searches import TrialBatch
from clm_core.market.bars import Floats
from clm_core.models import catalog
from clm_core.models.ensemble import EnsembleParams, Member
from clm_core.models.strategies.families import RULES
from clm_core.search.strategy_objectives import space_of

NEAR = 0.05
"""Relative distance of a number rounded by hand, as to two digits."""


@dataclass(frozen=True, eq=False)
class SearchTrials:
    """Trials of a search for strategies."""

    search: StrategySearch
    sketch: TrialSketch
    """All trials of the search, including the look at held-out bars."""

    @property
    def sentence(self) -> str:
        return (
            f"the search {self.search.name} evaluated these parameters, or close ones, among "
            f"{self.sketch.trials:,} trials, which count as {self.sketch.effective:,.0f} independent ones"
        )


def effective_params(kind: Kind, params: Mapping[str, Any]) -> dict[str, Any] | None:
    """Parameters of the kind with defaults, without sizing and execution; None if refused by this release."""
    try:
        stored = catalog.stored_params(kind.model_type, params, kind.plugin)
        recipe = catalog.recipe(kind.model_type, stored, Costs(fee_bps=0, slippage_bps=0), kind.plugin)
    except CLMError:
        return None
    return catalog.own_params(recipe.describe())


def searched_recipes(kind: Kind, params: Mapping[str, Any]) -> list[tuple[RuleFamily, dict[str, Any]]]:
    """Families and effective parameters of a rule strategy, or of the members of an ensemble.

    Parameters at the defaults are left out, as are members named by a version that is not resolved yet.
    """
    recipes = [(kind, params)]
    if kind.model_type is ModelType.ENSEMBLE:
        members = EnsembleParams.parse(catalog.own_params(params)).members
        recipes = [(each.kind, each.params) for each in members if isinstance(each, Member)]
    effective_recipes = []
    for each, own in recipes:
        if each.plugin in list(RuleFamily):
            effective = effective_params(each, own)
            if effective is not None and effective != effective_params(each, {}):
                effective_recipes.append((RuleFamily(str(each.plugin)), effective))
    return effective_recipes


def searches_behind(
    ledger: Ledger,
    kind: Kind,
    params: Mapping[str, Any],
    markets: Collection[tuple[str, str]],
    until: datetime | None = None,
) -> list[SearchTrials]:
    """Searches that evaluated the parameters of a rule strategy, or of a member of an ensemble, newest first.

    Args:
        params: training parameters, with or without defaults.
        markets: symbol and timeframe of the market, and of other series of the same market.
        until: latest time of a trial; None for all.
    """
    recipes = searched_recipes(kind, params)
    searches = []
    for search in ledger.strategy_searches.of_markets(markets, until) if recipes else ():
        rows = [row for family, own in recipes if (row := _row(search, family, own)) is not None]
        if not rows:
            continue
        batches = ledger.strategy_searches.batches(search.name, len(rows[0]), until)
        if any(_has_evaluated(batches, row) for row in rows) or _is_near_front(
            ledger, search, recipes, until
        ):
            searches.append(SearchTrials(search, TrialSketch.merged([each.sketch for each in batches])))
    return searches


def search_result_risk(
    ledger: Ledger,
    kind: Kind,
    params: Mapping[str, Any],
    market: tuple[str, str],
    until: datetime | None = None,
) -> SelectionRisk | None:
    """Risk of the newest search for strategies of the market that evaluated the parameters.

    NaN for a search without a result; None for parameters from no search.
    """
    behind = searches_behind(ledger, kind, params, [market], until)
    if not behind:
        return None
    result = ledger.strategy_searches.result(behind[0].search.name, until)
    if result is None:
        return SelectionRisk(behind[0].sketch.trials, 0, np.nan, np.nan)
    overfitting, loss = (np.nan if each is None else each for each in (result.overfitting, result.loss))
    return SelectionRisk(result.candidates, result.selection_days, overfitting, loss)


def _row(search: StrategySearch, family: RuleFamily, params: Mapping[str, Any]) -> Floats | None:
    """Genes of the parameters in the space of a search, shape (n_genes,); None outside the space."""
    if family not in search.families:
        return None
    space = space_of(search)
    searched = {name: params[name] for name in dict(space.defaults_of(family).params)}
    if any(isinstance(value, str) or value is None for value in searched.values()):
        return None
    rule = RULES[family]
    if rule.params.parse(search.fixed | searched, kind=family.value).model_dump(mode="json") != params:
        return None
    row = space.rows([Strategy(family, searched)])
    return row[0] if np.array_equal(space.genes.nearest(row), row) else None


def _is_near_front(
    ledger: Ledger,
    search: StrategySearch,
    recipes: Sequence[tuple[RuleFamily, Mapping[str, Any]]],
    until: datetime | None,
) -> bool:
    """True for a recipe close to a strategy of the front."""
    result = ledger.strategy_searches.result(search.name, until)
    front = () if result is None else result.front
    return any(
        strategy.family == family and _is_near(strategy.params, own)
        for strategy in front
        for family, own in recipes
    )


def _is_near(params: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """True if each number differs by at most `NEAR`, an integer by at most 1 or `NEAR`."""
    return all(_is_near_value(value, own[name]) for name, value in params.items())


def _is_near_value(value: Any, own: Any) -> bool:
    if isinstance(value, str) or isinstance(own, str) or own is None:
        return bool(value == ("none" if own is None else own))
    least = 1.0 if isinstance(value, int) else 0.0
    return bool(abs(own - value) <= max(least, NEAR * abs(value)))


def _has_evaluated(batches: list[TrialBatch], row: Floats) -> bool:
    return any((batch.genes == row).all(axis=1).any() for batch in batches)
