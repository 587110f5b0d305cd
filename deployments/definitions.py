"""What runs on a schedule: one deployment a model and market of the universe, the upkeep, the watch and the
shadows.

Run as a module it makes Prefect's deployments those of the settings: `python -m deployments.definitions`.
"""

import hashlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import yaml  # type: ignore[import-untyped]

from clm_core.domain.errors import CLMError, ServerUnavailable
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.kinds import Kind, model_id
from clm_core.domain.universe import Market
from clm_core.domain.vocabulary import ModelType, TriggerReason
from clm_core.market.timeframes import Timeframe
from clm_core.models import catalog
from clm_core.platform import stack_state
from clm_core.platform.prefect_runs import DEPLOYMENTS_TAG
from clm_core.settings import Settings, load_settings
from clm_core.triggers.messages import IncomingType

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import DeploymentResponse
    from prefect.events.schemas.automations import AutomationCore

FIRST_ANCHOR = datetime(2024, 1, 1, tzinfo=UTC)
REMOVED = "removed"
"""The version of a deployment that is no longer wanted."""
SETTLED_SECONDS = 2.0
"""By then Prefect's scheduler has put down what it was about to when a deployment was written."""
COMMAND = "python -m prefect.engine"
"""What a worker starts for a run: the code is installed there, nothing has to be fetched or prepared."""


@dataclass(frozen=True)
class Deployment:
    """A flow, with what it is given and when it runs."""

    entrypoint: str
    """Module and function: `flows.retrain.retrain`."""
    name: str
    description: str
    every: timedelta | None
    """None: on demand."""
    offset: timedelta | None = None
    """When in its interval it runs; None: its name decides, so that not everything runs at once."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """What the launch form starts with."""
    scheduled_parameters: dict[str, Any] = field(default_factory=dict)
    """What a run on schedule is given instead."""
    tags: tuple[str, ...] = ()
    at_once: int | None = 1
    """How many of its runs may run at the same time; None: as many as the worker takes."""
    collision_strategy: str = "ENQUEUE"
    """What happens to a run while another one of this deployment runs: `ENQUEUE` or `CANCEL_NEW`."""
    work_queue: str = "default"
    """Of the work pool; under `clm up` each has a worker of its own."""
    events: tuple[str, ...] = ()
    """Names of events on Prefect's bus that start it."""
    starts_within_seconds: int = 300
    """A run that a worker took and never started, for it was killed, makes way for the next after this."""

    @property
    def anchor(self) -> datetime:
        """When its schedule begins: always the same, or an interval would begin anew at every deploy."""
        assert self.every is not None
        if self.offset is not None:
            return FIRST_ANCHOR + self.offset
        digest = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:8])
        minutes = int(self.every / timedelta(minutes=1))
        return FIRST_ANCHOR + timedelta(minutes=digest % minutes)

    def definition(self) -> dict[str, Any]:
        """As `prefect.yaml` spells it."""
        schedule = self.every and {
            "interval": int(self.every.total_seconds()),
            "anchor_date": self.anchor.isoformat(),
            "timezone": "UTC",
            "slug": "periodic",
            **({"parameters": self.scheduled_parameters} if self.scheduled_parameters else {}),
        }
        return {
            "name": self.name,
            "entrypoint": self.entrypoint,
            "description": self.description,
            "tags": [DEPLOYMENTS_TAG, *self.tags],
            "parameters": self.parameters,
            "schedules": [schedule] if schedule else [],
            "concurrency_limit": self.at_once
            and {
                "limit": self.at_once,
                "collision_strategy": self.collision_strategy,
                "grace_period_seconds": self.starts_within_seconds,
            },
            "work_pool": {"work_queue_name": self.work_queue, "job_variables": {"command": COMMAND}},
            "pull": [],
            **({"triggers": [self.trigger()]} if self.events else {}),
        }

    def trigger(self) -> dict[str, Any]:
        return {
            "type": "event",
            "name": f"CLM: {self.name} at once",
            "expect": sorted(self.events),
            "posture": "Reactive",
            "threshold": 1,
            "within": 0,
        }


_ON_DEMAND = Deployment(
    entrypoint="flows.retrain.retrain",
    name="on-demand",
    description="Retrain any model on any market, also one that has no schedule.",
    every=None,
    at_once=None,
)

_TUNE = Deployment(
    entrypoint="flows.tune.tune",
    name="tune",
    description="Search for better training parameters of a model; asks for the extra evolve.",
    every=None,
    at_once=1,
)

_EVOLVE = Deployment(
    entrypoint="flows.evolve.evolve",
    name="evolve",
    description="Breed better training parameters of a model; proposes, and trains nothing.",
    every=None,
    at_once=1,
)

_DISPATCH = Deployment(
    entrypoint="flows.dispatch.dispatch",
    name="dispatch",
    description="Answer waiting messages and start waiting jobs; events on Prefect's bus start a run.",
    every=None,
    # an event that arrives during a run is answered by the next maintenance pass
    collision_strategy="CANCEL_NEW",
    events=tuple(each.value for each in IncomingType),
    work_queue=stack_state.MAINTENANCE_QUEUE,
    starts_within_seconds=60,
)

AFTER_A_BAR = timedelta(seconds=20)
"""So long after a bar has closed its exchange is asked for it."""
AFTER_A_FETCH = timedelta(minutes=2)
"""So long after a bar has closed it is stored, unless its exchange is slow."""


def _fetch(universe: Sequence[Market]) -> Iterator[Deployment]:
    """One for all markets that name an exchange, as often as the shortest of their bars closes."""
    lengths = [Timeframe(market.timeframe).seconds for market in universe if market.exchange]
    if lengths:
        yield Deployment(
            entrypoint="flows.fetch.fetch",
            name="fetch",
            description="Fetch the closed bars of every market of the universe that names an exchange.",
            every=timedelta(seconds=min(lengths)),
            offset=AFTER_A_BAR,
            collision_strategy="CANCEL_NEW",
            work_queue=stack_state.MAINTENANCE_QUEUE,
            starts_within_seconds=60,
        )


_MAINTENANCE = Deployment(
    entrypoint="flows.maintenance.maintenance",
    name="maintenance",
    description="Repair unfinished changes, verify production versions, deliver events and alerts.",
    every=timedelta(minutes=1),
    collision_strategy="CANCEL_NEW",
    work_queue=stack_state.MAINTENANCE_QUEUE,
    starts_within_seconds=60,
)

_WATCH = Deployment(
    entrypoint="flows.watch.watch",
    name="watch",
    description="Look at what serves on the newest bars; ask to retrain what is stale or earns too little.",
    every=timedelta(hours=1),
    collision_strategy="CANCEL_NEW",
    work_queue=stack_state.MAINTENANCE_QUEUE,
    starts_within_seconds=60,
)


def _shadows(universe: Sequence[Market]) -> Iterator[Deployment]:
    """One for each timeframe, after its bars have closed and were fetched."""
    wanted_ones = {market.timeframe for market in universe}
    for timeframe in (each for each in Timeframe if each in wanted_ones):
        every = timedelta(seconds=timeframe.seconds)
        yield Deployment(
            entrypoint="flows.shadow.shadow",
            name=f"shadow-{timeframe}",
            description=f"Write down what versions that wait to serve want after each bar of {timeframe}.",
            every=every,
            offset=min(AFTER_A_FETCH, every * 3 / 4),
            parameters={"timeframe": timeframe.value},
            collision_strategy="CANCEL_NEW",
            work_queue=stack_state.MAINTENANCE_QUEUE,
            starts_within_seconds=60,
        )


@dataclass(frozen=True)
class Deployed:
    """What a deploy changed."""

    created: tuple[str, ...]
    updated: tuple[str, ...]
    unchanged: tuple[str, ...]
    paused: tuple[str, ...]
    """No longer wanted."""


def wanted(settings: Settings) -> list[Deployment]:
    """All deployments of an installation with these settings.

    Raises:
        ModelError: the universe names a kind of model that cannot be trained here.
    """
    retrains = [_retrain(market, kind) for market in settings.universe for kind in _kinds(market)]
    fetch, shadows = _fetch(settings.universe), _shadows(settings.universe)
    return [*retrains, _ON_DEMAND, _TUNE, _EVOLVE, _DISPATCH, *fetch, _MAINTENANCE, _WATCH, *shadows]


def prefect_yaml(settings: Settings) -> dict[str, Any]:
    """For `prefect deploy --all`, which takes the work pool from PREFECT_DEFAULT_WORK_POOL_NAME."""
    return {
        "name": "clm",
        "deployments": [each.definition() for each in wanted(settings)],
    }


def deploy(settings: Settings) -> Deployed:
    """Make the deployments of the Prefect server in the environment those that are wanted.

    One that is as it should be is left alone, and with it its scheduled runs, and whether somebody paused it.

    Raises:
        ServerUnavailable: Prefect does not answer.
    """
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True) as client:
            _ensure_work_pool(client, settings)
            _ensure_automations(client)
            return _deploy_all(client, settings)
    except httpx.TransportError as error:
        raise ServerUnavailable(
            f"Prefect does not answer at {client.api_url}: start it with `clm up`, or set PREFECT_API_URL."
        ) from error


def _retrain(market: Market, kind: Kind) -> Deployment:
    name = model_id(kind, market.symbol, market.timeframe)
    request = RetrainRequest(
        model_type=kind.model_type,
        plugin=kind.plugin,
        symbol=market.symbol,
        timeframe=market.timeframe,
        dataset_span_days=market.dataset_span_days,
        requested_by="Prefect",
    )
    scheduled = request.model_copy(
        update={"trigger_reason": TriggerReason.PERIODIC, "requested_by": "schedule"}
    )
    return Deployment(
        entrypoint="flows.retrain.retrain",
        name=name,
        description=f"Retrain {kind} on {market.symbol} {market.timeframe}, and judge it.",
        every=catalog.find_kind(*kind).retrain_every,
        parameters={"request": request.model_dump(mode="json")},
        scheduled_parameters={"request": scheduled.model_dump(mode="json")},
        tags=(name, str(kind)),
    )


def _kinds(market: Market) -> list[Kind]:
    plugins = [Kind(ModelType.OTHER, name) for name in market.plugins]
    if market.model_types is not None:
        return [*map(Kind, market.model_types), *plugins]
    scheduled = [each for each in catalog.kinds() if catalog.is_installed(each) and _is_scheduled(each)]
    return [*map(Kind, scheduled), *plugins]


def _is_scheduled(model_type: ModelType) -> bool:
    kind = catalog.declared(model_type)
    return kind is not None and kind.retrain_every is not None


def _ensure_work_pool(client: "SyncPrefectClient", settings: Settings) -> None:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    wanted_pool = WorkPoolCreate(name=settings.deploy.work_pool, type=settings.deploy.work_pool_type)
    try:
        client.create_work_pool(wanted_pool)
    except ObjectAlreadyExists:
        return


def _deploy_all(client: "SyncPrefectClient", settings: Settings) -> Deployed:
    present = {deployment.name: deployment for deployment in _ours(client)}
    changes: dict[str, list[str]] = {"created": [], "updated": [], "unchanged": [], "paused": []}
    all_wanted = wanted(settings)
    # removed deployments are paused first: a pass that got another name must not run twice in a slot
    for name in sorted(present.keys() - {deployment.name for deployment in all_wanted}):
        if present[name].version != REMOVED:
            _pause(client, present[name])
            changes["paused"].append(name)
    for deployment in all_wanted:
        found = present.get(deployment.name)
        version = _version(deployment, settings)
        if found is not None and found.version == version:
            changes["unchanged"].append(deployment.name)
        else:
            _write(
                client, deployment, settings, version, removed_before=bool(found and found.version == REMOVED)
            )
            changes["updated" if found else "created"].append(deployment.name)
    _drop_outdated_runs(client, {*changes["updated"], *changes["paused"]})
    return Deployed(**{change: tuple(names) for change, names in changes.items()})


def _ours(client: "SyncPrefectClient") -> "list[DeploymentResponse]":
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags

    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=[DEPLOYMENTS_TAG]))
    return client.read_deployments(deployment_filter=ours, limit=200)


def _version(deployment: Deployment, settings: Settings) -> str:
    """Changes with everything that a deploy writes."""
    schema = _flow(deployment.entrypoint)[1]
    facts = [deployment.definition(), schema, settings.deploy.model_dump(mode="json")]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


@cache
def _flow(entrypoint: str) -> "tuple[Flow[..., Any], dict[str, Any]]":
    """The flow, and the JSON schema of what it takes."""
    from prefect.flows import load_flow_from_entrypoint
    from prefect.utilities.callables import parameter_schema

    found: Flow[..., Any] = load_flow_from_entrypoint(entrypoint)
    return found, parameter_schema(found.fn).model_dump(mode="json", exclude_unset=True)


def _write(
    client: "SyncPrefectClient",
    deployment: Deployment,
    settings: Settings,
    version: str,
    *,
    removed_before: bool,
) -> None:
    from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions

    flow, schema = _flow(deployment.entrypoint)
    deployment_id = client.create_deployment(
        flow_id=client.create_flow_from_name(flow.name),
        name=deployment.name,
        version=version,
        description=deployment.description,
        tags=[DEPLOYMENTS_TAG, *deployment.tags],
        parameters=deployment.parameters,
        parameter_openapi_schema=schema,
        enforce_parameter_schema=True,
        schedules=_schedules(deployment),
        concurrency_limit=deployment.at_once,
        concurrency_options=ConcurrencyOptions(
            collision_strategy=ConcurrencyLimitStrategy(deployment.collision_strategy),
            grace_period_seconds=deployment.starts_within_seconds,
        ),
        entrypoint=deployment.entrypoint,
        pull_steps=[],
        work_pool_name=settings.deploy.work_pool,
        work_queue_name=deployment.work_queue,
        job_variables={"command": COMMAND} | settings.deploy.job_variables,
        paused=False if removed_before else None,
    )
    if deployment.events:
        _start_on_events(client, deployment, deployment_id)


def _start_on_events(client: "SyncPrefectClient", deployment: Deployment, deployment_id: UUID) -> None:
    from prefect.events.schemas.deployment_triggers import DeploymentEventTrigger

    client.delete_resource_owned_automations(f"prefect.deployment.{deployment_id}")
    trigger = DeploymentEventTrigger.model_validate(deployment.trigger())
    trigger.set_deployment_id(deployment_id)
    client.create_automation(trigger.as_automation())


def _schedules(deployment: Deployment) -> list[Any]:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import IntervalSchedule

    if deployment.every is None:
        return []
    schedule = IntervalSchedule(interval=deployment.every, anchor_date=deployment.anchor, timezone="UTC")
    return [
        DeploymentScheduleCreate(
            schedule=schedule, slug="periodic", parameters=deployment.scheduled_parameters, active=True
        )
    ]


def _pause(client: "SyncPrefectClient", deployment: "DeploymentResponse") -> None:
    """Pause a deployment and delete the automation that starts its runs on events."""
    from prefect.client.schemas.actions import DeploymentUpdate

    client.delete_resource_owned_automations(f"prefect.deployment.{deployment.id}")
    client.update_deployment(deployment.id, DeploymentUpdate(paused=True, version=REMOVED))


def _drop_outdated_runs(client: "SyncPrefectClient", changed: set[str]) -> None:
    """Prefect drops the future runs of a deployment that is written. Its scheduler, at work at that moment,
    may put some down again: a slot would fire twice, or a model of a market that is gone.
    """
    if not changed:
        return
    time.sleep(SETTLED_SECONDS)
    for deployment in _ours(client):
        if deployment.name in changed:
            for run in _scheduled_runs(client, deployment):
                if _is_outdated(run, deployment):
                    client.delete_flow_run(run.id)


def _scheduled_runs(client: "SyncPrefectClient", deployment: "DeploymentResponse") -> "list[FlowRun]":
    from prefect.client.schemas.filters import (
        DeploymentFilter,
        DeploymentFilterId,
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType

    scheduled = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
    return client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
        flow_run_filter=FlowRunFilter(state=scheduled),
        limit=200,
    )


def _is_outdated(run: "FlowRun", deployment: "DeploymentResponse") -> bool:
    """What was due before the deployment was written is to run all the same."""
    schedules = {schedule.id for schedule in deployment.schedules}
    if not run.auto_scheduled or run.created_by is None or run.expected_start_time is None:
        return False
    if deployment.version == REMOVED:
        return True
    assert deployment.updated is not None
    return run.created_by.id not in schedules and run.expected_start_time > deployment.updated


def _ensure_automations(client: "SyncPrefectClient") -> None:
    """Prefect does not notice by itself that a worker was killed: its runs would be as they are for ever."""
    ends = {"Completed", "Failed", "Cancelled", "Crashed"}
    for automation in (
        _crash_runs(
            "CLM: end runs that give no sign of life",
            after="heartbeat",
            expect={"heartbeat", *ends},
            within=timedelta(seconds=75),
            message="It gave no sign of life for 75 s.",
        ),
        _crash_runs(
            "CLM: end runs that were taken and never started",
            after="Pending",
            expect={"Running", "Scheduled", "AwaitingRetry", *ends},
            within=timedelta(minutes=10),
            message="A worker took it and did not start it within 10 minutes.",
        ),
    ):
        if not client.read_automations_by_name(automation.name):
            client.create_automation(automation)


def _crash_runs(name: str, after: str, expect: set[str], within: timedelta, message: str) -> "AutomationCore":
    """A run of which `after` was heard, and then nothing of `expect` for so long, has crashed."""
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    return AutomationCore(
        name=name,
        trigger=EventTrigger(
            after={f"prefect.flow-run.{after}"},
            expect={f"prefect.flow-run.{event}" for event in expect},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=within,
        ),
        actions=[ChangeFlowRunState(name="Crashed", state=StateType.CRASHED, message=message)],
    )


def main(arguments: list[str]) -> int:
    settings = load_settings()
    try:
        if "--yaml" in arguments:
            print(yaml.safe_dump(prefect_yaml(settings), sort_keys=False, width=110), end="")
        else:
            for change, names in asdict(deploy(settings)).items():
                if names:
                    print(f"{change}: {', '.join(names)}")
    except CLMError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
