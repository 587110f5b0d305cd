"""Question of a trader's process, before a version is loaded: may the bundle serve?

MLflow's address decides who is asked:

- MLflow's database of an installation: the ledger on the same server;
- MLflow's server of an installation: the server, with the same credentials;
- any other store, or nobody answers: the version is loaded as before, verified by its digest alone.
"""

import logging
from collections.abc import Callable
from http import HTTPStatus

from sqlalchemy.exc import SQLAlchemyError

from clm_core.platform.database import sibling
from clm_core.registry.serving_rights import PRODUCTION, LoadingAdvice, loading_advice

ADDRESS = "/clm/loading-advice"
"""Address of the question on MLflow's server."""
RECORD = "/clm/serving-record"
"""Address of the ledger's facts about a version on MLflow's server."""
HALT = "/clm/halt"
"""Address of the question whether a model is halted on MLflow's server."""
ANSWERED_WITHIN_SECONDS = 5

log = logging.getLogger("clm.serving")


def advice_on(bundle_digest: str, registry_uri: str) -> LoadingAdvice:
    """Advice of the ledger on loading a bundle.

    Args:
        registry_uri: address of MLflow's registry in this process.
    """
    from mlflow.exceptions import MlflowException

    ask = _source(registry_uri)
    if ask is None:
        return LoadingAdvice()
    try:
        return ask(bundle_digest)
    except (MlflowException, SQLAlchemyError, OSError, ValueError, KeyError) as error:
        # a trader goes on trading when the ledger is away
        log.warning("The version is loaded unasked, since the ledger does not answer: %s", error)
        return LoadingAdvice()


def _source(registry_uri: str) -> Callable[[str], LoadingAdvice] | None:
    if registry_uri.startswith(("http://", "https://")):
        return lambda bundle_digest: _of_server(bundle_digest, registry_uri)
    ledger_url = sibling(registry_uri, of="mlflow", name="ledger")
    if ledger_url is None:
        return None
    return lambda bundle_digest: _of_ledger(bundle_digest, registry_uri, ledger_url)


def _of_server(bundle_digest: str, registry_uri: str) -> LoadingAdvice:
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    answer = http_request(  # type: ignore[no-untyped-call]
        get_default_host_creds(registry_uri),  # type: ignore[no-untyped-call]
        ADDRESS,
        "GET",
        params={"bundle_digest": bundle_digest},
        timeout=ANSWERED_WITHIN_SECONDS,
        max_retries=1,
        raise_on_status=False,
    )
    if answer.status_code == HTTPStatus.NOT_FOUND:
        # MLflow's own server, without CLM's guard
        return LoadingAdvice()
    answer.raise_for_status()
    fields = answer.json()
    return LoadingAdvice(fields["refusal"], fields["warning"])


def _of_ledger(bundle_digest: str, registry_uri: str, ledger_url: str) -> LoadingAdvice:
    from sqlalchemy import make_url

    from clm_core.ledger.engine import open_engine
    from clm_core.ledger.store import Ledger

    seconds = str(ANSWERED_WITHIN_SECONDS)
    url = (
        make_url(ledger_url)
        .set(drivername="postgresql+psycopg")
        .update_query_dict({"connect_timeout": seconds})
    )
    engine = open_engine(url.render_as_string(hide_password=False))
    try:
        return loading_advice(
            Ledger(engine), bundle_digest, lambda model_id: _aliased(model_id, registry_uri)
        )
    finally:
        engine.dispose()


def _aliased(model_id: str, registry_uri: str) -> int | None:
    """MLflow's number of the production version; None without one."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(registry_uri, registry_uri)
    try:
        return int(client.get_model_version_by_alias(model_id, PRODUCTION).version)
    except MlflowException as error:
        if error.error_code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            raise
        return None
