"""Expected gain and cost of a requested retrain, measured from the ledger."""

import math
import statistics
from collections.abc import Sequence
from datetime import datetime, timedelta

from clm_core.domain.jobs import TrainingJob
from clm_core.domain.retrain_values import DailyRecord, RetrainEvidence, RetrainValue, ServingVersion
from clm_core.domain.triggers import TriggerRequest
from clm_core.domain.vocabulary import ModelStatus, TriggerReason
from clm_core.ledger.trials import JudgedRetrain
from clm_core.services import Services

NEWEST = 10
"""Number of newest retrains, for the duration and the probability of a promotion."""
PEOPLE = ("terminal", "api")
"""Sources of requests by people."""
NEVER_WEIGHED = (TriggerReason.MANUAL, TriggerReason.STRATEGY_EVOLUTION)
"""Reasons of requests by people, and of measured candidates."""
DAY = timedelta(days=1)


def value_of(services: Services, request: TriggerRequest, job: TrainingJob) -> RetrainValue | None:
    """Expected gain and cost of a request; None for a request that is not weighed.

    Not weighed are all requests unless `[triggers.cost_aware]` is enabled, requests of people, candidates,
    and requests for a model without a judged record of 60 days.
    """
    rules = services.settings.triggers.cost_aware
    if not rules.enabled or request.source in PEOPLE or job.trigger_reason in NEVER_WEIGHED:
        return None
    judged = services.ledger.trials.newest_judged(job.model_id, NEWEST)
    if not judged:
        return None
    # the server starts without the libraries of numerics
    from clm_core.decisions.retrain_value import retrain_value
    from clm_core.evidence.equity_band import daily_growth

    growth = daily_growth(judged[0].record.daily)
    if growth is None:
        return None
    before, after = _trials(services, job, judged[0])
    assert rules.compute_price_per_hour is not None
    assert rules.capital is not None
    now = services.clock()
    evidence = RetrainEvidence(
        judged=DailyRecord(growth.mean, growth.deviation, growth.days),
        days_since_training=max((now - judged[0].trained_at) / DAY, 0.0),
        serving=_serving(services, job.model_id, now),
        drift_score=request.observed.drift_score,
        retrains=len(judged),
        promoted=sum(each.was_promoted for each in judged),
        trials=before,
        trials_after=after,
        hours=_hours(judged) if rules.hours_per_retrain is None else rules.hours_per_retrain,
        side_bps=judged[0].side_bps,
    )
    return retrain_value(evidence, rules.half_life_days, rules.compute_price_per_hour, rules.capital)


def _trials(services: Services, job: TrainingJob, newest: JudgedRetrain) -> tuple[float, float]:
    """Trials of the market, and with those of a further retrain; at least the number of the gate's policy.

    One each under a policy without evidence: trials do not raise the bar of such a policy.
    """
    policy = services.policy(job.model_id, job.symbol)
    if policy.evidence is None:
        return 1.0, 1.0
    markets = services.ledger.trials.markets()
    counted = sum(
        each.trials for each in markets if (each.symbol, each.timeframe) == (job.symbol, job.timeframe)
    )
    further = len(services.ledger.trials.of_job(newest.job_id))
    return max(counted, policy.fewest_trials), max(counted + further, policy.fewest_trials)


def _hours(judged: Sequence[JudgedRetrain]) -> float:
    """Median duration of the jobs, hours."""
    return statistics.median(each.duration / timedelta(hours=1) for each in judged)


def _serving(services: Services, model_id: str, now: datetime) -> ServingVersion | None:
    serving = services.ledger.versions(model_id=model_id, status=ModelStatus.PRODUCTION, limit=1)
    if not serving:
        return None
    [version] = serving
    _, verdict = services.ledger.evaluation(model_id, version.version)
    # a verdict by a release without folds: fully invested is the upper limit
    exposure = statistics.fmean(each.exposure for each in verdict.folds) if verdict.folds else 1.0
    standing = services.ledger.standings.newest(model_id).get(model_id)
    returns = None
    if standing is not None and standing.version == version.version and standing.equity:
        last = standing.equity[-1]
        if last.days > 0 and last.equity > 0:
            returns = DailyRecord(math.log(last.equity) / last.days, math.nan, last.days)
    return ServingVersion(version.version, max((now - version.created_at) / DAY, 0.0), returns, exposure)
