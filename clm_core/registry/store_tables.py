"""MLflow's tables: creation by one process at a time, and the query of every maintenance pass.

MLflow itself lets two migrations collide. The import of MLflow costs two seconds of processor time, which a
pass without work need not spend.
"""

import contextlib
from collections.abc import Iterator
from uuid import UUID

from sqlalchemy import NullPool, create_engine, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from clm_core.domain.errors import RegistryUnavailable
from clm_core.platform.locks import AdvisoryLock

_JOBS_LEFT_OPEN = text("""
SELECT job.value FROM runs
JOIN experiments USING (experiment_id)
JOIN tags AS job ON job.run_uuid = runs.run_uuid AND job.key = :job_tag
WHERE experiments.name = :experiment AND runs.status = 'RUNNING' AND runs.lifecycle_stage = 'active'
UNION
SELECT job.value FROM model_versions
JOIN model_version_tags AS status USING (name, version)
JOIN model_version_tags AS job USING (name, version)
WHERE status.key = :status_tag AND status.value = :unjudged AND job.key = :job_tag
AND model_versions.current_stage <> 'Deleted_Internal'
""")


@contextlib.contextmanager
def creating_tables(tracking_uri: str) -> Iterator[None]:
    """Exclusive right to open MLflow's store, which creates or migrates its tables.

    Args:
        tracking_uri: the database, or the address of a server, which creates its tables itself.
    """
    if not is_database(tracking_uri):
        yield
        return
    engine = create_engine(tracking_uri, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as lock:
        lock.execute(select(func.pg_advisory_lock(AdvisoryLock.MLFLOW_TABLES)))
        yield


def is_database(tracking_uri: str) -> bool:
    """True for a database, False for the address of a server."""
    return tracking_uri.startswith("postgresql")


def jobs_left_open(
    tracking_uri: str, *, experiment: str, job_tag: str, status_tag: str, unjudged: str
) -> set[UUID]:
    """Jobs with an open run or an unjudged version, read from the database without an import of MLflow.

    Args:
        experiment: name of the experiment of the runs.
        unjudged: value of the status tag of a version without a verdict.

    Raises:
        RegistryUnavailable: the database does not answer.
    """
    names = {"experiment": experiment, "job_tag": job_tag, "status_tag": status_tag, "unjudged": unjudged}
    engine = create_engine(tracking_uri, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            if connection.scalar(text("SELECT to_regclass('model_version_tags')")) is None:
                # before the first registration
                return set()
            return {UUID(job) for job in connection.scalars(_JOBS_LEFT_OPEN, names)}
    except SQLAlchemyError as error:
        raise RegistryUnavailable(
            f"MLflow's database could not list open runs and versions: {error}. Check the database server."
        ) from error
