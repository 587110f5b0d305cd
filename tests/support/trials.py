"""A counted trial, as evaluations require."""

import uuid

import numpy as np
from numpy.typing import ArrayLike

from clm_core.domain.jobs import Lease
from clm_core.domain.trials import Trial, TrialSource
from clm_core.domain.versions import ModelVersion
from clm_core.evidence.trials import TrialRecord
from clm_core.ledger.store import Ledger


def count_trial_of(
    ledger: Ledger,
    version: ModelVersion,
    lease: Lease | None = None,
    daily: ArrayLike = (0.01, -0.01),
) -> Trial:
    trial = Trial(
        id=uuid.uuid4(),
        source=TrialSource.RETRAIN,
        model_id=version.model_id,
        symbol=version.symbol,
        timeframe=version.timeframe,
        job_id=version.training_job_id,
        params={},
        seed=version.seed,
        sharpe=0.1,
        skewness=0.0,
        kurtosis=3.0,
        bars=60,
        effective_bars=60.0,
        period_start=version.created_at,
        period_end=version.created_at,
        at=version.created_at,
    )
    record = TrialRecord(trial.sharpe, trial.effective_bars, 20_000, np.array(daily))
    return ledger.trials.count(trial, record, lease)
