from clm_core.domain.actors import FORM, Actor
from clm_core.platform.flow_run import current_run


def deployment_of_run() -> str | None:
    """Name of the deployment of the run; None in a terminal."""
    if current_run() is None:
        return None
    from prefect.runtime import deployment

    name: str | None = deployment.name
    return name


def actor_of_run() -> Actor | None:
    """Actor of the request of a run: Prefect, which knows no accounts, for a run of a deployment; None in a
    terminal, where the requester is the user of the machine."""
    return None if deployment_of_run() is None else FORM
