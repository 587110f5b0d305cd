from prefect.runtime import deployment

from clm_core.domain.actors import FORM, Actor


def actor_of_run() -> Actor | None:
    """Actor of the request of a run: Prefect, which knows no accounts, for a run of a deployment; None in a
    terminal, where the requester is the user of the machine."""
    return FORM if deployment.name else None
