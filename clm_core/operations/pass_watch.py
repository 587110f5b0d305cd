"""Dead man's switch of an installation: scheduled passes that no longer succeed are alerted and shown.

The check needs neither worker nor flow, nor settings that can be loaded, nor Prefect: the supervisor of
`clm up` runs it beside the workers, and `clm status --check` runs it elsewhere, as from cron. The schedules
are Prefect's, or, while Prefect is away, the schedules seen last. Alerts are recorded in the ledger and sent
from here, since the maintenance that usually sends them may be dead.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import SecretStr
from sqlalchemy import Engine

from clm_core.decisions.overdue import judge_passes
from clm_core.domain.alerts import Alert, AlertKind
from clm_core.domain.errors import ServerUnavailable
from clm_core.domain.passes import PassHealth, PassSchedule
from clm_core.ledger.alerts import AlertStore
from clm_core.ledger.clock import read_clock
from clm_core.ledger.passes import PassStore
from clm_core.ledger.receivers import ReceiverStore
from clm_core.operations.delivery import deliver_alerts
from clm_core.platform.database import open_database
from clm_core.platform.prefect_runs import DEPLOYMENTS_TAG, ask_for_all
from clm_core.platform.stack_state import MAINTENANCE_QUEUE, prefect_environment, running
from clm_core.services import loading_problem, open_ledger
from clm_core.settings import Settings

MAINTENANCE = PassSchedule(every=timedelta(minutes=1), paused=False)
"""Schedule expected of every installation: without its deployment, nothing is repaired and no alert sent."""
REMOVED = "removed"
"""Version of a deployment that `clm deploy` has removed from the schedules."""
SETTINGS = "settings"
"""Subject of the alert on settings that cannot be loaded."""


@dataclass(frozen=True)
class PassCheck:
    """Result of a check."""

    passes: tuple[PassHealth, ...]
    problems: tuple[str, ...]
    """A sentence for each illness; empty for a well installation."""


def check(
    engine: Engine, urls: Sequence[SecretStr], environment: Mapping[str, str], *, restarted: bool = False
) -> PassCheck:
    """Judge the passes and the settings, record and end alerts, and send them.

    Args:
        urls: receivers of alerts.
        environment: environment with the address and the password of Prefect's API.
        restarted: no run could succeed before now, since the servers were down or the machine suspended.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the ledger does not answer.
    """
    store = PassStore(engine)
    problems = list[str]()
    try:
        _take_over_schedules(store, environment)
    except ServerUnavailable as error:
        problems.append(str(error))
    if restarted:
        store.restart()
    passes = judge_passes(*store.read())
    reasons = {each.name: each.reason for each in passes if each.reason is not None}
    settings = loading_problem()
    alerts = AlertStore(engine)
    _alert(engine, alerts, AlertKind.PASS_OVERDUE, reasons)
    _alert(engine, alerts, AlertKind.SETTINGS_REFUSED, {SETTINGS: _advice(settings)} if settings else {})
    if reasons or settings:
        deliver_alerts(urls, ReceiverStore(engine), alerts, lambda: read_clock(engine))
    return PassCheck(tuple(passes), (*problems, *([settings] if settings else []), *reasons.values()))


def check_installation(settings: Settings) -> PassCheck:
    """Check by a command of its own, of the Prefect server in the environment or the one of `clm up`.

    Raises:
        DatabaseUnavailable: the ledger does not answer.
    """
    environment: Mapping[str, str] = os.environ
    if "PREFECT_API_URL" not in environment:
        state = running(settings.home)
        environment = {} if state is None else prefect_environment(settings.home, state)
    with open_database(settings.home, settings.database_url) as database, open_ledger(database) as engine:
        return check(engine, settings.alerts.urls, environment)


def _advice(problem: str) -> str:
    return (
        f"{problem}\nUntil this is repaired, every run fails at its start: maintenance, retrains and shadow "
        "testing. `clm config` reads the settings anew."
    )


def _take_over_schedules(store: PassStore, environment: Mapping[str, str]) -> None:
    """Record the schedules of the passes in Prefect.

    A deployment that was deleted by hand stays expected, so that the pass becomes overdue.

    Raises:
        ServerUnavailable: Prefect does not answer.
    """
    if "PREFECT_API_URL" not in environment:
        raise ServerUnavailable("No Prefect server is known: start `clm up`, or set PREFECT_API_URL.")
    tagged = {"deployments": {"tags": {"all_": [DEPLOYMENTS_TAG]}}}
    deployments = ask_for_all(environment, "/deployments/filter", tagged)
    passes = [each for each in deployments if each["work_queue_name"] == MAINTENANCE_QUEUE]
    removed = {each["name"] for each in passes if each["version"] == REMOVED}
    schedules = {
        each["name"]: schedule
        for each in passes
        if each["name"] not in removed and (schedule := _schedule(each)) is not None
    }
    store.expect({"maintenance": MAINTENANCE} | schedules, removed)


def _schedule(deployment: Mapping[str, Any]) -> PassSchedule | None:
    """Schedule of a deployment, None without an interval: a pass started by events, or by a calendar."""
    intervals = [
        (each["schedule"]["interval"], each["active"])
        for each in deployment["schedules"]
        if "interval" in each["schedule"]
    ]
    if not intervals:
        return None
    active = [interval for interval, is_active in intervals if is_active]
    seconds = min(active or [interval for interval, _ in intervals])
    return PassSchedule(every=timedelta(seconds=seconds), paused=deployment["paused"] or not active)


def _alert(engine: Engine, alerts: AlertStore, kind: AlertKind, messages: Mapping[str, str]) -> None:
    """Open an alert for each subject, and end the alerts of recovered subjects."""
    now = read_clock(engine)
    for lasting in alerts.lasting(kind):
        if lasting.subject not in messages:
            alerts.end(kind, lasting.subject, now)
    for subject, message in messages.items():
        alerts.record(Alert(kind=kind, subject=subject, message=message, at=now))
