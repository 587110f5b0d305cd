"""MLflow's tables: creation by a single process at a time, and the most frequent reads and changes by SQL.

MLflow itself lets two migrations collide. The import of MLflow costs two seconds of processor time, too much
for a pass without work, and MLflow's client sends three to six queries where a single query has the answer.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping
from functools import cache
from uuid import UUID

from sqlalchemy import Connection, Engine, NullPool, TextClause, create_engine, func, select, text
from sqlalchemy.exc import DataError, IntegrityError, ProgrammingError, SQLAlchemyError

from clm_core.domain.errors import RegistryUnavailable
from clm_core.ledger.engine import pooled_engine
from clm_core.platform.locks import AdvisoryLock

IS_PROMPT_TAG = "mlflow.prompt.is_prompt"
"""Tag by which MLflow tells prompts from models: both are registered models."""

_TABLES = "clm.mlflow_tables"
"""Note of a pooled connection: the database has MLflow's tables."""

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

_RUN_AND_TAG = text("""
SELECT run_id, (SELECT value FROM model_version_tags AS tags
                WHERE (tags.name, tags.version, tags.key) = (versions.name, versions.version, :tag))
FROM model_versions AS versions
WHERE (name, version) = (:model_id, :number) AND current_stage <> 'Deleted_Internal'
""")

_TAGS = text("""
SELECT tags.key, tags.value FROM model_versions
LEFT JOIN model_version_tags AS tags USING (name, version)
WHERE (name, version) = (:model_id, :number) AND current_stage <> 'Deleted_Internal'
""")

_ALIASES = text("SELECT alias, version FROM registered_model_aliases WHERE name = :model_id")

_ALIASED = text("""
SELECT version FROM registered_model_aliases JOIN model_versions USING (name, version)
WHERE (name, alias) = (:model_id, :alias) AND current_stage <> 'Deleted_Internal'
""")

_LOCATION_BEHIND = text("""
SELECT coalesce(nullif(storage_location, ''), source) FROM registered_model_aliases
JOIN model_versions USING (name, version)
WHERE (name, alias) = (:model_id, :alias) AND current_stage <> 'Deleted_Internal'
""")

_IS_MODEL = text("""
SELECT EXISTS (SELECT FROM registered_models WHERE name = :model_id)
AND NOT EXISTS (SELECT FROM registered_model_tags WHERE (name, key) = (:model_id, :prompt))
""")

_ARTIFACTS = text("SELECT artifact_uri FROM runs WHERE run_uuid = :run_id")

_EXPERIMENT = text("SELECT experiment_id, artifact_location FROM experiments WHERE name = :name")

_NOTE_CREATOR = text("UPDATE model_versions SET user_id = :creator WHERE name = :name AND version = :version")

_SHOW_STATUS = text("""
WITH shown AS (
  UPDATE model_versions SET description = :description, last_updated_time = :now
  WHERE (name, version) = (:model_id, :number) AND current_stage <> 'Deleted_Internal'
  RETURNING workspace, name, version
)
INSERT INTO model_version_tags (workspace, name, version, key, value)
SELECT workspace, name, version, :tag, :status FROM shown
ON CONFLICT (workspace, key, name, version) DO UPDATE SET value = excluded.value
""")

_FINISH_LOGGED_MODEL = text("""
UPDATE logged_models SET status = :status, last_updated_timestamp_ms = :now WHERE model_id = :logged_model
""")

_FINISH_RUN = text("""
UPDATE runs SET status = :status, end_time = :now WHERE run_uuid = :run_id AND lifecycle_stage = 'active'
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


def note_creator(tracking_uri: str, model_id: str, number: int, creator: str) -> None:
    """Show a name in the column `Created by` of MLflow's pages, which MLflow's own client leaves empty.

    Raises:
        RegistryUnavailable: the database does not answer.
    """
    row = {"name": model_id, "version": number, "creator": creator[:256]}
    try:
        with engine_of(tracking_uri).begin() as connection:
            connection.execute(_NOTE_CREATOR, row)
    except SQLAlchemyError as error:
        raise RegistryUnavailable(
            f"MLflow's database could not note the creator of {model_id} {number}: {error}. Check the "
            "database server."
        ) from error


def show_status(
    tracking_uri: str, model_id: str, number: int, *, tag: str, status: str, description: str
) -> bool:
    """Show a status of a version in a tag, and the description, in a single statement.

    MLflow's client reads the version in a session of its own for each of the two, and all aliases of the
    model.

    Returns:
        False, with nothing written, for a version that is gone, and for a change that the tables refuse.

    Raises:
        RegistryUnavailable: the database does not answer.
    """
    change = {"model_id": model_id, "number": number, "tag": tag, "status": status}
    action = f"show the status of {model_id} {number}"
    return _changes_row(tracking_uri, _SHOW_STATUS, change | {"description": description}, action)


def finish_logged_model(tracking_uri: str, logged_model: str, status: int) -> bool:
    """Set the final status of a logged model, which MLflow's client reads with all parameters and metrics.

    Args:
        status: number of the status in MLflow.

    Returns:
        False, with nothing written, for a model that is gone.

    Raises:
        RegistryUnavailable: the database does not answer.
    """
    change = {"logged_model": logged_model, "status": status}
    return _changes_row(tracking_uri, _FINISH_LOGGED_MODEL, change, f"finish the model {logged_model}")


def finish_run(tracking_uri: str, run_id: str, status: str) -> bool:
    """Set the final status of a run, which MLflow's client reads twice with all figures.

    Args:
        status: name of the status in MLflow.

    Returns:
        False, with nothing written, for a run that is gone.

    Raises:
        RegistryUnavailable: the database does not answer.
    """
    change = {"run_id": run_id, "status": status}
    return _changes_row(tracking_uri, _FINISH_RUN, change, f"finish the run {run_id}")


def _changes_row(tracking_uri: str, statement: TextClause, change: Mapping[str, object], action: str) -> bool:
    """True if a statement, given the time in milliseconds as `now`, changed a row."""
    try:
        with engine_of(tracking_uri).begin() as connection:
            changed: bool = (
                connection.execute(statement, {**change, "now": time.time_ns() // 10**6}).rowcount == 1
            )
    except (DataError, IntegrityError, ProgrammingError):
        return False
    except SQLAlchemyError as error:
        raise RegistryUnavailable(
            f"MLflow's database could not {action}: {error}. Check the database server."
        ) from error
    return changed


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
    with _reading(tracking_uri, "list open runs and versions") as connection:
        return (
            set() if connection is None else {UUID(job) for job in connection.scalars(_JOBS_LEFT_OPEN, names)}
        )


def run_and_tag(tracking_uri: str, model_id: str, number: int, tag: str) -> tuple[str, str | None] | None:
    """Run of a version and the value of a tag, read from the database without an import of MLflow.

    Returns:
        None for a version that was deleted or never existed; None as value of a tag that is not set.

    Raises:
        RegistryUnavailable: the database does not answer.
    """
    named = {"model_id": model_id, "number": number, "tag": tag}
    with _reading(tracking_uri, f"read {model_id} {number}") as connection:
        row = None if connection is None else connection.execute(_RUN_AND_TAG, named).one_or_none()
    return None if row is None else (row.run_id, row.value)


def tags_of(tracking_uri: str, model_id: str, number: int) -> dict[str, str] | None:
    """Tags of a version by name; None for a version that was deleted or never existed.

    Raises:
        RegistryUnavailable: the database does not answer.
    """
    named = {"model_id": model_id, "number": number}
    with _reading(tracking_uri, f"read {model_id} {number}") as connection:
        rows = [] if connection is None else connection.execute(_TAGS, named).all()
    return {row.key: row.value for row in rows if row.key is not None} if rows else None


def aliases_of(tracking_uri: str, model_id: str) -> dict[str, int]:
    """Number of the version behind each alias of a model; empty without such a model.

    MLflow's own answer reads all versions of the model.

    Raises:
        RegistryUnavailable: the database does not answer.
    """
    with _reading(tracking_uri, f"read the aliases of {model_id}") as connection:
        rows = [] if connection is None else connection.execute(_ALIASES, {"model_id": model_id}).all()
    return {alias: int(version) for alias, version in rows}


def number_behind(tracking_uri: str, model_id: str, alias: str) -> int | None:
    """Number of the version behind an alias; None without such an alias, model or version.

    Raises:
        RegistryUnavailable: the database does not answer.
    """
    named = {"model_id": model_id, "alias": alias}
    with _reading(tracking_uri, f"read the alias {alias} of {model_id}") as connection:
        number = None if connection is None else connection.scalar(_ALIASED, named)
    return None if number is None else int(number)


def location_behind(tracking_uri: str, model_id: str, alias: str) -> str | None:
    """Address of the files of the version behind an alias; None without such an alias, model or version.

    Raises:
        RegistryUnavailable: the database does not answer.
    """
    named = {"model_id": model_id, "alias": alias}
    with _reading(tracking_uri, f"read the files of {model_id}@{alias}") as connection:
        return None if connection is None else connection.scalar(_LOCATION_BEHIND, named)


def is_registered(tracking_uri: str, model_id: str) -> bool:
    """True for a registered model; False without one, and for a prompt of the name.

    MLflow's own answer reads the newest versions, tags and aliases of the model.

    Raises:
        RegistryUnavailable: the database does not answer.
    """
    named = {"model_id": model_id, "prompt": IS_PROMPT_TAG}
    with _reading(tracking_uri, f"look for {model_id}") as connection:
        return connection is not None and bool(connection.scalar(_IS_MODEL, named))


def artifacts_of(tracking_uri: str, run_id: str) -> str | None:
    """Address of the artifacts of a run; None without such a run.

    MLflow's own answer reads the parameters, metrics, tags and data of the run.

    Raises:
        RegistryUnavailable: the database does not answer.
    """
    with _reading(tracking_uri, f"read run {run_id}") as connection:
        return None if connection is None else connection.scalar(_ARTIFACTS, {"run_id": run_id})


def experiment_named(tracking_uri: str, name: str) -> tuple[str, str] | None:
    """Id of an experiment and the address of its artifacts; None without such an experiment.

    Raises:
        RegistryUnavailable: the database does not answer.
    """
    with _reading(tracking_uri, f"look for the experiment {name}") as connection:
        rows = [] if connection is None else connection.execute(_EXPERIMENT, {"name": name}).all()
    return (str(rows[0].experiment_id), rows[0].artifact_location) if len(rows) == 1 else None


@contextlib.contextmanager
def _reading(tracking_uri: str, action: str) -> Iterator[Connection | None]:
    """Connection to MLflow's database; None before the first registration, which makes the tables."""
    try:
        with engine_of(tracking_uri).connect() as connection:
            yield connection if _has_tables(connection) else None
    except SQLAlchemyError as error:
        raise RegistryUnavailable(
            f"MLflow's database could not {action}: {error}. Check the database server."
        ) from error


def _has_tables(connection: Connection) -> bool:
    """True if the database has MLflow's tables, asked until a connection of the pool has seen them."""
    known: dict[str, bool] = connection.info
    if not known.get(_TABLES, False):
        known[_TABLES] = connection.scalar(text("SELECT to_regclass('model_version_tags')")) is not None
    return known[_TABLES]


@cache
def engine_of(tracking_uri: str) -> Engine:
    """Engine of MLflow's database for this process; a promotion reads four times."""
    return pooled_engine(tracking_uri, kept=1)
