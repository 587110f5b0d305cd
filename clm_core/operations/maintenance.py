"""What keeps the registry right while nobody looks: one pass over everything that may have gone wrong.

A part that fails keeps none of the others from its work, and a model none of the other models: the report
says which failed, and an alert says so once until it works again.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial

from pydantic import BaseModel, ConfigDict

from clm_core.domain.actors import SYSTEM
from clm_core.domain.alerts import Alert, AlertKind, RaisedAlert
from clm_core.domain.errors import AuditBroken, CLMError, ServerUnavailable
from clm_core.domain.promotions import Promotion
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus
from clm_core.ledger.audit_log import anchor_folder
from clm_core.operations.attempts import attempt, report_problems
from clm_core.operations.delivery import Delivery, deliver
from clm_core.platform.prefect_runs import RunState, knows_prefect, prefect_runs
from clm_core.registry.due_verifications import DueVerifications
from clm_core.retraining.jobs import LEASE_LOST_CAUSE, reap_dead_jobs
from clm_core.services import Services
from clm_core.settings import OnExpiry
from clm_core.triggers import prefect_events
from clm_core.triggers.dispatch import answer_messages, start_pending_jobs


class MaintenancePart(StrEnum):
    SWEEP = "sweep"
    """Jobs whose process died are ended, and their runs."""
    DRAIN = "drain"
    """Messages that wait are answered, jobs that wait are started."""
    RECONCILE = "reconcile"
    """What a crash left half done is ended, an alias moved by hand put back."""
    GUARD = "guard"
    """Forced promotions whose time is over are asked about, or rolled back."""
    VERIFY = "verify"
    """What MLflow would serve is compared with what was registered; every file once an hour."""
    AUTOMATIONS = "automations"
    """Runs and actions of automations that failed are alerted: Prefect itself tells nobody."""
    AUDIT = "audit"
    """The newest entry is written down outside the database."""
    DELIVER = "deliver"
    """Events and alerts are sent."""


class MaintenancePartReport(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    part: MaintenancePart
    done: tuple[str, ...]
    """What was changed or found, a sentence each; empty: there was nothing to do."""
    problems: tuple[str, ...]
    """What could not be done, and for which model, job or receiver."""


class MaintenanceReport(BaseModel):
    """What one pass did, and what it could not do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: datetime
    parts: tuple[MaintenancePartReport, ...]
    deliveries: tuple[Delivery, ...]
    conditions: tuple[RaisedAlert, ...]
    """What is not as it should be and was alerted, oldest first."""

    @property
    def failed(self) -> tuple[MaintenancePart, ...]:
        return tuple(report.part for report in self.parts if report.problems)


LOOKED_BACK = timedelta(days=1)
"""A run whose job failed longer ago is left as it is."""
NOT_WELL_AGAIN = timedelta(hours=3)
"""A deployment is well again when none of its runs has failed for so long."""
ITSELF = {"maintenance", "upkeep"}
"""Deployment whose runs are maintenance passes, by its name and the one in the release before."""
LOOK = "Its page in the Prefect UI has the log."
REMEMBERED = timedelta(hours=1)
"""An automation is well again when none of its actions has failed for so long."""
MEND = "Mend its action on the page Automations of the Prefect UI: what it should have started was not."
Step = tuple[str, Callable[[], Iterable[str]]]
"""Whom or what it is about, and what to do: says what was done."""


def run(services: Services, in_full: bool = True) -> MaintenanceReport:
    """Every part in turn, and at last tell everybody what came of it.

    Args:
        in_full: read every file of all that serves, not only of what is due for it.
    """
    wanted = PARTS | ({} if in_full else {MaintenancePart.VERIFY: _verify_in_rounds})
    parts = [_run_part(services, part, steps) for part, steps in wanted.items()]
    deliveries, problem = attempt("events and alerts", partial(deliver, services))
    told = deliveries or []
    failing = [f"{each.name}: {each.last_error}" for each in told if each.last_error]
    parts.append(
        MaintenancePartReport(
            part=MaintenancePart.DELIVER,
            done=tuple(f"{each.name} was told {each.sent}" for each in told if each.sent),
            problems=(*problem, *failing),
        )
    )
    return MaintenanceReport(
        at=services.clock(),
        parts=tuple(parts),
        deliveries=tuple(told),
        conditions=tuple(services.alerts.lasting()),
    )


def _run_part(
    services: Services, part: MaintenancePart, steps: Callable[[Services], Iterable[Step]]
) -> MaintenancePartReport:
    found, problems = attempt(part, lambda: list(steps(services)))
    done = list[str]()
    for subject, step in found or []:
        sentences, problem = attempt(subject, step)
        done += sentences or []
        problems += problem
    report_problems(services, part, "clm upkeep", problems)
    return MaintenancePartReport(part=part, done=tuple(done), problems=tuple(problems))


def _sweep(services: Services) -> Iterable[Step]:
    yield "jobs", lambda: [f"job {job.id} {job.failure_cause}" for job in reap_dead_jobs(services)]
    yield "runs", partial(_crash_lost_runs, services)


def _crash_lost_runs(services: Services) -> list[str]:
    """Also those of jobs swept while Prefect was away."""
    store, since = services.ledger.triggers, services.clock() - LOOKED_BACK
    lost = store.runs_of_failed(LEASE_LOST_CAUSE, since)
    if not lost or not knows_prefect(services.settings.home):
        return []
    told = list[str]()
    with prefect_runs(services.settings.home) as prefect:
        runs = prefect.read(lost.values())
        for job_id, run_id in lost.items():
            if runs[run_id].state is RunState.UNDER_WAY:
                prefect.crash(run_id, f"Job {job_id} {LEASE_LOST_CAUSE}: its process gave no sign of life.")
                told.append(f"run {run_id} of job {job_id} has crashed")
    return told


def _drain(services: Services) -> Iterable[Step]:
    yield "events", partial(_collect_events, services)
    yield "messages", partial(_answer_messages, services)
    yield "jobs", partial(_start_jobs, services)


def _collect_events(services: Services) -> list[str]:
    new = prefect_events.collect(services)
    return [f"{new} events came by Prefect"] if new else []


def _answer_messages(services: Services) -> list[str]:
    answers, set_aside = answer_messages(services)
    aside = [f"{set_aside} messages were set aside"] if set_aside else []
    return [*(f"{answer.model_id}: {answer.sentence}" for answer in answers), *aside]


def _start_jobs(services: Services) -> list[str]:
    started = start_pending_jobs(services)
    if started.problem is not None:
        raise ServerUnavailable(f"{len(started.waiting)} jobs wait to be started: {started.problem}")
    begun = [f"job {job_id} is run {run_id}" for job_id, run_id in started.runs.items()]
    return [*begun, *(f"job {job_id} failed before it began" for job_id in started.failed)]


def _reconcile(services: Services) -> Iterable[Step]:
    for model_id in services.ledger.promotions.models():
        yield model_id, partial(_reconcile_model, services, model_id)


def _reconcile_model(services: Services, model_id: str) -> list[str]:
    ended = services.promotions.reconcile(model_id, SYSTEM, services.clock())
    return [f"{model_id}: {change.kind} {change.id} is {change.state}" for change in ended]


def _guard(services: Services) -> Iterable[Step]:
    answer = {OnExpiry.ASK: _ask_again, OnExpiry.ROLL_BACK: _roll_back}[services.settings.guard.on_expiry]
    for forced in services.ledger.promotions.expired_forced(services.clock()):
        yield forced.model_id, partial(answer, services, forced)


def _ask_again(services: Services, forced: Promotion) -> list[str]:
    services.ledger.promotions.expire(forced, SYSTEM, services.clock())
    return [
        f"{forced.model_id}: {forced.to_version} was forced until {forced.expires_at:%Y-%m-%d %H:%M} UTC and "
        f"still serves: `clm confirm {forced.model_id} --reason ...`, or promote another"
    ]


def _roll_back(services: Services, forced: Promotion) -> list[str]:
    now = services.clock()
    try:
        done = services.promotions.end_expired(forced.model_id, SYSTEM, now)
    except CLMError:
        # there may be nothing to go back to: somebody has to decide
        services.ledger.promotions.expire(forced, SYSTEM, now)
        raise
    if done is None:
        return []
    said = f"{forced.to_version}, forced by {forced.actor}, was rolled back to {done.to_version}"
    kind = AlertKind.FORCED_ROLLED_BACK
    services.alerts.record(Alert(kind=kind, subject=forced.model_id, message=said, at=now))
    return [f"{forced.model_id}: {said}"]


def _verify(services: Services) -> Iterable[Step]:
    for version in _serving(services):
        yield _named(version), partial(_verify_files, services, version)


def _verify_in_rounds(services: Services) -> Iterable[Step]:
    """To the last file what is due for it, or was refused and may be mended; of the rest what MLflow says."""
    refused = {alert.subject for alert in services.alerts.lasting(AlertKind.BUNDLE_REFUSED)}
    rounds, now = _rounds(services), services.clock()
    for version in _serving(services):
        in_full = _named(version) in refused or rounds.is_due(version, now)
        yield _named(version), partial(_verify_files if in_full else _verify_listing, services, version)


def _serving(services: Services) -> Iterator[ModelVersion]:
    for model_id in services.ledger.promotions.models():
        yield from services.ledger.versions(model_id=model_id, status=ModelStatus.PRODUCTION)


def _named(version: ModelVersion) -> str:
    return f"{version.model_id}@{version.version}"


def _rounds(services: Services) -> DueVerifications:
    every = timedelta(minutes=services.settings.maintenance.verify_minutes)
    return DueVerifications(services.settings.home / "upkeep" / "verified.json", every)


def _verify_files(services: Services, version: ModelVersion) -> list[str]:
    services.promotions.verify(version, SYSTEM, services.clock(), once=True)
    _rounds(services).note(version, services.clock())
    return []


def _verify_listing(services: Services, version: ModelVersion) -> list[str]:
    services.promotions.verify_listing(version, SYSTEM, services.clock())
    return []


def _automations(services: Services) -> Iterable[Step]:
    yield "automations", partial(_alert_failed_actions, services)
    yield "runs", partial(_alert_failed_runs, services)


def _alert_failed_actions(services: Services) -> list[str]:
    now, kind = services.clock(), AlertKind.AUTOMATION_FAILING
    if not knows_prefect(services.settings.home):
        return []
    with prefect_runs(services.settings.home) as prefect:
        failed = prefect.failed_actions(now - REMEMBERED)
    for alert in services.alerts.lasting(kind):
        if alert.subject not in failed:
            services.alerts.end(kind, alert.subject, now)
    told = [
        services.alerts.record(Alert(kind=kind, subject=name, message=f"{reason} {MEND}", at=now))
        for name, reason in failed.items()
    ]
    return [f"{name}: {reason}" for (name, reason), new in zip(failed.items(), told, strict=True) if new]


def _alert_failed_runs(services: Services) -> list[str]:
    """Of a failed job its own alert tells, of a failed upkeep those of its parts."""
    now, kind = services.clock(), AlertKind.RUN_FAILED
    if not knows_prefect(services.settings.home):
        return []
    with prefect_runs(services.settings.home) as prefect:
        runs = prefect.failed_runs(now - NOT_WELL_AGAIN)
    jobs = services.ledger.triggers.with_jobs(runs)
    others = [
        (run_id, *runs[run_id]) for run_id in runs if run_id not in jobs and runs[run_id][0] not in ITSELF
    ]
    newest = {name: f"Its run {run_id} ended as {why}. {LOOK}" for run_id, name, why in reversed(others)}
    for alert in services.alerts.lasting(kind):
        if alert.subject not in newest:
            services.alerts.end(kind, alert.subject, now)
    told = {
        name: services.alerts.record(Alert(kind=kind, subject=name, message=message, at=now))
        for name, message in newest.items()
    }
    return [f"{name}: {newest[name]}" for name, is_new in told.items() if is_new]


def _anchor(services: Services) -> Iterable[Step]:
    yield "audit", partial(_anchor_newest, services)


def _anchor_newest(services: Services) -> list[str]:
    now = services.clock()
    try:
        written = services.ledger.anchor(anchor_folder(services.settings.home), now)
    except AuditBroken as error:
        alert = Alert(kind=AlertKind.AUDIT_BROKEN, subject="audit", message=str(error), at=now)
        services.alerts.record(alert)
        raise
    services.alerts.end(AlertKind.AUDIT_BROKEN, "audit", now)
    return [] if written is None else [f"entry {written.seq} is anchored"]


PARTS = {
    MaintenancePart.SWEEP: _sweep,
    MaintenancePart.DRAIN: _drain,
    MaintenancePart.RECONCILE: _reconcile,
    MaintenancePart.GUARD: _guard,
    MaintenancePart.VERIFY: _verify,
    MaintenancePart.AUTOMATIONS: _automations,
    MaintenancePart.AUDIT: _anchor,
}
