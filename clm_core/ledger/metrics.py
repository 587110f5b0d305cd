"""Figures of the whole ledger for monitoring: a query each, without writes.

Counters count records that are never deleted, so that a restart of a process loses nothing.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Any

from sqlalchemy import Connection, Engine, text

DURATIONS = (10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0, 43_200.0)
"""Upper bounds of the buckets of training times, seconds."""
SCORES = tuple(float(score) for score in range(10, 101, 10))
"""Upper bounds of the buckets of promotion scores."""
LATENCIES = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3_600.0)
"""Upper bounds of the buckets of times from the receipt of a message to its job, seconds."""
PROMPT_SECONDS = 7_200
"""Time from an accepted request to a verdict that counts as prompt."""

Labels = tuple[str, ...]


@dataclass(frozen=True)
class Histogram:
    """Distribution of a figure of some records."""

    labels: Labels
    below: tuple[int, ...]
    """Number of records up to each bound."""
    count: int
    total: float
    """Sum of the figure."""


@dataclass(frozen=True)
class ServingModel:
    """Production of a model."""

    model_id: str
    version: str | None
    """Version in production; None while halted, or lost."""
    symbol: str | None
    """Market of the version."""
    trained_at: datetime | None
    promoted_at: datetime
    equity: float | None
    """Equity since the promotion, 1 at the promotion; None before the first watch."""
    drawdown: float | None
    drift: float | None
    """Largest score of the newest day; None where not measured."""


@dataclass(frozen=True)
class LedgerMetrics:
    """Figures of the ledger at a moment. Numbers of records are by labels."""

    ended_jobs: Mapping[Labels, int]
    """Jobs completed or failed, by status, reason of the trigger and kind; without cancelled jobs."""
    unfinished_jobs: Mapping[Labels, int]
    """Jobs pending or in progress, by status and kind."""
    longest_running: Mapping[Labels, float]
    """Seconds since the start of the oldest job in progress, by kind."""
    last_failure: Mapping[Labels, float]
    """Time of the newest failed job, seconds since 1970, by kind."""
    training_seconds: Sequence[Histogram]
    """By kind."""
    changes: Mapping[Labels, int]
    """Committed changes of production, by kind and "true" or "false" for forced."""
    scores: Histogram
    """Promotion scores of all evaluations."""
    verdicts: Mapping[Labels, int]
    """By decision."""
    trials: Mapping[Labels, int]
    """By source."""
    versions: Mapping[Labels, int]
    """By status."""
    awaiting: Mapping[Labels, float]
    """Promotion score of each candidate and shadow, by model, version and status."""
    shadow_days: Mapping[Labels, float]
    """Days of shadow testing at the newest decision, by model and version."""
    shadow_trades: Mapping[Labels, int]
    serving: Sequence[ServingModel]
    weights: Mapping[Labels, float]
    """Weight of each arm of a running allocation, by model and version."""
    alerts: Mapping[Labels, int]
    """Conditions that last, by kind."""
    webhook_seconds: Histogram
    """Time from the receipt of a message to its job."""
    due_retrains: int
    """Accepted requests with an ended job or a verdict, or older than `PROMPT_SECONDS`."""
    prompt_retrains: int
    """Those with a verdict within `PROMPT_SECONDS`."""
    database_bytes: int


class MetricStore:
    """Figures of the whole ledger."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def read(self, now: datetime) -> LedgerMetrics:
        """
        Args:
            now: present time, for ages.
        """
        with self._engine.begin() as connection:
            return _read(connection, now)


KIND = "coalesce({table}.plugin, lower({table}.model_type))"
"""Kind in a query: plug-in, or type of model."""
_JOB_KIND = KIND.format(table="training_jobs")
_ENDED_JOBS = f"""
SELECT status, trigger_reason, {_JOB_KIND}, count(*) FROM training_jobs
WHERE status IN ('completed', 'failed') AND cancelled_by IS NULL GROUP BY 1, 2, 3
"""
_UNFINISHED_JOBS = f"""
SELECT status, {_JOB_KIND}, count(*) FROM training_jobs
WHERE status IN ('pending', 'in_progress') GROUP BY 1, 2
"""
_LONGEST_RUNNING = f"""
SELECT {_JOB_KIND}, max(extract(epoch FROM :now - started_at))::float8 FROM training_jobs
WHERE status = 'in_progress' GROUP BY 1
"""
_LAST_FAILURE = f"""
SELECT {_JOB_KIND}, extract(epoch FROM max(finished_at))::float8 FROM training_jobs
WHERE status = 'failed' AND cancelled_by IS NULL GROUP BY 1
"""
_CHANGES = """
SELECT kind, forced::text, count(*) FROM promotions WHERE state = 'committed' GROUP BY 1, 2
"""
_VERDICTS = "SELECT decision, count(*) FROM evaluations GROUP BY 1"
_TRIALS = """
SELECT source, count(*) FROM trials GROUP BY 1
UNION ALL SELECT 'strategy_search', coalesce(sum(trials), 0)::bigint FROM strategy_trials
"""
_VERSIONS = "SELECT status, count(*) FROM model_versions GROUP BY 1"
_AWAITING = """
SELECT model_id, version, status, score_rank FROM model_versions
WHERE status IN ('candidate', 'shadow') AND score_rank > '-Infinity'
"""
_SHADOWS = """
SELECT DISTINCT ON (d.model_id, d.version) d.model_id, d.version,
       (d.decision #>> '{figures,days}')::float8 AS days, (d.decision #>> '{figures,trades}')::int AS trades
FROM shadow_decisions d
JOIN model_versions v USING (model_id, version)
WHERE v.status IN ('candidate', 'shadow')
ORDER BY d.model_id, d.version, d.id DESC
"""
_SERVING = """
SELECT p.model_id, p.to_version, v.symbol, v.created_at, p.at,
       (s.standing -> 'equity' -> -1 ->> 'equity')::float8 AS equity,
       (s.standing ->> 'drawdown')::float8 AS drawdown,
       (SELECT max(m.score) FROM drift_measurements m
        WHERE m.model_id = p.model_id AND m.version = p.to_version AND m.day = (
            SELECT max(day) FROM drift_measurements
            WHERE model_id = p.model_id AND version = p.to_version)) AS drift
FROM (SELECT DISTINCT ON (model_id) * FROM promotions WHERE state = 'committed'
      ORDER BY model_id, id DESC) AS p
LEFT JOIN model_versions v ON v.model_id = p.model_id AND v.version = p.to_version
LEFT JOIN production_standings s ON s.model_id = p.model_id AND s.version = p.to_version
ORDER BY p.model_id
"""
_WEIGHTS = """
SELECT DISTINCT ON (a.id) a.model_id, w.arms
FROM allocations a JOIN allocation_weights w ON w.allocation_id = a.id
WHERE NOT EXISTS (SELECT FROM allocation_ends e WHERE e.allocation_id = a.id)
ORDER BY a.id, w.id DESC
"""
_ALERTS = """
SELECT kind, count(*) FROM alerts WHERE ended_at IS NULL AND recovers IS NULL GROUP BY 1
"""
_RETRAINS = """
SELECT count(*) AS due, count(*) FILTER (WHERE judged_at <= at + :prompt * interval '1 second') AS prompt
FROM trigger_requests r
JOIN training_jobs j ON j.id = r.job_id
LEFT JOIN (
    SELECT v.training_job_id, min(e.created_at) AS judged_at
    FROM model_versions v JOIN evaluations e USING (model_id, version) GROUP BY 1
) AS judged ON judged.training_job_id = j.id
WHERE r.reply = 'accepted' AND j.cancelled_by IS NULL
    AND (judged_at IS NOT NULL OR j.status IN ('completed', 'failed')
    OR r.at < :now - :prompt * interval '1 second')
"""


def _read(connection: Connection, now: datetime) -> LedgerMetrics:
    retrains = connection.execute(text(_RETRAINS), {"now": now, "prompt": PROMPT_SECONDS}).one()
    shadows = connection.execute(text(_SHADOWS)).all()
    return LedgerMetrics(
        ended_jobs=_numbers(connection, _ENDED_JOBS),
        unfinished_jobs=_numbers(connection, _UNFINISHED_JOBS),
        longest_running=_numbers(connection, _LONGEST_RUNNING, now=now),
        last_failure=_numbers(connection, _LAST_FAILURE),
        training_seconds=_histograms(
            connection,
            "extract(epoch FROM finished_at - started_at)",
            DURATIONS,
            "training_jobs WHERE started_at IS NOT NULL AND finished_at IS NOT NULL",
            _JOB_KIND,
        ),
        changes=_numbers(connection, _CHANGES),
        scores=_histogram(connection, "promotion_score", SCORES, "evaluations"),
        verdicts=_numbers(connection, _VERDICTS),
        trials=_numbers(connection, _TRIALS),
        versions=_numbers(connection, _VERSIONS),
        awaiting=_numbers(connection, _AWAITING),
        shadow_days={(row.model_id, row.version): row.days for row in shadows if row.days is not None},
        shadow_trades={(row.model_id, row.version): row.trades for row in shadows if row.trades is not None},
        serving=[ServingModel(*row) for row in connection.execute(text(_SERVING))],
        weights={
            (row.model_id, arm["version"]): float(arm["weight"])
            for row in connection.execute(text(_WEIGHTS))
            for arm in row.arms
        },
        alerts=_numbers(connection, _ALERTS),
        webhook_seconds=_histogram(
            connection,
            "extract(epoch FROM at - received_at)",
            LATENCIES,
            "trigger_requests WHERE received_at IS NOT NULL AND reply = 'accepted'",
        ),
        due_retrains=retrains.due,
        prompt_retrains=retrains.prompt,
        database_bytes=int(connection.scalar(text("SELECT pg_database_size(current_database())")) or 0),
    )


def _numbers(connection: Connection, query: str, **parameters: Any) -> dict[Labels, Any]:
    """Last column of each row by the columns before."""
    return {tuple(labels): number for *labels, number in connection.execute(text(query), parameters)}


def _histogram(connection: Connection, figure: str, bounds: Sequence[float], rows: str) -> Histogram:
    [all_rows] = _histograms(connection, figure, bounds, rows)
    return all_rows


def _histograms(
    connection: Connection, figure: str, bounds: Sequence[float], rows: str, *labels: str
) -> list[Histogram]:
    """Distribution of a figure by labels; of all rows without labels.

    Args:
        figure: expression of the figure.
        bounds: upper bounds of the buckets, ascending.
        rows: table, with a condition.
        labels: expressions of the labels.
    """
    # the number of bounds that are not below the figure, in one pass over the rows
    descending = ", ".join(f"{-bound}::float8" for bound in reversed(bounds))
    bucket = f"width_bucket(-({figure})::float8, ARRAY[{descending}])"
    columns = ", ".join([*labels, bucket, "count(*)", f"coalesce(sum({figure}), 0)::float8"])
    groups = ", ".join(str(number + 1) for number in range(len(labels) + 1))
    counts = dict[Labels, list[int]]()
    totals = defaultdict[Labels, float](float)
    if not labels:
        counts[()] = [0] * (len(bounds) + 1)
    for *values, reached, count, total in connection.execute(
        text(f"SELECT {columns} FROM {rows} GROUP BY {groups}")
    ):
        of_label = counts.setdefault(tuple(values), [0] * (len(bounds) + 1))
        of_label[len(bounds) - reached] += count
        totals[tuple(values)] += total
    return [
        Histogram(label, tuple(accumulate(each[:-1])), sum(each), totals[label])
        for label, each in counts.items()
    ]
