from uuid import UUID

from clm_core.domain.actors import FORM, Actor
from clm_core.platform.flow_run import current_run


def deployment_of_run() -> str | None:
    """Name of the deployment of the run; None in a terminal."""
    deployment = _deployment()
    if deployment is None:
        return None
    from prefect import get_client

    with get_client(sync_client=True) as client:
        return client.read_deployment(deployment).name


def actor_of_run() -> Actor | None:
    """Actor of the request of a run: Prefect, which knows no accounts, for a run of a deployment; None in a
    terminal, where the requester is the user of the machine."""
    return None if _deployment() is None else FORM


def _deployment() -> UUID | None:
    run = current_run()
    return None if run is None else run.deployment_id
