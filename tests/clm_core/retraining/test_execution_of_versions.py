"""Versions stored before rules of execution belonged to versions keep the rules of their judgement."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import promoting
import pytest
import records

from clm_core.domain.actors import Actor
from clm_core.domain.costs import Costs
from clm_core.domain.execution import FIXED_UNITS, Execution, ExecutionRules, ExecutionSettings
from clm_core.domain.terms import EvaluationTerms
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelType, Role
from clm_core.evidence import paired
from clm_core.evidence.equal_volatility import compare
from clm_core.models import catalog
from clm_core.models.bundle import save_bundle
from clm_core.retraining.case import compare_with_champion
from clm_core.retraining.champion import champion_of
from clm_core.services import Services
from clm_core.serving import load

MakeVersion = Callable[..., ModelVersion]
ADA = Actor(name="ada", role=Role.ADMIN)
STOPPED = ExecutionRules(stop_loss=0.002)
TODAY = ExecutionRules(take_profit=0.5, rebalance_band=0.02)


@pytest.fixture
def today(services: Services) -> Services:
    """The settings in force have other rules than those of the judgement."""
    rules = ExecutionSettings(**TODAY.model_dump())
    return replace(services, settings=services.settings.model_copy(update={"execution": rules}))


def judged_under(rules: ExecutionRules) -> EvaluationTerms:
    return records.TERMS.model_copy(update={"execution": Execution(**rules.model_dump())})


@pytest.mark.parametrize(
    ("terms", "judged", "served"),
    [
        (judged_under(STOPPED), STOPPED, STOPPED),
        # release 0.1.0 recorded no terms
        (None, TODAY.model_copy(update={"rebalance_band": None}), FIXED_UNITS),
    ],
    ids=["terms recorded", "release 0.1.0"],
)
def test_a_version_stored_without_rules_is_watched_and_served_under_those_of_its_evaluation(
    terms: EvaluationTerms | None,
    judged: ExecutionRules,
    served: ExecutionRules,
    today: Services,
    make_version: MakeVersion,
    model_id: str,
) -> None:
    version = make_version(model_id, terms=terms)
    assert "execution" not in version.params
    assert today.version_terms(version, "24x7").terms.execution.rules == judged
    promoting.promote(today, model_id, version.version, ADA, "t", today.clock(), force=True)
    assert load(model_id, registry=today.registry, ledger=today.ledger).execution == served


def test_a_champion_stored_without_rules_is_compared_under_those_of_its_evaluation(
    today: Services, make_version: MakeVersion, model_id: str, tmp_path: Path
) -> None:
    bars = today.market.bars("BTCUSD", "1h", days=90, closed_by=today.clock())
    older = bars[:-600]
    params = {"rounds": 20, "label": "direction", "horizon": 4, "sizing": "none"}
    recipe = catalog.recipe(ModelType.LIGHTGBM, params, Costs())
    model = recipe.fit(older, seed=1)
    digest = save_bundle(model, recipe, tmp_path / "bundle", older)
    stored = SimpleNamespace(folder=tmp_path / "bundle", digest=digest, bars=older)
    champion = make_version(model_id, stored=stored, terms=judged_under(STOPPED))
    promoting.promote(today, model_id, champion.version, ADA, "t", today.clock(), force=True)
    production = champion_of(today, make_version(model_id))
    assert production is not None
    market = today.terms("BTCUSD", "24x7")
    # of a version that is always long; all that the comparison reads
    held = market.backtest(bars, np.ones(len(bars)))
    evaluation: Any = SimpleNamespace(bars=bars, result=held, market=market)
    against = compare_with_champion(
        today.ledger, today.market, production, evaluation, today.settings.execution.rules
    )

    def record_under(rules: ExecutionRules) -> paired.PairedRecord:
        result = market.under(rules).backtest(bars, model.positions(bars))
        is_new = np.arange(len(bars)) >= len(older)
        return compare(held.returns, result.returns, bars.periods_per_year, is_new)

    assert against.record == record_under(STOPPED)
    assert against.record.n > 500
    assert against.record != record_under(TODAY)
