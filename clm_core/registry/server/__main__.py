"""MLflow's pages and API over our database, behind the guard.

`python -m clm_core.registry.server PORT [ADDRESS]` listens on 127.0.0.1 by default.

The server is a single process that imports MLflow once; `mlflow server` starts three processes, with twice
the memory and twice the start-up time. Configured by CLM's settings and by MLFLOW_BACKEND_STORE_URI.
"""

import os
import sys
from typing import Any

from clm_core.platform.garbage_collection import collect_garbage_rarely, return_memory_after_start
from clm_core.platform.private_files import keep_files_private
from clm_core.registry.locations import artifacts_folder, artifacts_location
from clm_core.registry.mlflow_webhooks import webhook_variables
from clm_core.registry.server.app import create_app
from clm_core.registry.store_tables import creating_tables
from clm_core.settings import load_settings


def main(port: int, address: str = "127.0.0.1") -> None:
    settings = load_settings()
    # MLflow's modules read the key at their import
    os.environ |= webhook_variables(settings.home)

    import uvicorn
    from mlflow.server import constants, handlers

    uri = os.environ["MLFLOW_BACKEND_STORE_URI"]
    folder = str(artifacts_folder(settings.home).absolute())
    artifacts = artifacts_location(settings.home, settings.storage) if settings.storage.url else folder
    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: uri,
        constants.REGISTRY_STORE_URI_ENV_VAR: uri,
        constants.ARTIFACT_ROOT_ENV_VAR: artifacts,
    }
    # a command may create the tables at the same moment
    with creating_tables(uri):
        handlers.initialize_backend_stores(uri, uri, artifacts)
    # sessions of PostgreSQL that described all tables for the migrations take 6 MB more than new ones
    stores: list[Any] = [handlers._get_tracking_store(), handlers._get_model_registry_store()]
    for store in stores:
        store.engine.dispose()
    uvicorn.run(create_app(), host=address, port=port, log_level="warning", server_header=False)


if __name__ == "__main__":
    collect_garbage_rarely()
    keep_files_private()
    return_memory_after_start()
    main(int(sys.argv[1]), *sys.argv[2:])
