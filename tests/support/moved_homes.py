"""Homes opened at a path, quick retrains in them, and the locations that MLflow stores."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from pydantic import SecretStr

from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.training_settings import TrainingPlace, TrainingSettings
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelType
from clm_core.platform.database import Database
from clm_core.retraining import jobs, steps
from clm_core.services import Services, open_services
from clm_core.settings import Settings

MODEL = "lightgbm_eurusd_1h"


@contextmanager
def opened(home: Path, server: Database | None = None) -> Iterator[Services]:
    url = None if server is None else SecretStr(server.server)
    with open_services(
        Settings(home=home, database_url=url, training=TrainingSettings(where=TrainingPlace.INLINE))
    ) as services:
        yield services


def retrain(services: Services, seed: int) -> ModelVersion:
    """A registered version with a file attached to the version's run, without walk-forward and verdict."""
    request = RetrainRequest(
        model_type=ModelType.LIGHTGBM,
        symbol="EURUSD",
        dataset_span_days=90,
        training_params={"rounds": 2},
        seed=seed,
        requested_by="tests",
    )
    job = jobs.open_job(services, request)
    with jobs.running(services, job) as lease:
        bars = steps.fetch_bars(services, job)
        registered = steps.register(services, lease, job, bars, steps.train(services, job, bars))
    sheet = services.reports / f"{seed}.html"
    sheet.parent.mkdir(exist_ok=True)
    sheet.write_text("a tear sheet")
    services.registry.attach(registered.mlflow_run_id, [sheet], "report")
    return registered


def locations(database: Database) -> set[str]:
    """Every text in MLflow's tables that contains a path of an artifact."""
    texts = set[str]()
    with psycopg.connect(database.url("mlflow").replace("+psycopg", "")) as connection:
        columns = connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
        ).fetchall()
        for table, column in columns:
            rows = connection.execute(
                f'SELECT DISTINCT "{column}"::text FROM "{table}" '  # type: ignore[arg-type]
                f"WHERE \"{column}\"::text LIKE '%/mlflow/artifacts%'"
            )
            texts |= {text for (text,) in rows}
    return texts
