"""Status of an installation: servers, jobs, production versions and the next scheduled runs."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from clm_core.decisions.overdue import judge_passes, overdue
from clm_core.domain.bar_age import DataAge
from clm_core.domain.errors import CLMError, ServerUnavailable
from clm_core.domain.passes import PassHealth
from clm_core.domain.storage_settings import StorageSettings
from clm_core.domain.vocabulary import JobStatus, ModelStatus
from clm_core.ledger.store import Ledger
from clm_core.market.newest_bars import newest_bars
from clm_core.operations.data_age import UNKNOWN, read_data_age
from clm_core.operations.settings_check import differences
from clm_core.platform import stack_state
from clm_core.platform.bucket import Bucket
from clm_core.platform.database import open_database
from clm_core.platform.object_storage import series_storage
from clm_core.platform.prefect_runs import ask_for_all, is_answering, workers_online
from clm_core.platform.run_engine import is_listening
from clm_core.platform.stack_settings import StackSettingsRecord
from clm_core.platform.stack_state import StackState
from clm_core.services import loading_problem, open_ledger
from clm_core.settings import Settings

FROZEN = ConfigDict(frozen=True, extra="forbid")
SCHEDULED = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}, "sort": "EXPECTED_START_TIME_ASC"}
"""Scheduled runs of all deployments, soonest first."""


class PartHealth(BaseModel):
    model_config = FROZEN

    name: str
    healthy: bool
    """True if the part answered just now."""
    pid: int | None
    restarts: int
    log: Path


class Champion(BaseModel):
    model_config = FROZEN

    model_id: str
    version: str


class NextRun(BaseModel):
    """Next scheduled run of a deployment."""

    model_config = FROZEN

    deployment: str
    at: datetime


class InstallationStatus(BaseModel):
    model_config = FROZEN

    up: bool
    """True while `clm up` runs."""
    urls: dict[str, str]
    parts: tuple[PartHealth, ...]
    jobs: dict[JobStatus, int]
    production: tuple[Champion, ...]
    next_runs: tuple[NextRun, ...]
    """Soonest first; empty while no Prefect server answers."""
    passes: tuple[PassHealth, ...] = ()
    """Scheduled passes by name, with the reason why one is overdue."""
    settings_problem: str | None = None
    """Reason why the running stack cannot load settings or policy, if any: no scheduled pass runs."""
    command_problem: str | None = None
    """Reason why this command cannot load settings or policy, if any."""
    storage: str | None = None
    """Address of the bucket with bars and artifacts; None where the home holds both."""
    storage_problem: str | None = None
    """Reason why the bucket cannot be used at present, if any."""
    settings_differ: tuple[str, ...] = ()
    """Names of the settings that differ between this command and the running stack."""
    data: DataAge = DataAge()
    """Age of the bars of the markets in use."""
    is_complete: bool = True
    """False if the settings do not load: jobs, production and next runs are unknown then."""

    @property
    def healthy(self) -> bool:
        loadable = self.settings_problem is None and self.command_problem is None
        well = loadable and self.storage_problem is None and not overdue(self.passes)
        return self.up and well and all(part.healthy for part in self.parts)


def read_status_without_settings(home: Path, problem: str) -> InstallationStatus:
    """Snapshot of the servers alone, for settings that cannot be loaded."""
    state = stack_state.running(home)
    record = StackSettingsRecord.read(home)
    parts = () if state is None or record is None else _parts(home, record.work_pool, state)
    return InstallationStatus(
        up=state is not None,
        urls={} if state is None else urls(state),
        parts=parts,
        jobs={},
        production=(),
        next_runs=(),
        settings_problem=None if state is None else state.settings_problem,
        command_problem=problem,
        is_complete=False,
    )


def read_status(settings: Settings) -> InstallationStatus:
    """Snapshot of an installation; starts the embedded database for a moment if nothing runs."""
    state = stack_state.running(settings.home)
    with open_database(settings.home, settings.database_url) as database, open_ledger(database) as engine:
        ledger = Ledger(engine)
        jobs = dict(ledger.counts().jobs)
        versions = ledger.versions(status=ModelStatus.PRODUCTION, limit=1000)
        passes = judge_passes(*ledger.passes.read())
        storage_problem = _storage_problem(settings.storage)
        data = _data_age(ledger, settings, storage_problem)
    production = tuple(Champion(model_id=each.model_id, version=each.version) for each in versions)
    if state is None:
        return InstallationStatus(
            up=False,
            urls={},
            parts=(),
            jobs=jobs,
            production=production,
            next_runs=(),
            command_problem=loading_problem(),
            storage=settings.storage.url,
            storage_problem=storage_problem,
            data=data,
        )
    return InstallationStatus(
        up=True,
        urls=urls(state),
        parts=_parts(settings.home, settings.deploy.work_pool, state),
        jobs=jobs,
        production=production,
        next_runs=next_runs(stack_state.prefect_environment(settings.home, state)),
        settings_problem=state.settings_problem,
        command_problem=loading_problem(),
        storage=settings.storage.url,
        storage_problem=storage_problem,
        data=data,
        settings_differ=tuple(differences(settings)),
        passes=tuple(passes),
    )


def _data_age(ledger: Ledger, settings: Settings, storage_problem: str | None) -> DataAge:
    if storage_problem is not None:
        return DataAge(problem=f"{UNKNOWN}: {storage_problem}")
    storage = series_storage(settings.home, settings.storage)
    return read_data_age(ledger, settings, ledger.now(), partial(newest_bars, storage))


def _storage_problem(storage: StorageSettings) -> str | None:
    if storage.url is None:
        return None
    try:
        Bucket.probed(storage).require_reachable()
    except CLMError as error:
        return str(error)
    return None


def urls(state: StackState) -> dict[str, str]:
    """Addresses of the pages for a browser."""
    return {
        "prefect": state.prefect_url,
        "mlflow": state.mlflow_url,
        **({"home page": f"{state.api_url}/", "api": f"{state.api_url}/docs"} if state.api_url else {}),
    }


def _parts(home: Path, work_pool: str, state: StackState) -> tuple[PartHealth, ...]:
    environment = stack_state.prefect_environment(home, state)
    workers = workers_online(environment, work_pool)
    probes: Mapping[str, Callable[[], bool]] = {
        "prefect": lambda: is_answering(f"{state.prefect_api_url}/health"),
        "mlflow": lambda: is_answering(f"{state.mlflow_url}/health"),
        "api": lambda: is_answering(f"{state.api_url}/health"),
        "fork-server": lambda: is_listening(home),
        "worker": lambda: {stack_state.WORKER, stack_state.MAINTENANCE_WORKER} <= set(workers),
        "maintenance-loop": lambda: True,
        # parts of releases before, whose `clm up` may still run
        "maintenance": lambda: stack_state.MAINTENANCE_WORKER in workers,
        "upkeep": lambda: "clm-up-upkeep" in workers,
    }
    return tuple(
        PartHealth(
            name=part.name,
            healthy=part.pid is not None and probes[part.name](),
            pid=part.pid,
            restarts=part.restarts,
            log=part.log,
        )
        for part in state.parts
    )


def next_runs(environment: Mapping[str, str]) -> tuple[NextRun, ...]:
    """Next scheduled run of each deployment, soonest first; empty while no Prefect server answers."""
    try:
        deployments = list(ask_for_all(environment, "/deployments/filter", {}))
        scheduled = list(ask_for_all(environment, "/flow_runs/filter", SCHEDULED))
    except ServerUnavailable:
        return ()
    names = {deployment["id"]: deployment["name"] for deployment in deployments}
    soonest = dict[str, NextRun]()
    for run in scheduled:
        if name := names.get(run["deployment_id"]):
            at = datetime.fromisoformat(run["expected_start_time"]).astimezone(UTC)
            soonest.setdefault(name, NextRun(deployment=name, at=at))
    return tuple(sorted(soonest.values(), key=lambda run: run.at))
