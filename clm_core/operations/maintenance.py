"""Maintenance of an installation: dead jobs, waiting messages, unfinished promotions, changed files, alerts.

A failing part leaves the other parts unaffected, and a failing model the other models. The report names the
failures, and an alert per part lasts until the part works again.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial

from pydantic import BaseModel, ConfigDict

from clm_core.domain.actors import SYSTEM
from clm_core.domain.alerts import Alert, AlertKind, RaisedAlert
from clm_core.domain.errors import AuditBroken, BundleCorrupt, CLMError, ServerUnavailable
from clm_core.domain.operation_settings import OnExpiry
from clm_core.domain.promotions import Promotion
from clm_core.domain.secret_references import SecretReference, references_of
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import JobStatus, ModelStatus
from clm_core.ledger.audit_log import anchor_folder
from clm_core.operations import anchor_shipping
from clm_core.operations.delivery import DeliveryResult, deliver
from clm_core.operations.passes import PassReport, Row, attempt, report_problems, run_each
from clm_core.platform import tracing
from clm_core.platform.bucket import Bucket
from clm_core.platform.prefect_runs import RunState, knows_prefect, prefect_runs
from clm_core.platform.tracing import traced
from clm_core.registry import integrity
from clm_core.registry.due_verifications import DueVerifications
from clm_core.retraining.jobs import LEASE_LOST_CAUSE, reap_dead_jobs
from clm_core.services import Services
from clm_core.triggers import prefect_events
from clm_core.triggers.dispatch import answer_messages, start_pending_jobs


class MaintenancePart(StrEnum):
    REAP = "reap"
    """Ends the jobs of dead processes, and the runs of the jobs."""
    DISPATCH = "dispatch"
    """Answers waiting messages and starts waiting jobs."""
    RECONCILE = "reconcile"
    """Completes or aborts promotions that a crash interrupted, and restores aliases moved by hand."""
    OVERRIDES = "overrides"
    """Asks for confirmation of expired forced promotions, or rolls back."""
    VERIFY = "verify"
    """Compares the production versions in MLflow with the registered digests; all files once an hour."""
    AUTOMATIONS = "automations"
    """Alerts on failed runs and failed actions of automations; Prefect itself sends no alert."""
    AUDIT = "audit"
    """Reads a part of the audit's entries, anchors the newest outside the database, and ships the anchors."""
    SECRETS = "secrets"
    """Reads every secret kept in Vault or OpenBao, which also keeps the token of a login alive."""
    STORAGE = "storage"
    """Looks for the bucket of the settings."""
    RUNS = "runs"
    """Deletes old runs of scheduled passes in Prefect."""
    DELIVER = "deliver"
    """Sends events and alerts."""


FORMER_PARTS = frozenset({"sweep", "drain", "guard"})
"""Names of reap, dispatch and overrides in the release before, as subjects of alerts."""


class MaintenancePartReport(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    part: MaintenancePart
    done: tuple[str, ...]
    """Changes and findings, a sentence each; empty if nothing was due."""
    problems: tuple[str, ...]
    """Failures, with the model, job or receiver concerned."""


class MaintenanceReport(PassReport):
    """Changes and failures of one pass."""

    parts: tuple[MaintenancePartReport, ...]
    deliveries: tuple[DeliveryResult, ...]
    conditions: tuple[RaisedAlert, ...]
    """Open alerts, oldest first."""

    @property
    def failed(self) -> tuple[MaintenancePart, ...]:
        return tuple(report.part for report in self.parts if report.problems)

    @property
    def headline(self) -> str:
        failed = f", failed: {', '.join(self.failed)}" if self.failed else ""
        return f"Parts run: {len(self.parts)}{failed}. Open alerts: {len(self.conditions)}."

    def rows(self) -> list[Row]:
        return [{"part": each.part, "outcome": _outcome(each)} for each in self.parts]

    def summary_lines(self) -> list[str]:
        """Changes and failures of each part, then the open alerts."""
        parts = [f"{each.part}: {line}" for each in self.parts for line in (*each.done, *each.problems)]
        alerts = [
            f"since {alert.at:%Y-%m-%d %H:%M} UTC: {alert.kind} {alert.subject}" for alert in self.conditions
        ]
        return [*parts, *alerts]


FAILED_RUNS_KEPT = timedelta(days=30)
"""Time for which runs of scheduled passes that did not succeed are kept at least."""
LOST_RUNS_WITHIN = timedelta(days=1)
"""Age up to which the run of a failed job is marked as crashed."""
RUNS_RECOVERED_AFTER = timedelta(hours=3)
"""Time without a failed run after which a deployment counts as recovered."""
MAX_MODELS = 100_000
"""Maximum number of models in production looked at."""
ENTRIES_READ = 1_000
"""Entries of the audit that a pass reads: a tenth of a second. 100,000 entries are read in 100 minutes."""
BROKEN_ENTRY = "entry "
"""Subject of an alert about an entry of the audit, before its number."""
MAX_JOBS = 1_000
"""Maximum number of jobs in progress looked at."""
OWN_DEPLOYMENTS = frozenset({"maintenance", "upkeep"})
"""Deployment of the maintenance passes, now and in the release before."""
SEE_LOG = "The log is on the page of the run in the Prefect UI."
ACTIONS_RECOVERED_AFTER = timedelta(hours=1)
"""Time without a failed action after which an automation counts as recovered."""
REPAIR_ACTION = "Repair the action on the page Automations of the Prefect UI: the run was not started."
Step = tuple[str, Callable[[], Iterable[str]]]
"""Subject, and the step that returns a sentence for each change."""
PartSteps = Callable[[Services], Iterable[Step]]


@traced("maintenance")
def run(services: Services, in_full: bool = True) -> MaintenanceReport:
    """Run every part in turn, and deliver the resulting events and alerts last.

    Args:
        in_full: read every file of every production version, not only of the versions due.
    """
    parts = [_run_part(services, part, steps) for part, steps in _parts(in_full).items()]
    _end_alerts_of_former_parts(services)
    delivered, problems = attempt("events and alerts", partial(deliver, services))
    deliveries = delivered or []
    parts.append(_delivery_report(deliveries, problems))
    return MaintenanceReport(
        at=services.clock(),
        problems=tuple(problem for part in parts for problem in part.problems),
        parts=tuple(parts),
        deliveries=tuple(deliveries),
        conditions=tuple(services.alerts.lasting()),
    )


def _parts(in_full: bool) -> Mapping[MaintenancePart, PartSteps]:
    return {
        MaintenancePart.REAP: _reap,
        MaintenancePart.DISPATCH: _dispatch,
        MaintenancePart.RECONCILE: _reconcile,
        MaintenancePart.OVERRIDES: expire_overrides,
        MaintenancePart.VERIFY: _verify if in_full else _verify_due,
        MaintenancePart.AUTOMATIONS: _automations,
        MaintenancePart.AUDIT: _anchor,
        MaintenancePart.SECRETS: _read_secrets,
        MaintenancePart.STORAGE: _look_for_storage,
        MaintenancePart.RUNS: _prune_runs,
    }


@traced("part")
def _run_part(services: Services, part: MaintenancePart, steps_of: PartSteps) -> MaintenancePartReport:
    tracing.annotate(part=part.value)
    steps, problems = attempt(part, lambda: list(steps_of(services)))
    changes, failures = run_each(steps or [])
    problems += failures
    report_problems(services, part, "clm maintenance", problems)
    done = tuple(sentence for sentences in changes for sentence in sentences)
    return MaintenancePartReport(part=part, done=done, problems=tuple(problems))


def _delivery_report(deliveries: Sequence[DeliveryResult], problems: list[str]) -> MaintenancePartReport:
    failing = [f"{each.name}: {each.last_error}" for each in deliveries if each.last_error]
    return MaintenancePartReport(
        part=MaintenancePart.DELIVER,
        done=tuple(f"{each.name} received {each.sent}" for each in deliveries if each.sent),
        problems=(*problems, *failing),
    )


def _outcome(report: MaintenancePartReport) -> str:
    if report.problems:
        return "FAILED"
    return "done" if report.done else "nothing to do"


def _end_alerts_of_former_parts(services: Services) -> None:
    """End alerts that the release before opened under a former name, which no pass ends any more."""
    for alert in services.alerts.lasting(AlertKind.MAINTENANCE_FAILING):
        if alert.subject in FORMER_PARTS:
            services.alerts.end(alert.kind, alert.subject, services.clock())


def _reap(services: Services) -> Iterable[Step]:
    yield "jobs", lambda: [f"job {job.id} {job.failure_cause}" for job in reap_dead_jobs(services)]
    yield "runs", partial(_crash_lost_runs, services)
    yield "trainings", partial(_alert_slow_trainings, services)


def _alert_slow_trainings(services: Services) -> list[str]:
    """Alert on jobs in progress for long, until each ends."""
    now = services.clock()
    allowed = timedelta(seconds=services.settings.training.alert_after_seconds)
    jobs = services.ledger.jobs(status=JobStatus.IN_PROGRESS, limit=MAX_JOBS)
    slow = [job for job in jobs if job.started_at is not None and now - job.started_at > allowed]
    limit = f"{services.settings.training.limit_seconds / 3600:g} hours (training.limit_seconds)"
    messages = {
        str(job.id): (
            f"The training of {job.model_id} began at {job.started_at:%Y-%m-%d %H:%M} UTC and goes on. "
            f"It is ended after {limit}; the page of its run shows the progress, and can cancel it."
        )
        for job in slow
    }
    new = _alert_while_failing(services, AlertKind.TRAINING_SLOW, messages, now)
    return [f"job {job_id} is slow" for job_id in new]


def _crash_lost_runs(services: Services) -> list[str]:
    """Mark the runs of dead jobs as crashed, also of jobs reaped while Prefect was away."""
    since = services.clock() - LOST_RUNS_WITHIN
    lost = services.ledger.triggers.runs_of_failed(LEASE_LOST_CAUSE, since)
    if not lost or not knows_prefect(services.settings.home):
        return []
    crashed = list[str]()
    with prefect_runs(services.settings.home) as prefect:
        runs = prefect.read(lost.values())
        for job_id, run_id in lost.items():
            cause = f"Job {job_id} {LEASE_LOST_CAUSE}: the process sent no heartbeat."
            if runs[run_id].state is RunState.UNDER_WAY and prefect.crash(run_id, cause):
                crashed.append(f"run {run_id} of job {job_id} has crashed")
    return crashed


def _dispatch(services: Services) -> Iterable[Step]:
    yield "events", partial(_collect_events, services)
    yield "messages", partial(_answer_messages, services)
    yield "jobs", partial(_start_jobs, services)


def _collect_events(services: Services) -> list[str]:
    new = prefect_events.collect(services)
    return [f"{new} events arrived by Prefect"] if new else []


def _answer_messages(services: Services) -> list[str]:
    answers, set_aside = answer_messages(services)
    aside = [f"{set_aside} messages were set aside"] if set_aside else []
    return [*(f"{answer.model_id}: {answer.sentence}" for answer in answers), *aside]


def _start_jobs(services: Services) -> list[str]:
    started = start_pending_jobs(services)
    if started.problem is not None:
        raise ServerUnavailable(f"{len(started.waiting)} jobs wait to be started: {started.problem}")
    begun = [f"job {job_id} is run {run_id}" for job_id, run_id in started.runs.items()]
    return [*begun, *(f"job {job_id} failed before the start" for job_id in started.failed)]


def _reconcile(services: Services) -> Iterable[Step]:
    for model_id in services.promotions.unsettled():
        yield model_id, partial(_reconcile_model, services, model_id)


def _reconcile_model(services: Services, model_id: str) -> list[str]:
    ended = services.promotions.reconcile(model_id, SYSTEM, services.clock())
    return [f"{model_id}: {change.kind} {change.id} is {change.state}" for change in ended]


def expire_overrides(services: Services) -> Iterable[Step]:
    """Steps for the forced promotions past their expiry: ask for confirmation, or roll back."""
    act = {OnExpiry.ASK: _ask_for_confirmation, OnExpiry.ROLL_BACK: _roll_back}[
        services.settings.guard.on_expiry
    ]
    for forced in services.ledger.promotions.expired_forced(services.clock()):
        yield forced.model_id, partial(act, services, forced)


def _ask_for_confirmation(services: Services, forced: Promotion) -> list[str]:
    services.ledger.promotions.expire(forced, SYSTEM, services.clock())
    return [
        f"{forced.model_id}: {forced.to_version} was forced until {forced.expires_at:%Y-%m-%d %H:%M} UTC and "
        f"is still in production: `clm confirm {forced.model_id} --reason ...`, or promote another version"
    ]


def _roll_back(services: Services, forced: Promotion) -> list[str]:
    now = services.clock()
    try:
        rollback = services.promotions.end_expired(forced.model_id, SYSTEM, now)
    except CLMError:
        # without a version to roll back to, a person has to decide
        services.ledger.promotions.expire(forced, SYSTEM, now)
        raise
    if rollback is None:
        return []
    message = f"{forced.to_version}, forced by {forced.actor}, was rolled back to {rollback.to_version}"
    kind = AlertKind.FORCED_ROLLED_BACK
    services.alerts.record(Alert(kind=kind, subject=forced.model_id, message=message, at=now))
    return [f"{forced.model_id}: {message}"]


def _verify(services: Services) -> Iterable[Step]:
    for version in _production_versions(services):
        yield _label(version), partial(_verify_files, services, version)


def _verify_due(services: Services) -> Iterable[Step]:
    """Steps that read all files of versions due or refused, and the listing in MLflow of the rest."""
    versions = _production_versions(services)
    if not versions:
        # without an import of MLflow
        return
    refused = {alert.subject for alert in services.alerts.lasting(AlertKind.BUNDLE_REFUSED)}
    listings = services.registry.listings(ModelStatus.PRODUCTION)
    due = _due_verifications(services).due(versions, services.clock())
    for version in versions:
        if _label(version) in refused or version.model_id in due:
            yield _label(version), partial(_verify_files, services, version)
        elif not _is_as_listed(version, listings):
            yield _label(version), partial(_verify_listing, services, version)


def _is_as_listed(version: ModelVersion, listings: Mapping[tuple[str, int], str | None]) -> bool:
    """True if the listing read together with all others is the registered one."""
    listed = listings.get((version.model_id, version.mlflow_version))
    with contextlib.suppress(BundleCorrupt):
        integrity.verify_listing(listed, version.package_digest)
        return listed is not None
    return False


def _production_versions(services: Services) -> list[ModelVersion]:
    versions = services.ledger.versions(status=ModelStatus.PRODUCTION, limit=MAX_MODELS)
    return sorted(versions, key=lambda each: each.model_id)


def _label(version: ModelVersion) -> str:
    return f"{version.model_id}@{version.version}"


def _due_verifications(services: Services) -> DueVerifications:
    every = timedelta(minutes=services.settings.maintenance.verify_minutes)
    return DueVerifications(services.settings.home / "maintenance" / "verified.json", every)


def _verify_files(services: Services, version: ModelVersion) -> list[str]:
    services.promotions.verify(version, SYSTEM, services.clock(), once=True)
    _due_verifications(services).note(version, services.clock())
    return []


def _verify_listing(services: Services, version: ModelVersion) -> list[str]:
    services.promotions.verify_listing(version, SYSTEM, services.clock())
    return []


def _prune_runs(services: Services) -> Iterable[Step]:
    yield "runs of scheduled passes", partial(_delete_old_runs, services)


def _delete_old_runs(services: Services) -> list[str]:
    """A pass a minute leaves 1,440 runs a day, among which nobody finds a retrain."""
    if not knows_prefect(services.settings.home):
        return []
    now = services.clock()
    kept = timedelta(days=services.settings.maintenance.keep_runs_days)
    with prefect_runs(services.settings.home) as prefect:
        prefect.prune(now - kept, now - max(kept, FAILED_RUNS_KEPT))
    return []


def _automations(services: Services) -> Iterable[Step]:
    yield "automations", partial(_alert_failed_actions, services)
    yield "runs", partial(_alert_failed_runs, services)


def _alert_failed_actions(services: Services) -> list[str]:
    if not knows_prefect(services.settings.home):
        return []
    now = services.clock()
    with prefect_runs(services.settings.home) as prefect:
        failed = prefect.failed_actions(now - ACTIONS_RECOVERED_AFTER)
    messages = {name: f"{reason} {REPAIR_ACTION}" for name, reason in failed.items()}
    new = _alert_while_failing(services, AlertKind.AUTOMATION_FAILING, messages, now)
    return [f"{name}: {failed[name]}" for name in new]


def _alert_failed_runs(services: Services) -> list[str]:
    """Alert on failed runs without an alert of another kind: of a failed job, or of a maintenance part."""
    if not knows_prefect(services.settings.home):
        return []
    now = services.clock()
    with prefect_runs(services.settings.home) as prefect:
        runs = prefect.failed_runs(now - RUNS_RECOVERED_AFTER)
    jobs = services.ledger.triggers.with_jobs(runs)
    alerted = {
        run_id: run for run_id, run in runs.items() if run_id not in jobs and run[0] not in OWN_DEPLOYMENTS
    }
    # runs come newest first: in reverse, the newest run of a deployment gives the message
    messages = {
        name: f"Run {run_id} ended as {reason}. {SEE_LOG}"
        for run_id, (name, reason) in reversed(alerted.items())
    }
    new = _alert_while_failing(services, AlertKind.RUN_FAILED, messages, now)
    return [f"{name}: {messages[name]}" for name in new]


def _alert_while_failing(
    services: Services, kind: AlertKind, messages: Mapping[str, str], now: datetime
) -> list[str]:
    """Open an alert for each failing subject and end the alerts of recovered subjects.

    Args:
        messages: message by failing subject.

    Returns:
        Subjects of the alerts opened now.
    """
    for alert in services.alerts.lasting(kind):
        if alert.subject not in messages:
            services.alerts.end(kind, alert.subject, now)
    return [
        subject
        for subject, message in messages.items()
        if services.alerts.record(Alert(kind=kind, subject=subject, message=message, at=now))
    ]


def _read_secrets(services: Services) -> Iterable[Step]:
    """Steps that fail while the server of secrets does not give a value, whoever may need it next."""
    for _, reference in references_of(services.settings):
        yield "secret", partial(_read_secret, reference)


def _look_for_storage(services: Services) -> Iterable[Step]:
    """Step that fails while the bucket does not answer, whoever may need it next."""
    if services.storage_probe is not None:
        yield "bucket", partial(_look_for_bucket, services.storage_probe)


def _look_for_bucket(bucket: Bucket) -> list[str]:
    bucket.require_reachable()
    return []


def _read_secret(reference: SecretReference) -> list[str]:
    reference.get_secret_value()
    return []


def _anchor(services: Services) -> Iterable[Step]:
    yield "audit", partial(_anchor_newest, services)
    yield "entries", partial(_read_entries, services)
    yield from anchor_shipping.steps(services)


def _read_entries(services: Services) -> list[str]:
    """Read a part of the audit, another one each minute, and the entries that were broken before."""
    ledger = services.ledger
    alerts = services.alerts
    now = services.clock()
    for alert in alerts.lasting(AlertKind.AUDIT_BROKEN):
        number = alert.subject.removeprefix(BROKEN_ENTRY)
        if number != alert.subject and ledger.broken_entry(int(number) - 1, 1) is None:
            alerts.end(alert.kind, alert.subject, now)
    parts = max(math.ceil(ledger.newest_audit_number() / ENTRIES_READ), 1)
    part = int(now.timestamp() // 60) % parts
    broken = ledger.broken_entry(part * ENTRIES_READ, ENTRIES_READ)
    if broken is not None:
        subject = f"{BROKEN_ENTRY}{broken.seq}"
        alerts.record(Alert(kind=AlertKind.AUDIT_BROKEN, subject=subject, message=broken.message, at=now))
        raise AuditBroken(broken.message)
    return []


def _anchor_newest(services: Services) -> list[str]:
    now = services.clock()
    try:
        anchored = services.ledger.anchor(anchor_folder(services.settings.home), now)
    except AuditBroken as error:
        alert = Alert(kind=AlertKind.AUDIT_BROKEN, subject="audit", message=str(error), at=now)
        services.alerts.record(alert)
        raise
    services.alerts.end(AlertKind.AUDIT_BROKEN, "audit", now)
    return [] if anchored is None else [f"entry {anchored.seq} is anchored"]
