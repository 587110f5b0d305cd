"""What the gate is shown of a version: its results counted as a trial, beside all others and the champion."""

import uuid
from collections.abc import Sequence
from datetime import timedelta

from clm_core.backtest.engine import backtest
from clm_core.backtest.results import Backtest, Metrics
from clm_core.decisions.explanation import Proof
from clm_core.decisions.gate import Case, Comparison
from clm_core.decisions.gate_policy import GatePolicy
from clm_core.domain.evaluations import Verdict
from clm_core.domain.jobs import Lease, TrainingJob
from clm_core.domain.trials import Trial, TrialSource
from clm_core.domain.versions import ModelVersion
from clm_core.evidence import paired
from clm_core.evidence.soundness import activity
from clm_core.evidence.track_record import TrackRecord, track_record
from clm_core.evidence.trials import count_trials, trial_record
from clm_core.market.bars import Bars, Floats
from clm_core.services import Services


def count_trials_of(
    services: Services,
    lease: Lease,
    job: TrainingJob,
    bars: Bars,
    looks: Sequence[tuple[int, Backtest]],
) -> None:
    """Record that these out-of-sample bars were looked at, before anybody reads what came of it.

    Args:
        looks: by how much the seed differs from the job's, and what came of it; the judged one last.
    """
    now = services.clock()
    for number, (seed, result) in enumerate(looks):
        record = track_record(result.returns)
        trial = Trial(
            id=uuid.uuid4(),
            source=TrialSource.RETRAIN,
            model_id=job.model_id,
            symbol=job.symbol,
            timeframe=job.timeframe,
            job_id=job.id,
            params=job.training_params,
            seed=job.seed + seed,
            sharpe=record.sharpe,
            skewness=record.skewness,
            kurtosis=record.kurtosis,
            bars=record.bars,
            effective_bars=record.effective_bars,
            period_start=bars.start.to_pydatetime(),
            period_end=bars.end.to_pydatetime(),
            # in the order given, however coarse the clock is
            at=now + timedelta(microseconds=number),
        )
        services.ledger.trials.count(trial, trial_record(bars.time, result.returns, record), lease)


def case_of(
    services: Services,
    version: ModelVersion,
    bars: Bars,
    positions: Floats,
    result: Backtest,
    metrics: Metrics,
    policy: GatePolicy,
) -> Case:
    """
    Args:
        bars: out of sample.
        positions: the challenger's on them, shape (n_bars,).
        result: of those positions after costs.
    """
    fewest = policy.evidence.fewest_trials if policy.evidence else 1.0
    return Case(
        metrics=metrics,
        activity=activity(positions),
        record=track_record(result.returns),
        trials=count_trials(services.ledger.trials.records(version.symbol, version.timeframe), fewest),
        periods_per_year=bars.periods_per_year,
        against=against_champion(services, version, bars, positions),
    )


def against_champion(
    services: Services, version: ModelVersion, bars: Bars, positions: Floats
) -> Comparison | None:
    """The model that serves and the challenger on the bars that are new to both; None where none serves.

    Both start flat on the first common bar and pay the same costs.
    """
    label = services.ledger.promotions.champion(version.model_id)
    if label is None or label == version.version:
        return None
    served = services.ledger.version(version.model_id, label)
    champion = services.registry.load(served.model_path, served.bundle_digest)
    new = bars.row_after(champion.trained_on.end)
    if new == len(bars):
        return Comparison(label, paired.PairedRecord())
    costs, execution = services.settings.costs, services.settings.execution
    common = bars[new:]
    ours = backtest(common, positions[new:], costs, execution)
    theirs = backtest(common, champion.positions(bars)[new:], costs, execution)
    return Comparison(label, paired.extend(paired.PairedRecord(), ours.returns, theirs.returns))


def proof_of(services: Services, version: ModelVersion, verdict: Verdict) -> Proof | None:
    """The evidence a verdict rests on, as it was; None where its policy asked for none."""
    levels = services.ledger.policy_of(version.model_id, version.version).evidence
    trials = services.ledger.trials.of_job(version.training_job_id)
    if verdict.luck is None or levels is None or not trials:
        return None
    judged = trials[-1]
    record = TrackRecord(judged.sharpe, judged.skewness, judged.kurtosis, judged.bars, judged.effective_bars)
    return Proof(record, verdict.luck, levels)
