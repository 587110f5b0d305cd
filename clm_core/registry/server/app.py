"""MLflow's application behind the guard, over the database of an installation.

`create_app` is the entry point `clm` of `mlflow.app`: `mlflow server --app-name clm` has the same lock as the
server of `clm up`.
"""

import os

from sqlalchemy import Engine
from starlette.types import ASGIApp

from clm_core.backtest import chart_library
from clm_core.domain.errors import DatabaseUnavailable
from clm_core.ledger.engine import open_engine
from clm_core.ledger.store import Ledger
from clm_core.platform.database import sibling
from clm_core.platform.rate_limits import RateLimits
from clm_core.platform.stack_state import PREFECT_USER, prefect_auth
from clm_core.registry import serving_rights
from clm_core.registry.locations import artifacts_folder, artifacts_location
from clm_core.registry.mlflow_registry import MLflowRegistry
from clm_core.registry.server.guard import Guard, Records
from clm_core.registry.server.logins import Logins
from clm_core.settings import Settings, load_settings


class StoredOwners:
    """Experiments of MLflow's database."""

    def __init__(self, uri: str) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient(uri, uri)

    def experiment(self, experiment_id: str) -> str | None:
        from mlflow.exceptions import MlflowException

        try:
            return str(self._client.get_experiment(experiment_id).name)
        except MlflowException:
            return None

    def experiment_of_run(self, run_id: str) -> str | None:
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(run_id)
        except MlflowException:
            return None
        return self.experiment(run.info.experiment_id)


def create_app() -> ASGIApp:
    """Application for an ASGI server such as uvicorn, configured by the variables of `mlflow server`.

    Raises:
        DatabaseUnavailable: MLflow's database is not the database of an installation of CLM.
    """
    from mlflow.server import constants

    settings = load_settings()
    uri = os.environ.get(constants.BACKEND_STORE_URI_ENV_VAR, "")
    ledger_url = sibling(uri, of="mlflow", name="ledger")
    if ledger_url is None:
        raise DatabaseUnavailable(
            "The backend store of MLflow is no database of CLM: start the server by "
            "`clm exec -- mlflow server --app-name clm`."
        )
    return guarded(settings, uri, open_engine(ledger_url))


def guarded(settings: Settings, uri: str, ledger_engine: Engine) -> Guard:
    """MLflow's application behind the guard.

    Args:
        uri: URL of MLflow's database.
        ledger_engine: connections to the ledger, closed by the caller.
    """
    from mlflow.server import constants
    from mlflow.server.security_utils import is_allowed_host_header

    from clm_core.registry.server.artifacts import Presented, confine

    root = artifacts_folder(settings.home).absolute()
    location = artifacts_location(settings.home, settings.storage)
    os.environ |= {
        constants.ARTIFACT_ROOT_ENV_VAR: location if settings.storage.url else str(root),
        constants.ARTIFACTS_DESTINATION_ENV_VAR: location,
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
    }
    confine(root, settings.storage)
    # imported last, since the module reads the environment at its import
    from mlflow.server.fastapi_app import app
    from mlflow.server.fastapi_security import get_allowed_hosts

    ledger = Ledger(ledger_engine)
    # no storage: the server asks for aliases alone, and a registry with a bucket would lift the confinement
    registry = MLflowRegistry(uri, root)
    hosts = get_allowed_hosts()
    limits = settings.api
    return Guard(
        app,
        Logins(
            prefect_auth(settings.home).removeprefix(f"{PREFECT_USER}:"),
            ledger.tokens,
            RateLimits(limits.failed_logins_per_minute, limits.writes_per_minute),
            ledger.now,
        ),
        Records(
            alias_refusal=lambda model_id, number: serving_rights.alias_refusal(ledger, model_id, number),
            loading_advice=lambda digest: serving_rights.loading_advice(
                ledger, digest, lambda model_id: registry.aliased(model_id, serving_rights.PRODUCTION)
            ),
            serving_record=lambda model_id, number: serving_rights.serving_record(ledger, model_id, number),
            halt_sentence=lambda model_id: serving_rights.halt_sentence(ledger, model_id),
            owners=StoredOwners(uri),
        ),
        Presented(location if settings.storage.url else root),
        lambda page: chart_library.complete(page, settings.home / "reports"),
        lambda host: is_allowed_host_header(hosts, host),
    )
