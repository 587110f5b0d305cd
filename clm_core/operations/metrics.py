"""Metrics of an installation for Prometheus, from ledger and stored bars: nothing is lost with a process.

Names and labels are an interface: dashboards and alert rules refer to them. Labels are bounded: kinds,
statuses and reasons are enumerations, models and versions are those that serve or await a decision.

Counters begin at 0 for every value of their labels: `increase()` of Prometheus does not see the step from no
series to 1, so that the first failed job, rollback or verdict would be missing from alerts and panels.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import product
from typing import TYPE_CHECKING

from clm_core.decisions.gate_policy import PolicyDocument, load_document
from clm_core.domain.bar_age import DataAge
from clm_core.domain.deliveries import ReceiverState
from clm_core.domain.errors import PolicyError
from clm_core.domain.evaluations import Decision
from clm_core.domain.passes import ScheduledPass
from clm_core.domain.promotions import PromotionKind
from clm_core.domain.trials import TrialSource
from clm_core.domain.vocabulary import JobStatus, TriggerReason
from clm_core.ledger.metrics import (
    DURATIONS,
    LATENCIES,
    SCORES,
    Histogram,
    Labels,
    LedgerMetrics,
    ServingModel,
)
from clm_core.operations.data_age import data_age
from clm_core.services import Services

if TYPE_CHECKING:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PROMOTIONS = (PromotionKind.PROMOTION, PromotionKind.ADOPTION)
"""Kinds of changes that `models_promoted_total` counts."""
COMMITTED = tuple(each for each in PromotionKind if each is not PromotionKind.ALIAS_MOVED)
"""Kinds of changes that can be committed."""
ENDED = (JobStatus.COMPLETED, JobStatus.FAILED)
DAY_SECONDS = 86_400.0


def exposition(services: Services) -> bytes:
    """Metrics of the installation in Prometheus' text format."""
    from prometheus_client import CollectorRegistry, generate_latest

    now = services.clock()
    passes, _ = services.ledger.passes.read()
    families = [
        *_of_jobs(services.ledger.metrics.read(now), now, services),
        *_of_markets(data_age(services)),
        *_of_passes(passes),
        *_of_receivers(services.receivers.states(), now),
    ]
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(families))
    return generate_latest(registry)


class _Collected:
    """Collector of families computed before."""

    def __init__(self, families: Sequence["Metric"]) -> None:
        self._families = families

    def collect(self) -> Iterable["Metric"]:
        return self._families


def _of_jobs(figures: LedgerMetrics, now: datetime, services: Services) -> Iterator["Metric"]:
    changes = _from_zero(figures.changes, COMMITTED, ("false", "true"))
    yield _counter(
        "training_jobs_total",
        "Training jobs ended, by outcome, reason of the trigger and kind of model.",
        ("status", "reason", "kind"),
        _from_zero(figures.ended_jobs, ENDED, TriggerReason, _kinds(figures)),
    )
    yield _gauge(
        "clm_unfinished_jobs",
        "Training jobs pending or in progress.",
        ("status", "kind"),
        figures.unfinished_jobs,
    )
    yield _gauge(
        "clm_longest_running_job_seconds",
        "Time since the start of the oldest job in progress.",
        ("kind",),
        figures.longest_running,
    )
    yield _gauge(
        "clm_last_failed_job_timestamp_seconds",
        "End of the newest failed training job.",
        ("kind",),
        figures.last_failure,
    )
    yield _histogram(
        "clm_training_seconds",
        "Time from the start to the end of a training job.",
        ("kind",),
        DURATIONS,
        figures.training_seconds,
    )
    yield _counter(
        "models_promoted_total",
        "Versions put into production by promotion or adoption.",
        ("kind", "forced"),
        {labels: number for labels, number in changes.items() if labels[0] in PROMOTIONS},
    )
    yield _counter(
        "clm_production_changes_total",
        "Committed changes of production: promotions, rollbacks, halts, losses.",
        ("kind", "forced"),
        changes,
    )
    yield _histogram(
        "promotion_score_histogram",
        "Promotion scores, 0 to 100, of all evaluations.",
        (),
        SCORES,
        [figures.scores],
    )
    yield _counter(
        "clm_verdicts_total", "Verdicts of the gate.", ("decision",), _from_zero(figures.verdicts, Decision)
    )
    yield _counter(
        "clm_trials_total",
        "Backtests counted as trials.",
        ("source",),
        _from_zero(figures.trials, TrialSource),
    )
    yield _gauge("clm_versions", "Versions of models.", ("status",), figures.versions)
    yield from _of_challengers(figures)
    yield from _of_production(figures, now, services)
    yield _gauge("clm_open_alerts", "Conditions alerted that last.", ("kind",), figures.alerts)
    yield _histogram(
        "clm_webhook_to_job_seconds",
        "Time from the receipt of a message to the job of its request.",
        (),
        LATENCIES,
        [figures.webhook_seconds],
    )
    yield _counter(
        "clm_due_retrains_total",
        "Accepted requests to retrain that have ended, or are older than two hours.",
        (),
        {(): figures.due_retrains},
    )
    yield _counter(
        "clm_prompt_retrains_total",
        "Accepted requests to retrain with a verdict within two hours.",
        (),
        {(): figures.prompt_retrains},
    )
    yield _gauge("clm_ledger_bytes", "Size of the ledger's database.", (), {(): figures.database_bytes})


def _of_challengers(figures: LedgerMetrics) -> Iterator["Metric"]:
    model_and_version = ("model_id", "version")
    yield _gauge(
        "clm_awaiting_score",
        "Promotion score, 0 to 100, of a version that awaits a decision.",
        (*model_and_version, "status"),
        figures.awaiting,
    )
    yield _gauge(
        "clm_shadow_seconds",
        "Time of shadow testing at the newest decision.",
        model_and_version,
        {labels: days * DAY_SECONDS for labels, days in figures.shadow_days.items()},
    )
    yield _gauge(
        "clm_shadow_trades",
        "Closed trades of shadow testing at the newest decision.",
        model_and_version,
        figures.shadow_trades,
    )
    yield _gauge(
        "clm_allocation_weight_ratio",
        "Share of the capital of a version in a running allocation.",
        model_and_version,
        figures.weights,
    )


def _of_production(figures: LedgerMetrics, now: datetime, services: Services) -> Iterator["Metric"]:
    serving = [each for each in figures.serving if each.version is not None]
    model = ("model_id",)
    yield _gauge(
        "clm_production_up",
        "1 while a version of the model serves, 0 while production is halted or lost.",
        model,
        {(each.model_id,): float(each.version is not None) for each in figures.serving},
    )
    yield _gauge(
        "clm_production_age_seconds",
        "Time since the training of the production version.",
        model,
        {
            (each.model_id,): (now - each.trained_at).total_seconds()
            for each in serving
            if each.trained_at is not None
        },
    )
    yield _gauge(
        "clm_production_max_age_seconds",
        "Longest time from the training of a production version by the rules of the protection.",
        model,
        _max_ages(serving, services),
    )
    yield _gauge(
        "clm_production_served_seconds",
        "Time since the promotion of the production version.",
        model,
        {(each.model_id,): (now - each.promoted_at).total_seconds() for each in serving},
    )
    for name, description, values in (
        (
            "clm_production_equity_ratio",
            "Equity since the promotion, after costs: 1 at the promotion.",
            {(each.model_id,): each.equity for each in serving},
        ),
        (
            "clm_production_drawdown_ratio",
            "Fall of the equity below its peak since the promotion, 0 to 1.",
            {(each.model_id,): each.drawdown for each in serving},
        ),
        (
            "clm_drift_score",
            "Largest drift of a feature of the production version on the newest day measured: 1 is the "
            "furthest stretch of the training.",
            {(each.model_id,): each.drift for each in serving},
        ),
    ):
        known: dict[Labels, float] = {labels: value for labels, value in values.items() if value is not None}
        yield _gauge(name, description, model, known)


def _max_ages(serving: Sequence[ServingModel], services: Services) -> dict[Labels, float]:
    policies = _policies(services)
    rules = (
        (each.model_id, policies.protection(each.model_id, each.symbol))
        for each in serving
        if each.symbol is not None
    )
    return {
        (model_id,): rule.max_serving_days * DAY_SECONDS
        for model_id, rule in rules
        if rule.max_serving_days is not None
    }


def _policies(services: Services) -> PolicyDocument:
    """Policy document as the next flow run reads it; the one of the start while the file cannot be used."""
    source = services.settings.policy
    if source.file is None:
        return services.policies
    try:
        return load_document(source.file, source.preset)
    except PolicyError:
        return services.policies


def _of_markets(data: DataAge) -> Iterator["Metric"]:
    """Age of the bars of the markets in use; without samples while the storage does not answer."""
    ages = {(each.bars.symbol, each.bars.timeframe): each.bars for each in data.markets}
    market = ("symbol", "timeframe")
    yield _gauge(
        "clm_newest_bar_timestamp_seconds",
        "Close of the newest bar of a market in use.",
        market,
        {labels: age.newest_close.timestamp() for labels, age in ages.items()},
    )
    yield _gauge(
        "clm_late_bars",
        "Bars that the calendar of a market requires after the newest bar.",
        market,
        {labels: float(age.late_bars) for labels, age in ages.items()},
    )


def _of_passes(passes: Sequence[ScheduledPass]) -> Iterator["Metric"]:
    yield _gauge(
        "clm_pass_last_success_timestamp_seconds",
        "End of the last run of a scheduled pass without problems.",
        ("pass",),
        {(each.name,): each.succeeded_at.timestamp() for each in passes if each.succeeded_at is not None},
    )
    yield _gauge(
        "clm_pass_expected_since_timestamp_seconds",
        "Moment from which the runs of a scheduled pass are due.",
        ("pass",),
        {(each.name,): each.expected_since.timestamp() for each in passes},
    )
    yield _gauge(
        "clm_pass_interval_seconds",
        "Interval of a scheduled pass.",
        ("pass",),
        {(each.name,): each.every.total_seconds() for each in passes},
    )
    yield _gauge(
        "clm_pass_paused",
        "1 while a person has paused a scheduled pass.",
        ("pass",),
        {(each.name,): float(each.paused) for each in passes},
    )


def _of_receivers(states: Sequence[ReceiverState], now: datetime) -> Iterator["Metric"]:
    labels = ("receiver", "stream")
    yield _gauge(
        "clm_waiting_deliveries",
        "Events or alerts that a receiver has not accepted yet.",
        labels,
        {(each.name, each.stream.value): each.waiting for each in states},
    )
    yield _gauge(
        "clm_dead_letters",
        "Events or alerts given up for a receiver, awaiting a decision.",
        labels,
        {(each.name, each.stream.value): each.given_up for each in states},
    )
    yield _gauge(
        "clm_delivery_failing_seconds",
        "Time since a receiver began to refuse the next event or alert; 0 while it accepts.",
        labels,
        {(each.name, each.stream.value): _seconds_since(each.failing_since, now) for each in states},
    )


def _seconds_since(moment: datetime | None, now: datetime) -> float:
    return 0.0 if moment is None else max((now - moment.astimezone(UTC)).total_seconds(), 0.0)


def _kinds(figures: LedgerMetrics) -> set[str]:
    """Kinds of model with a job, ended or not."""
    return {kind for *_, kind in [*figures.ended_jobs, *figures.unfinished_jobs]}


def _from_zero(counted: Mapping[Labels, float], *values: Iterable[str]) -> dict[Labels, float]:
    """Numbers by labels, 0 where nothing was counted.

    Args:
        values: possible values of each label.
    """
    return {tuple(map(str, labels)): 0.0 for labels in product(*values)} | dict(counted)


def _gauge(name: str, description: str, labels: Labels, values: Mapping[Labels, float]) -> "Metric":
    from prometheus_client.core import GaugeMetricFamily

    return _filled(GaugeMetricFamily(name, description, labels=labels), values)


def _counter(name: str, description: str, labels: Labels, values: Mapping[Labels, float]) -> "Metric":
    from prometheus_client.core import CounterMetricFamily

    return _filled(CounterMetricFamily(name, description, labels=labels), values)


def _filled(family: "GaugeMetricFamily | CounterMetricFamily", values: Mapping[Labels, float]) -> "Metric":
    for key, value in sorted(values.items()):
        family.add_metric(key, float(value))
    return family


def _histogram(
    name: str, description: str, labels: Labels, bounds: Sequence[float], histograms: Sequence[Histogram]
) -> "Metric":
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily(name, description, labels=labels)
    for each in sorted(histograms, key=lambda each: each.labels):
        family.add_metric(each.labels, _buckets(bounds, each), each.total)
    return family


def _buckets(bounds: Sequence[float], histogram: Histogram) -> list[tuple[str, float]]:
    named = [(str(bound), float(number)) for bound, number in zip(bounds, histogram.below, strict=True)]
    return [*named, ("+Inf", float(histogram.count))]
