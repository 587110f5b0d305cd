import math
import threading
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import records
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, StatementError
from trials import count_trial_of

from clm_core.decisions.gate_policy import GatePolicy, PromotionCriteria
from clm_core.domain.errors import AlreadyExists, IllegalTransition, LeaseLost, NotFound
from clm_core.domain.evaluations import Check, Decision, EvaluationResult, Verdict
from clm_core.domain.jobs import Lease, TrainingJob
from clm_core.domain.versions import ModelVersion, version_label
from clm_core.domain.vocabulary import JobStatus, ModelStatus, ModelType
from clm_core.ledger.counts import Counts
from clm_core.ledger.store import Ledger

NOW = datetime(2025, 12, 4, 14, 30, 22, 123456, tzinfo=UTC)
POLICY = GatePolicy(name="strict")
METRICS = (
    "sharpe_ratio",
    "sortino_ratio",
    "calmar_ratio",
    "win_rate",
    "profit_factor",
    "max_drawdown",
    "total_pnl",
)


def a_job(**changes: Any) -> TrainingJob:
    values = {
        "training_params": {"max_depth": 5, "eta": 0.1, "rounds": None},
        "seed": 2**40,
        "created_at": NOW,
    }
    return records.a_job(**values | changes)


def a_version(job: TrainingJob, created_at: datetime = NOW, **changes: Any) -> ModelVersion:
    values = {"train_metrics": {"logloss": 0.693}, "created_at": created_at}
    return records.a_version(job, version_label(created_at), **values | changes)


def an_evaluation(version: ModelVersion, **changes: Any) -> EvaluationResult:
    values = dict.fromkeys(METRICS, 1.5) | {
        "period_start": NOW - timedelta(days=300),
        "period_end": NOW,
        "promotion_score": 47.55,
        "failure_reason": "Sharpe 0.50 below 1.00",
        "created_at": NOW,
    }
    return records.an_evaluation(version.model_id, version.version, **values | changes)


def a_verdict(value: float = 0.5, decision: Decision = Decision.FAIL) -> Verdict:
    check = Check(
        name="sharpe_ratio", value=value, limit=1.0, comparison=">=", passed=False, margin=value - 1.0
    )
    return Verdict(decision=decision, score=47.55, checks=(check,), reasons=("Sharpe 0.50 below 1.00",))


def start(ledger: Ledger, job: TrainingJob, now: datetime = NOW) -> Lease:
    return ledger.start_job(job.id, "trainer-3:4711", now, timedelta(seconds=60))


def recorded_version(ledger: Ledger, **changes: Any) -> ModelVersion:
    version = ledger.add_version(a_version(ledger.create_job(a_job()), **changes))
    count_trial_of(ledger, version)
    return version


def test_a_job_is_read_back_as_it_was_written(ledger: Ledger) -> None:
    job = ledger.create_job(a_job())
    assert ledger.job(job.id) == job


def test_a_job_runs_from_pending_to_completed(ledger: Ledger) -> None:
    job = ledger.create_job(a_job())
    lease = start(ledger, job, NOW + timedelta(seconds=1))
    started = ledger.job(job.id)
    assert (started.status, started.started_at) == (JobStatus.IN_PROGRESS, NOW + timedelta(seconds=1))
    done = ledger.complete_job(lease, NOW + timedelta(seconds=9))
    assert done == ledger.job(job.id)
    assert (done.status, done.finished_at) == (JobStatus.COMPLETED, NOW + timedelta(seconds=9))


@pytest.mark.parametrize(
    ("cause", "kept"),
    [
        pytest.param("NotEnoughBars: 12 of 500", "NotEnoughBars: 12 of 500", id="plain"),
        pytest.param("bad answer \0\udcff", "bad answer \\0\\udcff", id="broken-bytes"),
    ],
)
def test_a_failed_job_keeps_its_cause(cause: str, kept: str, ledger: Ledger) -> None:
    job = ledger.create_job(a_job())
    assert ledger.fail_job(start(ledger, job), cause, NOW).failure_cause == kept
    assert ledger.job(job.id).status is JobStatus.FAILED


def test_a_failed_job_takes_along_its_versions_judged_or_not(ledger: Ledger) -> None:
    job = ledger.create_job(a_job())
    lease = start(ledger, job)
    judged, unjudged = (
        ledger.add_version(a_version(job, NOW + timedelta(seconds=s)), lease) for s in range(2)
    )
    ledger.set_version_status(judged.model_id, judged.version, ModelStatus.CANDIDATE, NOW, lease)
    ledger.fail_job(lease, "cause", NOW)
    statuses = {version.version: version.status for version in ledger.versions()}
    assert statuses == {judged.version: ModelStatus.FAILED, unjudged.version: ModelStatus.FAILED}


def end(ledger: Ledger, lease: Lease, status: JobStatus) -> TrainingJob:
    if status is JobStatus.COMPLETED:
        return ledger.complete_job(lease, NOW)
    return ledger.fail_job(lease, "cause", NOW)


ENDS = [JobStatus.COMPLETED, JobStatus.FAILED]


@pytest.mark.parametrize("status", ENDS)
def test_a_job_that_has_ended_makes_no_other_move_and_stays_as_it_was(
    status: JobStatus, ledger: Ledger
) -> None:
    job = ledger.create_job(a_job())
    lease = start(ledger, job)
    ended = end(ledger, lease, status)
    with pytest.raises(IllegalTransition, match=f"Job {job.id} is {status}: only a pending job"):
        start(ledger, job)
    for again in ENDS:
        with pytest.raises(LeaseLost, match=f"no longer runs job {job.id}"):
            end(ledger, lease, again)
    assert ledger.job(job.id) == ended


def test_a_job_in_progress_is_not_started_again(ledger: Ledger) -> None:
    job = ledger.create_job(a_job())
    start(ledger, job)
    with pytest.raises(IllegalTransition, match=f"Job {job.id} is in_progress: only a pending job"):
        start(ledger, job)


def test_a_single_one_of_ten_concurrent_starters_of_a_job_succeeds(ledger: Ledger) -> None:
    job = ledger.create_job(a_job())
    outcomes = list[str]()
    together = threading.Barrier(10)

    def try_it() -> None:
        together.wait()
        try:
            start(ledger, job)
            outcomes.append("started")
        except IllegalTransition:
            outcomes.append("refused")

    threads = [threading.Thread(target=try_it) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [*["refused"] * 9, "started"]


def test_jobs_come_newest_first_and_can_be_narrowed(ledger: Ledger) -> None:
    old, new = (ledger.create_job(a_job(created_at=NOW + timedelta(hours=h))) for h in (0, 2))
    other = ledger.create_job(a_job(model_type=ModelType.LIGHTGBM, created_at=NOW + timedelta(hours=1)))
    start(ledger, old)
    running = ledger.job(old.id)
    assert ledger.jobs() == [new, other, running]
    assert ledger.jobs(limit=1) == [new]
    assert ledger.jobs(model_id="xgboost_btcusd_1h") == [new, running]
    assert ledger.jobs(status=JobStatus.IN_PROGRESS) == [running]


def test_an_unknown_record_is_named_with_the_place_to_look(ledger: Ledger) -> None:
    unknown = uuid.uuid4()
    version = a_version(a_job())
    for call, message in (
        (lambda: ledger.job(unknown), f"no job {unknown}. `clm jobs`"),
        (lambda: start(ledger, a_job(id=unknown)), f"no job {unknown}"),
        (lambda: ledger.version("xgboost_btcusd_1h", "v1"), "no version v1. `clm models`"),
        (lambda: ledger.set_version_status("m", "v1", ModelStatus.SHADOW, NOW), "m has no version v1"),
        (lambda: ledger.evaluation("m", "v1"), "m v1 has not been evaluated"),
        (lambda: ledger.add_version(version), f"training_job_id.*{version.training_job_id}"),
        (
            lambda: ledger.add_evaluation(an_evaluation(version), a_verdict(), POLICY, "b"),
            "version",
        ),
    ):
        with pytest.raises(NotFound, match=message):
            call()


def test_nothing_is_recorded_twice(ledger: Ledger) -> None:
    job = ledger.create_job(a_job())
    version = ledger.add_version(a_version(job))
    count_trial_of(ledger, version)
    result = ledger.add_evaluation(an_evaluation(version), a_verdict(), POLICY, "b")
    with pytest.raises(AlreadyExists, match=f"Job {job.id}"):
        ledger.create_job(job)
    with pytest.raises(AlreadyExists, match=f"Version {version.version} of {version.model_id}"):
        ledger.add_version(version)
    with pytest.raises(AlreadyExists, match=f"Evaluation {result.id}"):
        ledger.add_evaluation(result, a_verdict(), POLICY, "b")


def test_a_job_that_is_not_pending_cannot_be_created(ledger: Ledger) -> None:
    with pytest.raises(IllegalTransition, match="has to be pending"):
        ledger.create_job(a_job(status=JobStatus.COMPLETED))


def test_versions_come_newest_first_and_can_be_narrowed(ledger: Ledger) -> None:
    first = recorded_version(ledger)
    second = recorded_version(ledger, created_at=NOW + timedelta(hours=1), parent_version=first.version)
    assert ledger.version(second.model_id, second.version) == second
    assert ledger.versions() == [second, first]
    assert ledger.versions(limit=1) == [second]
    assert ledger.versions(training_job_id=first.training_job_id) == [first]
    assert ledger.versions(model_id="lightgbm_btcusd_1h") == []
    candidate = ledger.set_version_status(first.model_id, first.version, ModelStatus.CANDIDATE, NOW)
    assert ledger.versions(status=ModelStatus.CANDIDATE) == [candidate]


def test_a_version_that_has_failed_stays_failed(ledger: Ledger) -> None:
    version = recorded_version(ledger)
    failed = ledger.set_version_status(version.model_id, version.version, ModelStatus.FAILED, NOW)
    assert ledger.set_version_status(version.model_id, version.version, ModelStatus.FAILED, NOW) == failed
    with pytest.raises(IllegalTransition, match="is failed and can't become candidate"):
        ledger.set_version_status(version.model_id, version.version, ModelStatus.CANDIDATE, NOW)
    assert ledger.version(version.model_id, version.version) == failed


ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True)


def same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(ANY_FLOAT, min_size=len(METRICS), max_size=len(METRICS)), measured=ANY_FLOAT)
def test_every_metric_is_read_back_nan_and_infinity_included(
    values: list[float], measured: float, ledger: Ledger
) -> None:
    job = ledger.create_job(a_job(symbol=uuid.uuid4().hex))
    version = ledger.add_version(a_version(job, train_metrics={"loss": measured}))
    count_trial_of(ledger, version)
    result = an_evaluation(version, **dict(zip(METRICS, values, strict=True)))
    ledger.add_evaluation(result, a_verdict(measured), POLICY, version.bundle_digest)
    read, verdict = ledger.evaluation(version.model_id, version.version)
    assert all(same(getattr(read, name), getattr(result, name)) for name in METRICS)
    assert read.model_dump(exclude={*METRICS}) == result.model_dump(exclude={*METRICS})
    assert same(verdict.checks[0].value, measured)
    assert same(ledger.version(version.model_id, version.version).train_metrics["loss"], measured)


def test_the_newest_of_several_evaluations_counts(ledger: Ledger) -> None:
    version = recorded_version(ledger)
    newest = an_evaluation(version, created_at=NOW + timedelta(hours=1))
    for result in (newest, an_evaluation(version)):
        ledger.add_evaluation(result, a_verdict(), POLICY, version.bundle_digest)
    assert ledger.evaluation(version.model_id, version.version) == (newest, a_verdict())


def test_an_evaluation_keeps_the_policy_the_bundle_and_the_trial_it_was_made_with(
    ledger: Ledger, engine: Engine
) -> None:
    version = recorded_version(ledger)
    policy = GatePolicy(name="own", criteria=PromotionCriteria(min_trades=7))
    ledger.add_evaluation(an_evaluation(version), a_verdict(), policy, "c" * 64)
    with engine.begin() as connection:
        row = connection.execute(text("SELECT policy, bundle_digest, trial_id FROM evaluations")).one()
    [trial] = ledger.trials.of_job(version.training_job_id)
    assert (GatePolicy.model_validate(row.policy), row.bundle_digest) == (policy, "c" * 64)
    assert row.trial_id == trial.id


def test_a_version_without_a_counted_trial_cannot_be_judged(ledger: Ledger) -> None:
    version = ledger.add_version(a_version(ledger.create_job(a_job())))
    with pytest.raises(NotFound, match="no trial of the version's job was counted"):
        ledger.add_evaluation(an_evaluation(version), a_verdict(), POLICY, "b")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"passed": True, "failure_reason": None}, id="passed-against-its-verdict"),
        pytest.param({"trades": -1}, id="negative-trades"),
    ],
)
def test_the_database_refuses_an_evaluation_that_contradicts_itself(
    changes: dict[str, Any], ledger: Ledger
) -> None:
    result = an_evaluation(recorded_version(ledger), **changes)
    with pytest.raises(DBAPIError, match="violates check constraint"):
        ledger.add_evaluation(result, a_verdict(), POLICY, "b")


@pytest.mark.parametrize(
    ("table", "change"),
    [
        pytest.param("training_jobs", "status = 'sleeping'", id="unknown-status"),
        pytest.param("training_jobs", "model_type = 'abacus'", id="unknown-model-type"),
        pytest.param("training_jobs", "status = 'in_progress'", id="in-progress-without-a-start"),
        pytest.param("training_jobs", "failure_cause = 'x'", id="cause-without-failure"),
        pytest.param("model_versions", "status = 'golden'", id="unknown-version-status"),
        pytest.param("model_versions", "parent_version = 'v1'", id="unknown-parent"),
    ],
)
def test_the_database_itself_refuses(table: str, change: str, ledger: Ledger, engine: Engine) -> None:
    recorded_version(ledger)
    with pytest.raises(DBAPIError, match="violates"), engine.begin() as connection:
        connection.execute(text(f"UPDATE {table} SET {change}"))


def test_times_keep_their_instant_and_come_back_in_utc(ledger: Ledger, engine: Engine) -> None:
    local = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))
    job = ledger.create_job(a_job(created_at=local))
    assert ledger.job(job.id).created_at == NOW
    assert ledger.job(job.id).created_at.utcoffset() == timedelta(0)


def test_a_time_without_a_zone_is_refused(ledger: Ledger) -> None:
    with pytest.raises(StatementError, match="has no time zone"):
        ledger.create_job(a_job(created_at=NOW.replace(tzinfo=None)))


def test_a_parameter_that_is_not_a_number_is_refused(ledger: Ledger) -> None:
    with pytest.raises(DBAPIError, match="invalid input syntax for type json"):
        ledger.create_job(a_job(training_params={"eta": math.nan}))


def test_counts_are_given_by_type_and_status(ledger: Ledger) -> None:
    none = dict.fromkeys(("promotions", "rollbacks", "forced", "confirmations"), 0)
    unpromoted: dict[str, Any] = {**none, "promotion_rate": None}
    assert ledger.counts() == Counts(models=0, types={}, versions={}, jobs={}, **unpromoted)
    version = recorded_version(ledger)
    recorded_version(ledger, created_at=NOW + timedelta(seconds=1))
    ledger.set_version_status(version.model_id, version.version, ModelStatus.CANDIDATE, NOW)
    assert ledger.counts() == Counts(
        models=1,
        types={ModelType.XGBOOST: 1},
        versions={ModelStatus.TRAINING: 1, ModelStatus.CANDIDATE: 1},
        jobs={JobStatus.PENDING: 2},
        **unpromoted,
    )
