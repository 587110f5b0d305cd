"""Files of a version below the reports of the home, fetched from MLflow where the home has none."""

from pathlib import Path

from clm_core.backtest import chart_library
from clm_core.domain.versions import ModelVersion
from clm_core.services import Services

TEAR_SHEET = ".html"
EQUITY_PICTURE = ".png"


def version_file(services: Services, version: ModelVersion, suffix: str = TEAR_SHEET) -> Path:
    """Path of the tear sheet or the picture of the equity curve.

    Raises:
        NotFound: the version has no such file.
        RegistryUnavailable: MLflow does not answer.
    """
    path = services.reports / version.model_id / f"{version.version}{suffix}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        chart_library.write_library(services.reports)
        services.registry.download(version.mlflow_run_id, f"report/{path.name}", path.parent)
    return path
