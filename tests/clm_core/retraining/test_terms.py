"""Terms of trading on the way from the settings to ledger, MLflow, tear sheet and reproduction."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clm_core.domain.costs import Costs, HoldingCosts
from clm_core.domain.execution import (
    NEW_VERSIONS,
    REBALANCE_BAND,
    Execution,
    ExecutionRules,
    ExecutionSettings,
)
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.terms import GeneralCostSettings, MarketSettings
from clm_core.domain.vocabulary import ModelType, RuleFamily
from clm_core.market.carry_store import CarryStore, PaymentKind
from clm_core.models import catalog
from clm_core.retraining import jobs, steps
from clm_core.retraining.reproduce import _costs_of
from clm_core.services import Services

OWN = MarketSettings(
    costs={"fee_bps": 0.25}, long_only=True, funding_bps_per_8h=0.5, borrow_bps_per_year=40.0
)


@pytest.fixture
def own(services: Services, tmp_path: Path) -> Services:
    """Services with terms of EURUSD of its own, and a stored funding rate."""
    own = replace(services, settings=services.settings.model_copy(update={"markets": {"EURUSD": OWN}}))
    rates = tmp_path / "funding.csv"
    rates.write_text("time,rate\n2025-01-01T00:00:00Z,0.0001\n")
    market = type(services.market)(services.settings.home)
    market.payments = CarryStore(tmp_path / "carry", tmp_path / "quarantine")
    market.payments.add(PaymentKind.FUNDING, rates, "EURUSD", now=services.clock())
    return replace(own, open_market=lambda: market)


def test_an_evaluation_records_the_terms_of_its_market_everywhere(own: Services) -> None:
    request = RetrainRequest(
        model_type=ModelType.LIGHTGBM,
        symbol="EURUSD",
        dataset_span_days=240,
        training_params={"rounds": 5, "threshold": 0.0, "execution.stop_loss": "0.05"},
        requested_by="tests",
    )
    job = jobs.open_job(own, request)
    with jobs.running(own, job) as lease:
        bars = steps.fetch_bars(own, job)
        trained = steps.train(own, job, bars)
        version = steps.register(own, lease, job, bars, trained)
        evaluation = steps.evaluate_out_of_sample(own, lease, job, bars, trained)
        verdict = steps.judge(own, lease, version, evaluation)
        files = steps.report(own, job, version, bars, trained, evaluation, verdict)
    assert (evaluation.positions >= 0).all()
    assert (trained.out_of_sample[0].positions < 0).any()
    assert evaluation.baselines[0].result.holding_costs > 0
    assert [each.name for each in verdict.baselines] == ["buy_and_hold", "hold_at_volatility", "trend"]
    assert all(each.sharpe_interval is not None for each in verdict.baselines)
    assert [each.name for each in verdict.rules] == list(RuleFamily)
    assert all((each.win_rate is None) == (each.trades == 0) for each in verdict.rules)
    assert "Rule strategies, for information" in files.html.read_text()
    recorded, stored_verdict = own.ledger.evaluation(version.model_id, version.version)
    terms = recorded.terms
    assert terms is not None
    assert terms.costs == Costs(fee_bps=0.25, slippage_bps=0.2)
    assert terms.holding == HoldingCosts(funding_bps_per_8h=0.5, borrow_bps_per_year=40.0)
    assert terms.long_only
    funding = own.market.carry("EURUSD").funding
    assert funding is not None
    assert terms.funding_hash == funding.content_hash
    assert (terms.walk_forward.folds, terms.walk_forward.seeds) == (own.settings.walk_forward.folds, 1)
    assert (terms.calendar, terms.gap_rules) == (str(bars.calendar), bars.gap_rules)
    assert recorded.terms_digest == terms.digest
    assert (recorded.fee_bps, recorded.slippage_bps) == (0.25, 0.2)
    assert "Long only" in " ".join(stored_verdict.warnings)
    tags = own.registry._client.get_run(version.mlflow_run_id).data.tags
    assert tags["clm.terms_digest"] == terms.digest
    page = files.html.read_text()
    assert terms.digest in page
    assert "0.25 bps per side ([markets.EURUSD.costs])" in page
    assert terms.execution == Execution(stop_loss=0.05, rebalance_band=REBALANCE_BAND)
    assert evaluation.market.terms.execution == terms.execution
    # the settings change later: the version keeps its execution, a version stored without that of its
    # evaluation, and a version of a release that recorded none has that of the settings
    other = own.settings.model_copy(update={"execution": ExecutionSettings(stop_loss=0.2, initial_cash=500)})
    changed = replace(own, settings=other)
    kept = changed.version_terms(version, bars.calendar).terms.execution
    assert kept == terms.execution.model_copy(update={"initial_cash": 500.0})
    older = version.model_copy(update={"params": catalog.own_params(version.params)})
    assert changed.version_terms(older, bars.calendar).terms.execution == kept
    oldest = older.model_copy(update={"version": "v20200101_000000"})
    before = changed.version_terms(oldest, bars.calendar).terms.execution
    assert before == Execution(stop_loss=0.2, rebalance_band=None, initial_cash=500)
    # the settings change later: the version is trained again under its own costs
    dearer = own.settings.model_copy(update={"markets": {}, "costs": GeneralCostSettings(fee_bps=9.0)})
    assert _costs_of(replace(own, settings=dearer), version, bars) == terms.market_costs


def test_a_search_keeps_the_terms_of_its_beginning(own: Services) -> None:
    from clm_core.domain.tuning import TuneRequest
    from clm_core.search.tuning import open_tuning

    request = TuneRequest(
        model_type=ModelType.LIGHTGBM, symbol="EURUSD", dataset_span_days=90, trials=1, requested_by="tests"
    )
    tuning = open_tuning(own, request)
    stored = own.ledger.tunings.find(tuning.name)
    rules = catalog.version_execution(stored.fixed, ExecutionRules())
    assert rules == NEW_VERSIONS
    expected = own.terms("EURUSD", "24x5").under(rules).terms
    assert stored.terms == expected.model_copy(update={"origins": {}, "remarks": ()})
    assert stored.market_costs.long_only
    market = own.recorded_terms("EURUSD", stored.terms)
    bars = own.market.bars("EURUSD", "1h", days=30, closed_by=own.clock())
    rates = market.holding(bars)
    assert rates is not None
    assert np.count_nonzero(rates.long) > 60
