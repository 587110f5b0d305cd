"""Runs at the request of a person, created in Prefect for a worker."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

from clm_core.domain.actors import Actor
from clm_core.domain.errors import NotFound, PrefectUnavailable, ServerUnavailable
from clm_core.platform.prefect_runs import CreatedRun, Run, RunState, prefect_runs
from clm_core.services import Services


def request_run(
    services: Services,
    flow: str,
    parameters: Mapping[str, Any],
    actor: Actor,
    *,
    subject: str | None = None,
    deployment: str | None = None,
    key: str | None = None,
) -> CreatedRun:
    """Create a run for a worker, and record the request in the audit.

    Args:
        subject: subject of the audit entry, a model id; by default the flow.
        deployment: deployment of the flow to prefer; by default the deployment named like the flow.
        key: name of the request; a repeated request finds the run created before.

    Raises:
        PrefectUnavailable: no Prefect server answers, or the server has no deployment of the flow.
    """
    try:
        with prefect_runs(services.settings.home) as prefect:
            deployments = prefect.deployments(flow)
            if not deployments:
                raise PrefectUnavailable(
                    f"Prefect has no deployment of the flow {flow}: `clm deploy` creates the deployments "
                    "of the markets in use."
                )
            name = deployment or flow
            chosen = deployments[name if name in deployments else min(deployments)]
            tags = [f"requested by {actor.name}"]
            run = prefect.start(chosen, parameters, key or str(uuid4()), tags)
    except ServerUnavailable as error:
        raise _no_server() from error
    details = {"flow": flow, "run_id": run.id, "parameters": run.parameters}
    services.ledger.record_requested_run(subject or flow, details, actor, services.clock())
    return run


def state_of(services: Services, run_id: UUID) -> Run:
    """State of a run.

    Raises:
        NotFound: Prefect knows of no such run.
        PrefectUnavailable: no Prefect server answers.
    """
    try:
        with prefect_runs(services.settings.home) as prefect:
            run = prefect.read([run_id])[run_id]
    except ServerUnavailable as error:
        raise _no_server() from error
    if run.state is RunState.MISSING:
        raise NotFound(f"Prefect knows of no run {run_id}: it never was, or was deleted.")
    return run


def _no_server() -> PrefectUnavailable:
    return PrefectUnavailable(
        "Prefect does not answer, and nothing was started: start `clm up`, or set PREFECT_API_URL for the "
        "API; then send the request again."
    )
