"""MLflow's pages and API over our database: `python -m clm_core.registry.server PORT`.

The server is a single process that imports MLflow once; `mlflow server` starts three processes, with twice
the memory and twice the start-up time. Configured by the variables of `mlflow server`:
MLFLOW_BACKEND_STORE_URI and MLFLOW_DEFAULT_ARTIFACT_ROOT.
"""

import os
import sys

from clm_core.platform.private_files import keep_files_private


def main(port: int) -> None:
    import uvicorn
    from mlflow.server import constants
    from mlflow.server.handlers import initialize_backend_stores

    uri = os.environ["MLFLOW_BACKEND_STORE_URI"]
    artifacts = os.environ["MLFLOW_DEFAULT_ARTIFACT_ROOT"]
    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: uri,
        constants.REGISTRY_STORE_URI_ENV_VAR: uri,
        constants.ARTIFACT_ROOT_ENV_VAR: artifacts,
    }
    initialize_backend_stores(uri, uri, artifacts)
    # imported last, since the module reads the environment at its import
    from mlflow.server.fastapi_app import app

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    keep_files_private()
    main(int(sys.argv[1]))
