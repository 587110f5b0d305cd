"""MLflow's pages and API over our database: `python -m clm_core.registry.server PORT`.

One process with one import of MLflow: `mlflow server` takes three, twice the memory and twice as long.
Told by the environment, as `mlflow server` is: MLFLOW_BACKEND_STORE_URI, MLFLOW_DEFAULT_ARTIFACT_ROOT.
"""

import os
import sys


def main(port: int) -> None:
    import uvicorn
    from mlflow.server import constants
    from mlflow.server.handlers import initialize_backend_stores

    uri, artifacts = os.environ["MLFLOW_BACKEND_STORE_URI"], os.environ["MLFLOW_DEFAULT_ARTIFACT_ROOT"]
    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: uri,
        constants.REGISTRY_STORE_URI_ENV_VAR: uri,
        constants.ARTIFACT_ROOT_ENV_VAR: artifacts,
    }
    initialize_backend_stores(uri, uri, artifacts)
    # imported now: it reads the environment
    from mlflow.server.fastapi_app import app

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main(int(sys.argv[1]))
