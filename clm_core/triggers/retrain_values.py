"""Expected gain and cost of a requested retrain, measured from the ledger."""

import bisect
import math
import statistics
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from clm_core.domain.evaluations import Verdict
from clm_core.domain.jobs import TrainingJob
from clm_core.domain.retrain_values import EarnedSpan, RetrainEvidence, RetrainValue, ServingVersion
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
AWAITING = (ModelStatus.CANDIDATE, ModelStatus.SHADOW)
"""Statuses of versions that await a decision."""
MAX_VERSIONS = 1000
"""Newest versions of a recipe whose days of training are read."""
SAME_TIME = 1e-6
"""Days up to which two times of training are the same."""
DAY = timedelta(days=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
    from clm_core.decisions.retrain_value import required_growth, retrain_value
    from clm_core.evidence.equity_band import daily_growth

    growth = daily_growth(judged[0].record.daily)
    if growth is None:
        return None
    assert rules.compute_price_per_hour is not None
    assert rules.capital is not None
    now = services.clock()
    days = max((now - judged[0].trained_at) / DAY, 0.0)
    before, after = _trials(services, job, judged[0], days / (growth.days + days))
    serving = _serving(services, job.model_id, now)
    _, verdict = services.ledger.evaluation(job.model_id, judged[0].version)
    trained = _trained(services, job.model_id, judged[0], verdict)
    followed = () if serving is not None else tuple(_followed(services, job.model_id, judged[0], now))
    but = judged[0].version if followed else None
    evidence = RetrainEvidence(
        earned=(
            *_judged(judged[0], trained, serving, now),
            *followed,
            *_in_production(services, job.model_id, serving, now, but),
        ),
        record_growth=growth.mean * growth.days + math.fsum(each.growth for each in followed),
        required_growth=required_growth(verdict, growth.deviation, growth.days + days),
        deviation=growth.deviation,
        days_since_training=days,
        unseen_days=0.0 if followed else days,
        serving=serving,
        drift_score=request.observed.drift_score,
        retrains=len(judged),
        promoted=sum(each.was_promoted for each in judged),
        trials=before,
        trials_after=after,
        hours=_hours(judged) if rules.hours_per_retrain is None else rules.hours_per_retrain,
        side_bps=judged[0].side_bps,
    )
    return retrain_value(evidence, rules.half_life_days, rules.compute_price_per_hour, rules.capital)


def _trials(
    services: Services, job: TrainingJob, newest: JudgedRetrain, new_share: float
) -> tuple[float, float]:
    """Trials of the market, and with those of a further retrain; at least the number of the gate's policy.

    One each under a policy without evidence: trials do not raise the bar of such a policy.

    Args:
        new_share: share of the days of the further record beyond the newest record. The gate counts trials by
            correlation, and the other days are common to both records.
    """
    policy = services.policy(job.model_id, job.symbol)
    if policy.evidence is None:
        return 1.0, 1.0
    markets = services.ledger.trials.markets()
    counted = sum(
        each.trials for each in markets if (each.symbol, each.timeframe) == (job.symbol, job.timeframe)
    )
    further = len(services.ledger.trials.of_job(newest.job_id))
    return max(counted, policy.fewest_trials), max(counted + further * new_share, policy.fewest_trials)


def _hours(judged: Sequence[JudgedRetrain]) -> float:
    """Median duration of the jobs, hours."""
    return statistics.median(each.duration / timedelta(hours=1) for each in judged)


def _serving(services: Services, model_id: str, now: datetime) -> ServingVersion | None:
    """The production version, or else the newest version awaiting a decision: a new version of the recipe
    would supersede the waiting version, whose positions are not traded."""
    production = services.ledger.versions(model_id=model_id, status=ModelStatus.PRODUCTION, limit=1)
    if not production:
        waiting = [
            version
            for status in AWAITING
            for version in services.ledger.versions(model_id=model_id, status=status, limit=1)
        ]
        if not waiting:
            return None
        version = max(waiting, key=lambda each: each.created_at)
        return ServingVersion(version.version, max((now - version.created_at) / DAY, 0.0), exposure=0.0)
    [version] = production
    _, verdict = services.ledger.evaluation(model_id, version.version)
    # a verdict by a release without folds: fully invested is the upper limit
    exposure = statistics.fmean(each.exposure for each in verdict.folds) if verdict.folds else 1.0
    return ServingVersion(version.version, max((now - version.created_at) / DAY, 0.0), exposure)


def _trained(services: Services, model_id: str, newest: JudgedRetrain, verdict: Verdict) -> list[float]:
    """Days since 1970-01-01 UTC of the trainings behind the judged record, ascending: those of folds, then
    those of versions."""
    version = services.ledger.version(model_id, newest.version)
    recipe = services.ledger.versions(
        model_id=model_id, recipe_digest=version.recipe_digest, limit=MAX_VERSIONS
    )
    followed_from = EPOCH if verdict.record is None else verdict.record.walk_forward_until
    folds = [each.start for each in verdict.folds if each.start <= followed_from]
    versions = [each.created_at for each in recipe if each.created_at > followed_from]
    return sorted((each - EPOCH) / DAY for each in (*folds, *versions))


def _judged(
    newest: JudgedRetrain, trained: Sequence[float], serving: ServingVersion | None, now: datetime
) -> Iterator[EarnedSpan]:
    """Days of the judged record; days before the first known training have age 0."""
    today = (now - EPOCH) / DAY
    served_from = math.inf if serving is None else today - serving.age_days
    for number, earned in enumerate(newest.record.daily.tolist()):
        middle = newest.record.first_day + number + 0.5
        place = bisect.bisect(trained, middle)
        # a day without bars earns nothing; -1 and less, ruin, has no logarithm
        growth = 0.0 if math.isnan(earned) else math.log1p(max(earned, -1 + 1e-12))
        last = trained[place - 1] if place else middle
        yield EarnedSpan(
            days_ago=max(today - middle, 0.0),
            days=1.0,
            age_days=middle - last,
            growth=growth,
            serves=abs(last - served_from) < SAME_TIME,
        )


def _followed(
    services: Services, model_id: str, newest: JudgedRetrain, now: datetime
) -> Iterator[EarnedSpan]:
    """Returns by the positions of the newest version on the days after the record."""
    from clm_core.retraining.followed_days import followed_days

    version = services.ledger.version(model_id, newest.version)
    today = (now - EPOCH) / DAY
    trained = (version.created_at - EPOCH) / DAY
    later_days = followed_days(services, version, newest.record.first_day + len(newest.record.daily))
    for day, growth in zip(later_days.days.tolist(), later_days.growth.tolist(), strict=True):
        middle = day + 0.5
        yield EarnedSpan(
            days_ago=max(today - middle, 0.0), days=1.0, age_days=max(middle - trained, 0.0), growth=growth
        )


def _in_production(
    services: Services, model_id: str, serving: ServingVersion | None, now: datetime, but: str | None
) -> Iterator[EarnedSpan]:
    """Returns of the newest production version, also after a halt, that no judged record holds: a record
    follows each version up to the next training.

    Args:
        but: version whose returns are known already, if any.
    """
    standing = services.ledger.standings.newest(model_id).get(model_id)
    if standing is None or standing.version == but:
        return
    version = services.ledger.version(model_id, standing.version)
    later = services.ledger.versions(model_id=model_id, limit=MAX_VERSIONS)
    newer = [each.created_at for each in later if each.created_at > version.created_at]
    unrecorded = min(newer, default=version.created_at)
    for before, after in pairwise(standing.equity):
        middle = standing.since + DAY * (before.days + after.days) / 2.0
        days = after.days - before.days
        if middle >= unrecorded and days > 0.0 and before.equity > 0.0 and after.equity > 0.0:
            yield EarnedSpan(
                days_ago=max((now - middle) / DAY, 0.0),
                days=days,
                age_days=max((middle - version.created_at) / DAY, 0.0),
                growth=math.log(after.equity / before.equity) / days,
                serves=serving is not None and serving.version == version.version,
            )
