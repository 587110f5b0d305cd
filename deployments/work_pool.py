"""Work pool of the deployments.

The base job template of a process pool fixes the command, the environment and the folder of every run as the
settings name them. Prefect validates the job variables of deployments and runs against the template, and a
worker takes command and environment from the template: a request to Prefect's API that names a command of its
own is refused. In a docker or kubernetes pool the template stays as Prefect makes it, since runs are confined
there by the image and the cluster.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from clm_core.domain.errors import SettingsError
from clm_core.platform.prefect_runs import DEPLOYMENTS_TAG, MAX_PAGE
from clm_core.settings import Settings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

PROCESS = "process"
COMMAND = "python -P -m clm_core.platform.run_engine"
"""Command of a worker for a run; the code is installed, so nothing has to be fetched."""
PROCESS_VARIABLES = ("command", "env", "labels", "name", "stream_output", "working_dir")


def job_variables(settings: Settings) -> dict[str, Any]:
    """Job variables of every deployment."""
    return {"command": COMMAND} | settings.deploy.job_variables


def process_template(settings: Settings) -> dict[str, Any]:
    """Base job template that admits the job variables of the settings and no others.

    Raises:
        SettingsError: a job variable does not exist in a process pool.
    """
    fixed = job_variables(settings)
    if unknown := [name for name in fixed if name.partition(".")[0] not in PROCESS_VARIABLES]:
        raise SettingsError(
            f"deploy.job_variables: a process pool knows no {', '.join(sorted(unknown))}; valid are "
            f"{', '.join(PROCESS_VARIABLES)}."
        )
    return {
        # without an entry, `env` cannot be set from outside
        "job_configuration": _nested(fixed),
        "variables": {
            "type": "object",
            "properties": {name: {"enum": [value]} for name, value in fixed.items()},
            "additionalProperties": False,
        },
    }


def ensure_work_pool(client: "SyncPrefectClient", settings: Settings) -> tuple[str, ...]:
    """Create a missing work pool, and fix the template of a process pool.

    Returns:
        A sentence if the pool stays open to other commands.
    """
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectAlreadyExists

    name = settings.deploy.work_pool
    pool_type = settings.deploy.work_pool_type
    template = process_template(settings) if pool_type == PROCESS else {}
    try:
        client.create_work_pool(WorkPoolCreate(name=name, type=pool_type, base_job_template=template))
    except ObjectAlreadyExists:
        pool = client.read_work_pool(name)
        if pool.type != PROCESS or pool_type != PROCESS or pool.base_job_template == template:
            return ()
        if foreign := _foreign_deployments(client, name):
            return (
                f"work pool {name} also runs {', '.join(foreign)}, so runs may name commands of their own: "
                "set deploy.work_pool to a pool that only CLM uses",
            )
        client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))
    return ()


def _nested(variables: dict[str, Any]) -> dict[str, Any]:
    """Variables with `env.NAME` below `env`, as Prefect understands both."""
    nested = dict[str, Any]()
    for name, value in variables.items():
        group, _, inner = name.partition(".")
        nested[group] = nested.get(group, {}) | {inner: value} if inner else value
    return nested


def _foreign_deployments(client: "SyncPrefectClient", pool: str) -> list[str]:
    from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterName

    in_pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[pool]))
    deployments = all_deployments(partial(client.read_deployments, work_pool_filter=in_pool))
    return sorted(each.name for each in deployments if DEPLOYMENTS_TAG not in each.tags)


def all_deployments(read: "Callable[..., list[DeploymentResponse]]") -> "Iterator[DeploymentResponse]":
    """All deployments of a filter; Prefect gives out 200 at a time."""
    for offset in count(0, MAX_PAGE):
        page = read(limit=MAX_PAGE, offset=offset)
        yield from page
        if len(page) < MAX_PAGE:
            return
