"""Prefect deployments of an installation: a retrain per model and market, searches, and scheduled passes.

`python -m deployments.definitions` brings the deployments of the Prefect server in line with the settings.
"""

import hashlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import yaml  # type: ignore[import-untyped]

from clm_core.cli.renamed import show_deprecations
from clm_core.domain.errors import CLMError, ServerUnavailable
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.kinds import Kind, model_id
from clm_core.domain.pools import PoolSettings
from clm_core.domain.spellings import normalise_symbol
from clm_core.domain.universe import Market
from clm_core.domain.vocabulary import ModelType, TriggerReason
from clm_core.market.timeframes import Timeframe
from clm_core.models import catalog
from clm_core.operations.settings_check import (
    record_deployed,
    require_settings_of_stack,
    require_usable,
)
from clm_core.operations.universe import with_universe
from clm_core.platform import stack_state
from clm_core.platform.garbage_collection import collect_garbage_rarely
from clm_core.platform.object_storage import market_data
from clm_core.platform.prefect_runs import (
    DEPLOYMENTS_TAG,
    DIAGNOSIS,
    HOUSEKEEPING_TAG,
    POD_EVENTS,
    RETRAIN_TAG,
    SEARCH_TAG,
)
from clm_core.platform.private_files import keep_files_private
from clm_core.settings import Settings, load_settings
from clm_core.triggers.messages import IncomingType
from deployments.work_pool import COMMAND, all_deployments, ensure_work_pool, job_variables

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import DeploymentResponse
    from prefect.events.schemas.automations import AutomationCore

FIRST_ANCHOR = datetime(2024, 1, 1, tzinfo=UTC)
NO_IMAGE = "ImagePullError"
"""Diagnosis of prefect-kubernetes for a pod that waits for an image."""
SLUG = "periodic"
"""Name of the schedule of a deployment."""
REMOVED = "removed"
"""Version of a deployment removed from the settings."""
NAMES_SHOWN = 30
"""Deployments named in a line of output."""
SETTLED_SECONDS = 2.0
"""Time in which Prefect's scheduler completes a round begun before a deployment was written."""


@dataclass(frozen=True)
class Deployment:
    """A flow with parameters and schedule."""

    entrypoint: str
    """Module and function: `flows.retrain.retrain`."""
    name: str
    description: str
    every: timedelta | None
    """Interval of the schedule; None for runs on demand only."""
    offset: timedelta | None = None
    """Offset of the runs in the interval; None derives the offset from the name, which spreads the runs."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Initial values of the launch form."""
    scheduled_parameters: dict[str, Any] = field(default_factory=dict)
    """Parameters of scheduled runs, instead of `parameters`."""
    tags: tuple[str, ...] = ()
    max_runs: int | None = 1
    """Maximum number of concurrent runs; None for the limit of the worker."""
    collision_strategy: str = "ENQUEUE"
    """Treatment of a run above `max_runs`: `ENQUEUE` or `CANCEL_NEW`."""
    work_queue: str = "default"
    """Queue of the work pool; `clm up` runs a worker for each queue."""
    events: tuple[str, ...] = ()
    """Names of events in Prefect that start a run."""
    starts_within_seconds: int = 300
    """Time after which a run assigned to a killed worker no longer counts as a concurrent run."""
    offered_symbols: tuple[str, ...] = ()
    """Symbols that the launch form offers beside free text; empty for a form with free text alone."""

    @property
    def anchor(self) -> datetime:
        """Fixed start of the schedule; without an anchor every deploy would restart the interval."""
        assert self.every is not None
        if self.offset is not None:
            return FIRST_ANCHOR + self.offset
        digest = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:8])
        minutes = int(self.every / timedelta(minutes=1))
        return FIRST_ANCHOR + timedelta(minutes=digest % minutes)

    def definition(self) -> dict[str, Any]:
        """Definition in the format of `prefect.yaml`."""
        schedule = self.every and {
            "interval": int(self.every.total_seconds()),
            "anchor_date": self.anchor.isoformat(),
            "timezone": "UTC",
            "slug": SLUG,
            **({"parameters": self.scheduled_parameters} if self.scheduled_parameters else {}),
        }
        return {
            "name": self.name,
            "entrypoint": self.entrypoint,
            "description": self.description,
            "tags": [DEPLOYMENTS_TAG, *self.tags],
            # copied: YAML would show equal objects as references
            "parameters": deepcopy(self.parameters),
            "schedules": [schedule] if schedule else [],
            "concurrency_limit": self.max_runs
            and {
                "limit": self.max_runs,
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


_on_demand = partial(Deployment, every=None, parameters={"request": {"requested_by": "Prefect"}})
"""Work for a form alone. Prefect knows no accounts: whoever types no name is recorded as Prefect."""

_pass = partial(
    Deployment,
    tags=(HOUSEKEEPING_TAG,),
    collision_strategy="CANCEL_NEW",
    work_queue=stack_state.MAINTENANCE_QUEUE,
    starts_within_seconds=60,
)
"""Short work for the maintenance worker: one run at a time, none waits."""

_ON_DEMAND = _on_demand(
    entrypoint="flows.retrain.retrain",
    name="on-demand",
    description="Retrain any model on any market, with or without a schedule.",
    tags=(RETRAIN_TAG,),
    max_runs=None,
)

_TUNE = _on_demand(
    entrypoint="flows.tune.tune",
    name="tune",
    description="Search for better training parameters of a model; requires the extra evolve.",
    tags=(SEARCH_TAG,),
    max_runs=1,
)

_EVOLVE = _on_demand(
    entrypoint="flows.evolve.evolve",
    name="evolve",
    description="Breed better training parameters of a model; proposes, and trains nothing.",
    tags=(SEARCH_TAG,),
    max_runs=1,
)

_CANDIDATES = Deployment(
    entrypoint="flows.candidates.candidates",
    name="candidates",
    description="Evaluate the oldest candidates that wait, a bounded number an hour.",
    every=timedelta(hours=1),
    tags=(HOUSEKEEPING_TAG,),
    # training takes long: the maintenance worker stays free, and a run under way is not repeated
    max_runs=1,
    collision_strategy="CANCEL_NEW",
)

_EVOLVE_STRATEGIES = _on_demand(
    entrypoint="flows.evolve_strategies.evolve_strategies",
    name="evolve-strategies",
    description="Evolve rule strategies by several objectives; proposes, and trains nothing.",
    tags=(SEARCH_TAG,),
    max_runs=1,
)

_REPLAY = Deployment(
    entrypoint="flows.replay.replay",
    name="replay",
    description="Replay a stretch of the past under the rules of continuous learning; changes nothing.",
    every=None,
    tags=(SEARCH_TAG,),
    max_runs=1,
)

SEARCHES = (_TUNE, _EVOLVE, _EVOLVE_STRATEGIES)

_APPROVE = Deployment(
    entrypoint="flows.approve.approve",
    name="approve",
    description="Ask a person about a promotion earned in shadow; the shadow pass creates the runs.",
    every=None,
    # a suspended run has no process; the answer must not wait for the end of a retrain
    max_runs=None,
    work_queue=stack_state.MAINTENANCE_QUEUE,
)

_DISPATCH = _pass(
    entrypoint="flows.dispatch.dispatch",
    name="dispatch",
    description="Answer waiting messages and start waiting jobs; events in Prefect start a run.",
    every=None,
    # an event that arrives during a run is answered by the next maintenance pass
    events=tuple(each.value for each in IncomingType),
)

AFTER_A_BAR = timedelta(seconds=20)
"""Delay of the fetch after the close of a bar."""
AFTER_A_FETCH = timedelta(minutes=2)
"""Delay of the shadow pass after the close of a bar; most fetches are complete by then."""


def _fetch(universe: Sequence[Market]) -> Iterator[Deployment]:
    """One deployment for all markets that name an exchange, at the interval of the shortest timeframe."""
    lengths = [Timeframe(market.timeframe).seconds for market in universe if market.is_fetched]
    if lengths:
        yield _pass(
            entrypoint="flows.fetch.fetch",
            name="fetch",
            description="Fetch the closed bars of every market of the universe that names an exchange.",
            every=timedelta(seconds=min(lengths)),
            offset=AFTER_A_BAR,
        )


_MAINTENANCE = _pass(
    entrypoint="flows.maintenance.maintenance",
    name="maintenance",
    description="Repair unfinished changes, verify production versions, deliver events and alerts.",
    every=timedelta(minutes=1),
)

_WATCH = _pass(
    entrypoint="flows.watch.watch",
    name="watch",
    description="Check the production versions on the newest bars; request retrains of stale or weak models.",
    every=timedelta(hours=1),
)


def _shadows(universe: Sequence[Market | PoolSettings]) -> Iterator[Deployment]:
    """A deployment for each timeframe of universe and pools, after the close and the fetch of the bars."""
    timeframes = {market.timeframe for market in universe}
    for timeframe in (each for each in Timeframe if each in timeframes):
        every = timedelta(seconds=timeframe.seconds)
        yield _pass(
            entrypoint="flows.shadow.shadow",
            name=f"shadow-{timeframe}",
            description=f"Record the positions of candidate versions after each bar of {timeframe}.",
            every=every,
            offset=min(AFTER_A_FETCH, every * 3 / 4),
            parameters={"timeframe": timeframe.value},
        )


@dataclass(frozen=True)
class DeployResult:
    """Names of the deployments by the change that a deploy made."""

    created: tuple[str, ...]
    updated: tuple[str, ...]
    unchanged: tuple[str, ...]
    paused: tuple[str, ...]
    """Deployments removed from the settings."""
    warnings: tuple[str, ...] = ()
    """Sentences about parts that a deploy left unchanged."""


def target_deployments(settings: Settings, has_loop: bool = False) -> list[Deployment]:
    """All deployments of an installation with the given settings.

    Args:
        has_loop: True where the loop of `clm up` makes the maintenance passes, which have no schedule then.

    Raises:
        ModelError: the universe names a kind of model that is not installed.
    """
    retrains = [_retrain(market, kind) for market in settings.universe for kind in _kinds(market)]
    retrains += [
        _retrain_pool(name, pool, kind) for name, pool in settings.pools.items() for kind in _kinds(pool)
    ]
    fetch = _fetch(settings.universe)
    shadows = _shadows([*settings.universe, *settings.pools.values()])
    return [
        *retrains,
        _ON_DEMAND,
        *SEARCHES,
        _REPLAY,
        _CANDIDATES,
        _APPROVE,
        _DISPATCH,
        *fetch,
        replace(_MAINTENANCE, every=None) if has_loop else _MAINTENANCE,
        _WATCH,
        *shadows,
    ]


def with_offered_symbols(
    deployments: Sequence[Deployment], settings: Settings
) -> tuple[list[Deployment], tuple[str, ...]]:
    """Deployments whose launch forms offer the markets of the home; that of a retrain offers the pools, too.

    Returns:
        The deployments, and a sentence if the bars cannot be read.
    """
    try:
        stored = {info.symbol for info in market_data(settings.home, settings.storage).series()}
    except CLMError as error:
        return list(deployments), (f"the launch forms offer no symbols: {error}",)
    markets = stored | {normalise_symbol(market.symbol) for market in settings.universe}
    offered = {each.name: tuple(sorted(markets)) for each in (*SEARCHES, _REPLAY)}
    offered[_ON_DEMAND.name] = (*sorted(markets), *sorted(settings.pools))
    return [replace(each, offered_symbols=offered.get(each.name, ())) for each in deployments], ()


def prefect_yaml(settings: Settings) -> dict[str, Any]:
    """Content of `prefect.yaml` for `prefect deploy --all`; PREFECT_DEFAULT_WORK_POOL_NAME names the pool."""
    return {
        "name": "clm",
        "deployments": [
            each.definition() | {"version": _version(each, settings)} for each in target_deployments(settings)
        ],
    }


def deploy(settings: Settings) -> DeployResult:
    """Bring the deployments of the Prefect server in the environment in line with the settings.

    An unchanged deployment keeps the scheduled runs. A deployment or a schedule that a person paused stays
    paused, also where the definition has changed.

    Raises:
        ServerUnavailable: no Prefect server is known, or it does not answer.
        SettingsError: a job variable does not exist in a process pool.
    """
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    if not PREFECT_API_URL.value():
        # Prefect would start a temporary server, and forget the deployments with it
        raise ServerUnavailable("No Prefect server is known: run `clm up`, or set PREFECT_API_URL.")
    try:
        with get_client(sync_client=True) as client:
            warnings = ensure_work_pool(client, settings)
            _ensure_automations(client)
            _ensure_saved_searches(client)
            configured = target_deployments(settings, _is_of_stack(settings.home, PREFECT_API_URL.value()))
            targets, unread = with_offered_symbols(configured, settings)
            return replace(_deploy_all(client, settings, targets), warnings=(*warnings, *unread))
    except httpx.TransportError as error:
        raise ServerUnavailable(
            f"Prefect does not answer at {client.api_url}: run `clm up`, or set PREFECT_API_URL."
        ) from error


def _is_of_stack(home: Path, url: str) -> bool:
    """True for the Prefect server of a running `clm up`."""
    state = stack_state.running(home)
    return state is not None and state.prefect_api_url == url


def _retrain(market: Market, kind: Kind) -> Deployment:
    request = RetrainRequest(
        model_type=kind.model_type,
        plugin=kind.plugin,
        symbol=market.symbol,
        timeframe=market.timeframe,
        dataset_span_days=market.dataset_span_days,
        requested_by="Prefect",
    )
    return _retrain_of(request, f"Retrain {kind} on {market.symbol} {market.timeframe}, and judge it.")


def _retrain_pool(name: str, pool: PoolSettings, kind: Kind) -> Deployment:
    """
    Raises:
        ModelError: the kind of model cannot fit one model to several symbols.
    """
    catalog.require_pooling(*kind)
    request = RetrainRequest(
        model_type=kind.model_type,
        plugin=kind.plugin,
        symbol=name,
        symbols=pool.symbols,
        timeframe=pool.timeframe,
        dataset_span_days=pool.dataset_span_days,
        requested_by="Prefect",
    )
    members = ", ".join(pool.symbols)
    return _retrain_of(
        request, f"Retrain one {kind} of {members} {pool.timeframe} as the pool {name}, and judge it."
    )


def _retrain_of(request: RetrainRequest, description: str) -> Deployment:
    kind = request.kind
    name = model_id(kind, request.symbol, request.timeframe)
    scheduled = request.model_copy(
        update={"trigger_reason": TriggerReason.PERIODIC, "requested_by": "schedule"}
    )
    return Deployment(
        entrypoint="flows.retrain.retrain",
        name=name,
        description=description,
        every=catalog.find_kind(*kind).retrain_every,
        parameters={"request": request.model_dump(mode="json")},
        scheduled_parameters={"request": scheduled.model_dump(mode="json")},
        tags=(RETRAIN_TAG, name, str(kind)),
    )


def _kinds(market: Market | PoolSettings) -> list[Kind]:
    plugins = [Kind(ModelType.OTHER, name) for name in market.plugins]
    if market.model_types is not None:
        return [*map(Kind, market.model_types), *plugins]
    scheduled = [each for each in catalog.kinds() if catalog.is_installed(each) and _is_scheduled(each)]
    return [*map(Kind, scheduled), *plugins]


def _is_scheduled(model_type: ModelType) -> bool:
    kind = catalog.declared(model_type)
    return kind is not None and kind.retrain_every is not None


def _deploy_all(
    client: "SyncPrefectClient", settings: Settings, targets: Sequence[Deployment]
) -> DeployResult:
    present = {deployment.name: deployment for deployment in _ours(client)}
    changes: dict[str, list[str]] = {"created": [], "updated": [], "unchanged": [], "paused": []}
    # removed deployments are paused first: a renamed pass must not run twice in a slot
    for name in sorted(present.keys() - {deployment.name for deployment in targets}):
        if present[name].version != REMOVED:
            _pause(client, present[name])
            changes["paused"].append(name)

    @cache
    def flow_id(entrypoint: str) -> UUID:
        return client.create_flow_from_name(_flow(entrypoint)[0].name)

    # the passes of an installation run while hundreds of retrains get their schedules
    for deployment in sorted(targets, key=lambda each: each.every is not None and RETRAIN_TAG in each.tags):
        deployed = present.get(deployment.name)
        version = _version(deployment, settings)
        if deployed is not None and deployed.version == version and _has_form(deployed, deployment):
            changes["unchanged"].append(deployment.name)
        else:
            _write(
                client,
                deployment,
                settings,
                version,
                flow_id(deployment.entrypoint),
                deployed,
            )
            changes["updated" if deployed else "created"].append(deployment.name)
    _drop_outdated_runs(client, {*changes["updated"], *changes["paused"]})
    return DeployResult(**{change: tuple(names) for change, names in changes.items()})


def _ours(client: "SyncPrefectClient") -> "list[DeploymentResponse]":
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags

    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=[DEPLOYMENTS_TAG]))
    return list(all_deployments(partial(client.read_deployments, deployment_filter=ours)))


def _version(deployment: Deployment, settings: Settings) -> str:
    """Digest of all that `clm deploy` and `prefect deploy` write, but for the launch form.

    `prefect.yaml` holds the same digest, so that neither command undoes the work of the other.
    """
    facts = [deployment.definition(), settings.deploy.model_dump(mode="json")]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _has_form(deployed: "DeploymentResponse", deployment: Deployment) -> bool:
    return bool(deployed.parameter_openapi_schema == _form(deployment))


@cache
def _flow(entrypoint: str) -> "tuple[Flow[..., Any], dict[str, Any]]":
    """The flow, and the JSON schema of the parameters."""
    from prefect.flows import load_flow_from_entrypoint
    from prefect.utilities.callables import parameter_schema

    flow: Flow[..., Any] = load_flow_from_entrypoint(entrypoint)
    return flow, parameter_schema(flow.fn).model_dump(mode="json", exclude_unset=True)


def _form(deployment: Deployment) -> dict[str, Any]:
    """JSON schema of the parameters, from which Prefect draws the launch form."""
    schema = _flow(deployment.entrypoint)[1]
    if not deployment.offered_symbols:
        return schema
    schema = deepcopy(schema)
    for part in schema["definitions"].values():
        symbol = part.get("properties", {}).get("symbol")
        if symbol is not None:
            # the form shows a choice between both
            kinds = {"Known": {"enum": list(deployment.offered_symbols)}, "Other": {}}
            nothing = [each for each in symbol.get("anyOf", ()) if each.get("type") == "null"]
            symbol.pop("type", None)
            offered = [{"title": title, "type": "string", **kind} for title, kind in kinds.items()]
            symbol["anyOf"] = [*offered, *nothing]
    return schema


def _write(
    client: "SyncPrefectClient",
    deployment: Deployment,
    settings: Settings,
    version: str,
    flow_id: UUID,
    deployed: "DeploymentResponse | None" = None,
) -> None:
    """Create a deployment, or replace the deployed definition."""
    from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions

    options = ConcurrencyOptions(
        collision_strategy=ConcurrencyLimitStrategy(deployment.collision_strategy),
        grace_period_seconds=deployment.starts_within_seconds,
    )
    is_back = deployed is not None and deployed.version == REMOVED
    deployment_id = client.create_deployment(
        flow_id=flow_id,
        name=deployment.name,
        version=version,
        description=deployment.description,
        tags=[DEPLOYMENTS_TAG, *deployment.tags],
        parameters=deployment.parameters,
        parameter_openapi_schema=_form(deployment),
        enforce_parameter_schema=True,
        schedules=_schedules(deployment, deployed),
        concurrency_limit=deployment.max_runs,
        concurrency_options=None if deployment.max_runs is None else options,
        entrypoint=deployment.entrypoint,
        pull_steps=[],
        work_pool_name=settings.deploy.work_pool,
        work_queue_name=deployment.work_queue,
        job_variables=job_variables(settings),
        paused=False if is_back else None,
    )
    if deployment.events:
        _start_on_events(client, deployment, deployment_id)


def _start_on_events(client: "SyncPrefectClient", deployment: Deployment, deployment_id: UUID) -> None:
    from prefect.events.schemas.deployment_triggers import DeploymentEventTrigger

    client.delete_resource_owned_automations(f"prefect.deployment.{deployment_id}")
    trigger = DeploymentEventTrigger.model_validate(deployment.trigger())
    trigger.set_deployment_id(deployment_id)
    client.create_automation(trigger.as_automation())


def _schedules(deployment: Deployment, deployed: "DeploymentResponse | None") -> list[Any]:
    """Schedules to write, inactive where a person paused the deployed schedule of the same slug."""
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import IntervalSchedule

    if deployment.every is None:
        return []
    paused = {each.slug for each in deployed.schedules if not each.active} if deployed else set()
    schedule = IntervalSchedule(interval=deployment.every, anchor_date=deployment.anchor, timezone="UTC")
    return [
        DeploymentScheduleCreate(
            schedule=schedule,
            slug=SLUG,
            parameters=deployment.scheduled_parameters,
            active=SLUG not in paused,
        )
    ]


def _pause(client: "SyncPrefectClient", deployment: "DeploymentResponse") -> None:
    """Pause a deployment and delete the automation that starts runs on events."""
    from prefect.client.schemas.actions import DeploymentUpdate

    client.delete_resource_owned_automations(f"prefect.deployment.{deployment.id}")
    client.update_deployment(deployment.id, DeploymentUpdate(paused=True, version=REMOVED))


def _drop_outdated_runs(client: "SyncPrefectClient", changed: set[str]) -> None:
    """Delete scheduled runs made by a concurrent round of Prefect's scheduler from the old definition.

    Prefect deletes the future runs of a deployment on every write. A concurrent round of the scheduler
    may add runs of the old schedule: a slot would run twice, or a removed market would be retrained.
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
    """True for runs of a former schedule; runs due before the deployment was written still run."""
    schedules = {schedule.id for schedule in deployment.schedules}
    if not run.auto_scheduled or run.created_by is None or run.expected_start_time is None:
        return False
    if deployment.version == REMOVED:
        return True
    assert deployment.updated is not None
    return run.created_by.id not in schedules and run.expected_start_time > deployment.updated


SAVED_SEARCHES = {
    "CLM: retrains": RETRAIN_TAG,
    "CLM: tuning and evolution": SEARCH_TAG,
    "CLM: housekeeping": HOUSEKEEPING_TAG,
}
"""Filters of the page Runs of the Prefect UI by name, with the tag of the runs."""
SEARCHED_SECONDS = 7 * 86_400


def _ensure_saved_searches(client: "SyncPrefectClient") -> None:
    """Create the filters of the page Runs: without, the passes of each minute hide the retrains."""
    answer = client.request("POST", "/saved_searches/filter", json={"limit": 200})
    present = {each["name"] for each in answer.json()}
    for name, tag in SAVED_SEARCHES.items():
        if name not in present:
            filters = [
                _search_filter("tag", [tag]),
                _search_filter("range", {"type": "span", "seconds": -SEARCHED_SECONDS}),
            ]
            client.request("PUT", "/saved_searches/", json={"name": name, "filters": filters})


def _search_filter(name: str, value: Any) -> dict[str, Any]:
    """Filter in the form in which the Prefect UI stores its own."""
    return {"object": "flowRun", "property": name, "type": "", "operation": "", "value": value}


def _ensure_automations(client: "SyncPrefectClient") -> None:
    """Create the automations that crash the runs of a killed worker, which Prefect itself never ends.

    An automation of an earlier release is updated, and stays switched off where a person did so.
    """
    ends = {"Completed", "Failed", "Cancelled", "Crashed"}
    for automation in (
        _crash_runs(
            "CLM: end runs that give no sign of life",
            after="heartbeat",
            # a suspended run has no process until a person answers
            expect={"heartbeat", "Suspended", *ends},
            within=timedelta(seconds=75),
            message="No heartbeat for 75 s.",
        ),
        _crash_runs(
            "CLM: end runs that were taken and never started",
            after="Pending",
            expect={"Running", "Scheduled", "AwaitingRetry", *ends},
            within=timedelta(minutes=10),
            message="Assigned to a worker, and not started within 10 minutes.",
        ),
        _crash_runs_without_image(),
    ):
        present = client.read_automations_by_name(automation.name)
        if not present:
            client.create_automation(automation)
        for each in present:
            if _expected(each) != _expected(automation):
                automation.enabled = each.enabled
                client.update_automation(each.id, automation)


def _expected(automation: "AutomationCore") -> set[str]:
    """Events that the trigger of an automation waits for."""
    return set(getattr(automation.trigger, "expect", ()))


def _crash_runs_without_image() -> "AutomationCore":
    """Automation that crashes a run in Kubernetes whose image cannot be pulled, and which would wait."""
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    pods = {"prefect.resource.id": ["prefect.kubernetes.pod.*"], DIAGNOSIS: [NO_IMAGE]}
    return AutomationCore(
        name="CLM: end runs whose image cannot be pulled",
        trigger=EventTrigger(
            expect={f"{POD_EVENTS}pending"},
            match=ResourceSpecification(pods),
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[
            ChangeFlowRunState(
                name="Crashed", state=StateType.CRASHED, message=f"{NO_IMAGE}: see the events of the pod."
            )
        ],
    )


def _crash_runs(name: str, after: str, expect: set[str], within: timedelta, message: str) -> "AutomationCore":
    """Automation that crashes a run if no event of `expect` follows the event `after` within the time."""
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


def _shortened(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown} and {len(names) - NAMES_SHOWN} more"


def main(arguments: list[str]) -> int:
    show_deprecations()
    try:
        settings = load_settings()
        require_usable(settings)
        in_force = with_universe(settings)
        if "--yaml" in arguments:
            print(yaml.safe_dump(prefect_yaml(in_force), sort_keys=False, width=110), end="")
            return 0
        require_settings_of_stack(settings, deploys=True)
        result = asdict(deploy(in_force))
        if "--json" in arguments:
            print(json.dumps(result, indent=2))
        for change, names in () if "--json" in arguments else result.items():
            if names:
                print(f"{change}: {_shortened(names)}")
        record_deployed(settings)
    except CLMError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    collect_garbage_rarely()
    keep_files_private()
    sys.exit(main(sys.argv[1:]))
