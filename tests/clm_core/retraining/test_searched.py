"""The search behind a version is found by the parameters of its trials."""

import uuid
from typing import Any

import numpy as np
import pytest
import records

from clm_core.domain.trials import Trial, TrialSource
from clm_core.domain.versions import ModelVersion
from clm_core.evidence.track_record import track_record
from clm_core.evidence.trials import TrialRecord
from clm_core.market.bars import Floats
from clm_core.models import catalog
from clm_core.retraining.searched import search_risk
from clm_core.services import Services

DAYS = 400


def version_with(services: Services, symbol: str, params: dict[str, Any]) -> ModelVersion:
    """A version from a recorded job with the parameters."""
    job = records.a_job(
        symbol=symbol, training_params=catalog.stored_params(records.a_job().model_type, params)
    )
    services.ledger.create_job(job)
    return records.a_version(job)


def count(
    services: Services, version: ModelVersion, params: dict[str, Any], daily: Floats, seed: int = 0
) -> None:
    """Count a trial of a tuning of the version's model."""
    record = track_record(daily)
    trial = Trial(
        id=uuid.uuid4(),
        source=TrialSource.TUNING,
        model_id=version.model_id,
        symbol=version.symbol,
        timeframe=version.timeframe,
        job_id=None,
        params=params,
        seed=seed,
        sharpe=record.sharpe,
        skewness=record.skewness,
        kurtosis=record.kurtosis,
        bars=record.bars,
        effective_bars=record.effective_bars,
        period_start=records.MOMENT,
        period_end=records.MOMENT,
        at=services.clock(),
    )
    services.ledger.trials.count(trial, TrialRecord(record.sharpe, record.effective_bars, 20_000, daily))


def study(services: Services, version: ModelVersion, edge: float, days: int = DAYS) -> None:
    """A tuning of four depths, of which depth 7 has an edge a day."""
    rng = np.random.default_rng(5)
    for depth in (6, 7, 8, 9):
        daily = 0.01 * (rng.standard_normal(days) + edge * (depth == 7))
        count(services, version, {"max_depth": depth}, daily)


@pytest.mark.parametrize("edge", [0.0, 0.5])
def test_a_version_with_the_parameters_of_a_candidate_has_the_risk_of_the_search(
    services: Services, edge: float
) -> None:
    version = version_with(services, f"SRA{int(10 * edge)}USD", {"max_depth": 7})
    study(services, version, edge)
    risk = search_risk(services.ledger, version)
    assert risk is not None
    assert (risk.candidates, risk.days) == (4, DAYS)
    assert (risk.overfitting < 0.05) is (edge > 0.0)


def test_parameters_of_no_candidate_come_from_no_search(services: Services) -> None:
    version = version_with(services, "SRBUSD", {"max_depth": 5})
    study(services, version, 0.5)
    assert search_risk(services.ledger, version) is None


def test_defaults_come_from_a_search_only_where_they_were_its_best(services: Services) -> None:
    version = version_with(services, "SRCUSD", {})
    study(services, version, 0.5)
    rng = np.random.default_rng(6)
    count(services, version, {}, 0.01 * rng.standard_normal(DAYS))
    assert search_risk(services.ledger, version) is None
    best = version_with(services, "SRDUSD", {})
    study(services, best, 0.0)
    count(services, best, {}, 0.01 * (rng.standard_normal(DAYS) + 0.5))
    risk = search_risk(services.ledger, best)
    assert risk is not None
    assert risk.candidates == 5


def test_a_pruned_candidate_leaves_the_days_of_the_others(services: Services) -> None:
    version = version_with(services, "SREUSD", {"max_depth": 7})
    study(services, version, 0.5)
    count(services, version, {"max_depth": 5}, 0.01 * np.random.default_rng(7).standard_normal(40))
    risk = search_risk(services.ledger, version)
    assert risk is not None
    assert (risk.candidates, risk.days) == (4, DAYS)


def test_seeds_of_a_candidate_are_one_candidate(services: Services) -> None:
    version = version_with(services, "SRFUSD", {"max_depth": 7})
    study(services, version, 0.5)
    rng = np.random.default_rng(8)
    count(services, version, {"max_depth": 7}, 0.01 * (rng.standard_normal(DAYS) + 0.5), seed=1)
    risk = search_risk(services.ledger, version)
    assert risk is not None
    assert risk.candidates == 4


def test_too_few_days_are_a_search_that_measures_nothing(services: Services) -> None:
    version = version_with(services, "SRGUSD", {"max_depth": 7})
    study(services, version, 0.5, days=25)
    risk = search_risk(services.ledger, version)
    assert risk is not None
    assert np.isnan(risk.overfitting)
