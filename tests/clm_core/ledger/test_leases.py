"""Permission to write about a job in progress, on a real PostgreSQL server."""

import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from jobs import take_over_suspects
from patience import PATIENT_SECONDS
from records import a_job, a_version, an_evaluation
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from trials import count_trial_of

from clm_core.decisions.gate_policy import GatePolicy
from clm_core.domain.errors import IllegalTransition, LeaseLost
from clm_core.domain.evaluations import Decision, Verdict
from clm_core.domain.jobs import Lease, TrainingJob
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import JobStatus, ModelStatus
from clm_core.ledger import leases
from clm_core.ledger.leases import heartbeat
from clm_core.ledger.migrations import alembic_config, upgrade
from clm_core.ledger.store import Ledger

NOW = datetime(2025, 12, 4, 14, 30, 22, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def job(ledger: Ledger) -> TrainingJob:
    return ledger.create_job(a_job())


@pytest.fixture
def lease(ledger: Ledger, job: TrainingJob) -> Lease:
    return ledger.start_job(job.id, "trainer-3:4711", NOW, MINUTE)


def evaluate(ledger: Ledger, version: ModelVersion, lease: Lease | None) -> None:
    result = an_evaluation(version.model_id, version.version)
    verdict = Verdict(decision=Decision.FAIL, score=40.0, checks=(), reasons=("too little",))
    count_trial_of(ledger, version, lease)
    ledger.add_evaluation(result, verdict, GatePolicy(name="strict"), version.bundle_digest, lease)


WRITES: list[Callable[[Ledger, ModelVersion, Lease | None], Any]] = [
    lambda ledger, version, lease: ledger.add_version(
        version.model_copy(update={"version": "v20251204_143023"}), lease
    ),
    evaluate,
    lambda ledger, version, lease: ledger.set_version_status(
        version.model_id, version.version, ModelStatus.CANDIDATE, NOW, lease
    ),
]
each_write = pytest.mark.parametrize("write", WRITES, ids=["add version", "add evaluation", "set status"])


@each_write
def test_only_the_holder_of_the_lease_writes_about_a_job(
    write: Callable[..., Any], ledger: Ledger, job: TrainingJob, lease: Lease
) -> None:
    version = ledger.add_version(a_version(job), lease)
    with pytest.raises(IllegalTransition, match=r"is being run by trainer-3:4711"):
        write(ledger, version, None)
    write(ledger, version, lease)


@each_write
def test_a_zombie_is_refused_once_its_lease_was_taken_over(
    write: Callable[..., Any], ledger: Ledger, job: TrainingJob, lease: Lease
) -> None:
    version = ledger.add_version(a_version(job), lease)
    take_over_suspects(ledger, "sweeper", NOW + MINUTE)
    with pytest.raises(LeaseLost, match=f"trainer-3:4711 no longer runs job {job.id}"):
        write(ledger, version, lease)
    assert ledger.versions() == [version]


@each_write
def test_after_the_end_of_a_job_its_zombie_is_refused_and_other_writers_are_not(
    write: Callable[..., Any], ledger: Ledger, job: TrainingJob, lease: Lease
) -> None:
    version = ledger.add_version(a_version(job), lease)
    ledger.complete_job(lease, NOW)
    with pytest.raises(LeaseLost):
        write(ledger, version, lease)
    write(ledger, version, None)


def test_a_zombie_neither_ends_its_job_nor_renews_its_lease(
    ledger: Ledger, job: TrainingJob, lease: Lease
) -> None:
    [taken] = take_over_suspects(ledger, "sweeper", NOW + MINUTE)
    for write in (
        lambda: ledger.complete_job(lease, NOW),
        lambda: ledger.fail_job(lease, "cause", NOW),
        lambda: ledger.renew_lease(lease, NOW, MINUTE),
    ):
        with pytest.raises(LeaseLost):
            write()
    assert ledger.fail_job(taken, "lost its lease", NOW + MINUTE).failure_cause == "lost its lease"


def test_the_lease_of_a_job_is_refused_for_another_job(
    ledger: Ledger, job: TrainingJob, lease: Lease
) -> None:
    other = ledger.create_job(job.model_copy(update={"id": uuid.uuid4()}))
    ledger.start_job(other.id, "trainer-4:1", NOW, MINUTE)
    with pytest.raises(LeaseLost):
        ledger.add_version(a_version(other), lease)


def test_a_lease_taken_over_has_a_greater_token_and_runs_out_in_turn(
    ledger: Ledger, job: TrainingJob, lease: Lease
) -> None:
    assert take_over_suspects(ledger, "sweeper", NOW + MINUTE - timedelta(microseconds=1)) == []
    [first] = take_over_suspects(ledger, "sweeper", NOW + MINUTE)
    assert (first.job_id, first.holder, first.expires_at) == (job.id, "sweeper", NOW + 2 * MINUTE)
    [second] = take_over_suspects(ledger, "another", NOW + 2 * MINUTE)
    assert lease.token < first.token < second.token


def test_a_renewed_lease_is_not_taken_over(ledger: Ledger, lease: Lease) -> None:
    ledger.renew_lease(lease, NOW + 2 * MINUTE, MINUTE)
    assert take_over_suspects(ledger, "sweeper", NOW + 3 * MINUTE - timedelta(seconds=1)) == []


@pytest.mark.parametrize("ahead", [2 * MINUTE, timedelta(days=1)])
def test_a_lease_that_expires_later_than_a_renewal_could_set_is_suspect(
    ahead: timedelta, ledger: Ledger, lease: Lease
) -> None:
    ledger.renew_lease(lease, NOW + ahead, MINUTE)
    assert ledger.suspect_leases(NOW + ahead) == []
    [suspect] = ledger.suspect_leases(NOW - timedelta(microseconds=1))
    assert (suspect.token, suspect.expires_at) == (lease.token, NOW + ahead + MINUTE)


def test_a_lease_renewed_since_it_was_seen_expired_is_not_taken_over(ledger: Ledger, lease: Lease) -> None:
    seen = ledger.suspect_leases(NOW + MINUTE)
    ledger.renew_lease(lease, NOW + MINUTE, MINUTE)
    assert ledger.take_over(seen, "sweeper", NOW + MINUTE, MINUTE) == []
    ledger.renew_lease(lease, NOW + MINUTE, MINUTE)


@pytest.mark.parametrize(
    ("seconds", "every", "grace"), [(1, 1 / 6, 0.5), (60, 10, 30), (3600, 10, 30)], ids=str
)
def test_a_reaper_waits_for_three_heartbeats_of_the_slowest_holder(
    seconds: float, every: float, grace: float, lease: Lease
) -> None:
    assert leases.interval(timedelta(seconds=seconds)).total_seconds() == pytest.approx(every, abs=1e-6)
    held = lease.model_copy(update={"seconds": seconds})
    quicker = lease.model_copy(update={"seconds": 1.0})
    assert leases.grace([quicker, held]).total_seconds() == pytest.approx(grace, abs=1e-5)
    assert leases.grace([]) == timedelta(0)


def test_each_expired_lease_goes_to_one_of_eight_concurrent_reapers(ledger: Ledger, job: TrainingJob) -> None:
    jobs = [ledger.create_job(job.model_copy(update={"id": uuid.uuid4()})) for _ in range(10)]
    for each in jobs:
        ledger.start_job(each.id, "dead", NOW, MINUTE)
    together = threading.Barrier(8)
    taken = list[Lease]()

    def sweep() -> None:
        together.wait()
        taken.extend(take_over_suspects(ledger, "sweeper", NOW + MINUTE))

    threads = [threading.Thread(target=sweep) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(lease.job_id for lease in taken) == sorted(each.id for each in jobs)
    assert len({lease.token for lease in taken}) == len(jobs)


def test_a_lease_does_not_change_hands_in_the_middle_of_a_write(
    ledger: Ledger, engine: Engine, job: TrainingJob, lease: Lease
) -> None:
    finished = threading.Event()

    def sweep() -> None:
        take_over_suspects(ledger, "sweeper", NOW + MINUTE)
        finished.set()

    sweeper = threading.Thread(target=sweep)
    with engine.begin() as connection:
        leases.require(connection, job.id, lease)
        sweeper.start()
        assert not finished.wait(0.3)
    sweeper.join()
    assert finished.is_set()


def test_a_heartbeat_beats_until_its_block_ends_or_the_lease_is_lost() -> None:
    beats: list[int] = []
    enough = threading.Event()

    def renew() -> None:
        beats.append(1)
        if len(beats) == 3:
            enough.set()
            raise LeaseLost("taken over")

    with heartbeat(renew, timedelta(milliseconds=1)):
        assert enough.wait(PATIENT_SECONDS)
    assert len(beats) == 3


def test_a_heartbeat_survives_failures_of_the_database() -> None:
    beats: list[int] = []
    enough = threading.Event()

    def renew() -> None:
        beats.append(1)
        if len(beats) == 4:
            enough.set()
            raise LeaseLost("taken over")
        failures = (OperationalError, InterfaceError, InternalError)
        raise failures[len(beats) - 1]("renewal", None, ConnectionError("the server is away"))

    with heartbeat(renew, timedelta(milliseconds=1)):
        assert enough.wait(PATIENT_SECONDS)


def test_a_lease_of_the_release_before_has_the_length_that_nobody_set(
    empty_database: Callable[[], str], job: TrainingJob
) -> None:
    from alembic import command

    url = empty_database()
    upgrade(url)
    old = Ledger(create_engine(url))
    old.create_job(job)
    old.start_job(job.id, "trainer", NOW, timedelta(seconds=7))
    with create_engine(url).begin() as connection:
        command.downgrade(alembic_config(connection), "0016")
    upgrade(url)
    [seen] = old.suspect_leases(NOW + MINUTE)
    assert (seen.holder, seen.expires_at, seen.seconds) == ("trainer", NOW + timedelta(seconds=7), 60)


def test_a_job_that_an_earlier_release_left_in_progress_gets_a_lease_that_has_run_out(
    empty_database: Callable[[], str], job: TrainingJob
) -> None:
    from alembic import command

    url = empty_database()
    upgrade(url)
    old = Ledger(create_engine(url))
    old.create_job(job)
    old.start_job(job.id, "trainer", NOW, MINUTE)
    with create_engine(url).begin() as connection:
        command.downgrade(alembic_config(connection), "0003")
    upgrade(url)
    [taken] = take_over_suspects(old, "sweeper", NOW)
    assert old.fail_job(taken, "lost its lease", NOW).status is JobStatus.FAILED
