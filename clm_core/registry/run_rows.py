"""Figures and origin of a run, written into MLflow's tables by SQL.

MLflow's client opens four sessions for a batch, makes an object of each metric and sends a statement for each
row: 25 ms of processor time for the figures of a version. A batch that MLflow would check, cut or translate
is left to the client, and so is a run that MLflow would refuse.
"""

import math
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError, ProgrammingError, SQLAlchemyError

from clm_core.domain.errors import RegistryUnavailable
from clm_core.registry.store_tables import engine_of

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag

MAX_NAME = 250
"""Characters in the name of a metric, parameter or tag that MLflow's tables hold."""
MAX_VALUE = 5000
"""Characters in the value of a parameter or tag that MLflow stores without a cut."""
MAX_DATA_NAME = 500
"""Characters in the name of a dataset, and in the value of a tag of data."""
MAX_DIGEST = 36
"""Characters in the digest and the type of a dataset."""
MAX_SOURCE = 65535
"""Characters in the source of a dataset."""
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./\- ]*")
_OF_MLFLOW = "mlflow."
"""Beginning of the names of MLflow's own tags, some of which change the run as well."""

_ACTIVE = text("SELECT experiment_id FROM runs WHERE run_uuid = :run_id AND lifecycle_stage = 'active'")

_ADD_PARAMS = text("""
INSERT INTO params (run_uuid, key, value)
SELECT :run_id, key, value FROM unnest(CAST(:names AS text[]), CAST(:values AS text[])) AS given (key, value)
""")

_ADD_METRICS = text("""
INSERT INTO metrics (run_uuid, key, value, timestamp, step, is_nan)
SELECT :run_id, key, value, timestamp, step, FALSE
FROM unnest(CAST(:names AS text[]), CAST(:values AS float8[]), CAST(:times AS bigint[]),
            CAST(:steps AS bigint[])) AS given (key, value, timestamp, step)
ON CONFLICT DO NOTHING
""")

_ADD_LATEST = text("""
INSERT INTO latest_metrics AS latest (run_uuid, key, value, timestamp, step, is_nan)
SELECT :run_id, key, value, timestamp, step, FALSE
FROM unnest(CAST(:names AS text[]), CAST(:values AS float8[]), CAST(:times AS bigint[]),
            CAST(:steps AS bigint[])) AS given (key, value, timestamp, step)
ORDER BY key
ON CONFLICT (key, run_uuid) DO UPDATE
SET (value, timestamp, step, is_nan) = (excluded.value, excluded.timestamp, excluded.step, excluded.is_nan)
WHERE (excluded.step, excluded.timestamp, excluded.value) > (latest.step, latest.timestamp, latest.value)
""")

_ADD_MODEL_METRICS = text("""
INSERT INTO logged_model_metrics
  (model_id, metric_name, metric_timestamp_ms, metric_step, metric_value, experiment_id, run_id)
SELECT model_id, key, timestamp, step, value, :experiment_id, :run_id
FROM unnest(CAST(:models AS text[]), CAST(:names AS text[]), CAST(:values AS float8[]),
            CAST(:times AS bigint[]), CAST(:steps AS bigint[]))
  AS given (model_id, key, value, timestamp, step)
""")

_ADD_MODEL_PARAMS = text("""
INSERT INTO logged_model_params (model_id, experiment_id, param_key, param_value)
SELECT :model_id, :experiment_id, key, value
FROM unnest(CAST(:names AS text[]), CAST(:values AS text[])) AS given (key, value)
""")

_ADD_OUTPUT = text("""
INSERT INTO inputs (input_uuid, source_type, source_id, destination_type, destination_id)
VALUES (:input_id, 'RUN_OUTPUT', :run_id, 'MODEL_OUTPUT', :model_id)
""")

# an update to the same value: the row of a known dataset is answered too
_ADD_DATA = text("""
WITH dataset AS (
  INSERT INTO datasets
    (dataset_uuid, experiment_id, name, digest, dataset_source_type, dataset_source)
  VALUES (:dataset_id, :experiment_id, :name, :digest, :source_type, :source)
  ON CONFLICT (experiment_id, name, digest) DO UPDATE SET digest = excluded.digest
  RETURNING dataset_uuid
), input AS (
  INSERT INTO inputs (input_uuid, source_type, source_id, destination_type, destination_id)
  SELECT :input_id, 'DATASET', dataset_uuid, 'RUN', :run_id FROM dataset
  ON CONFLICT DO NOTHING
  RETURNING input_uuid
)
INSERT INTO input_tags (input_uuid, name, value)
SELECT input_uuid, given.name, given.value
FROM input, unnest(CAST(:names AS text[]), CAST(:values AS text[])) AS given (name, value)
""")

_SET_TAGS = text("""
INSERT INTO tags (run_uuid, key, value)
SELECT :run_id, key, value FROM unnest(CAST(:names AS text[]), CAST(:values AS text[])) AS given (key, value)
ORDER BY key
ON CONFLICT (key, run_uuid) DO UPDATE SET value = excluded.value
""")


@dataclass(frozen=True)
class RunOrigin:
    """Data of a run, and the logged model made by the run."""

    data: "DatasetInput"
    model_id: str
    """Id of the logged model."""
    params: "Sequence[Param]"
    """Parameters of the logged model."""


def write_batch(
    tracking_uri: str,
    run_id: str,
    metrics: "Sequence[Metric]",
    params: "Sequence[Param]",
    tags: "Sequence[RunTag]",
    origin: RunOrigin | None = None,
) -> bool:
    """Write the rows of MLflow's `log_batch` in a single transaction.

    Args:
        origin: None, or rows of `log_inputs`, `log_outputs` and `log_model_params`.

    Returns:
        False, with nothing written, for a batch or a run that is left to MLflow's client, and for tables of
        another form than those of this release.

    Raises:
        RegistryUnavailable: the database does not answer.
    """
    if not _is_plain(metrics, params, tags) or not (origin is None or _is_plain_origin(origin)):
        return False
    try:
        with engine_of(tracking_uri).begin() as connection:
            experiment_id = connection.scalar(_ACTIVE, {"run_id": run_id})
            if experiment_id is None:
                return False
            _write(connection, run_id, experiment_id, metrics, params, tags)
            if origin is not None:
                _write_origin(connection, run_id, experiment_id, origin)
    except (IntegrityError, ProgrammingError):
        return False
    except SQLAlchemyError as error:
        raise RegistryUnavailable(
            f"MLflow's database could not store the figures of run {run_id}: {error}. Check the database "
            "server."
        ) from error
    return True


def _write(
    connection: Connection,
    run_id: str,
    experiment_id: int,
    metrics: "Sequence[Metric]",
    params: "Sequence[Param]",
    tags: "Sequence[RunTag]",
) -> None:
    run = {"run_id": run_id}
    if params:
        connection.execute(_ADD_PARAMS, run | _named(params))
    if metrics:
        connection.execute(_ADD_METRICS, run | _measured(metrics))
        connection.execute(_ADD_LATEST, run | _measured(_latest(metrics)))
    of_models = [each for each in metrics if each.model_id is not None]
    if of_models:
        models = {"experiment_id": experiment_id, "models": [each.model_id for each in of_models]}
        connection.execute(_ADD_MODEL_METRICS, run | models | _measured(of_models))
    if tags:
        connection.execute(_SET_TAGS, run | _named(tags))


def _write_origin(connection: Connection, run_id: str, experiment_id: int, origin: RunOrigin) -> None:
    row = {"run_id": run_id, "experiment_id": experiment_id, "model_id": origin.model_id}
    if origin.params:
        connection.execute(_ADD_MODEL_PARAMS, row | _named(origin.params))
    connection.execute(_ADD_OUTPUT, row | {"input_id": uuid4().hex})
    dataset = origin.data.dataset
    data = {
        "dataset_id": uuid4().hex,
        "input_id": uuid4().hex,
        "name": dataset.name,
        "digest": dataset.digest,
        "source_type": dataset.source_type,
        "source": dataset.source,
    }
    connection.execute(_ADD_DATA, row | data | _named(origin.data.tags))


def _is_plain_origin(origin: RunOrigin) -> bool:
    """True for data and parameters that MLflow stores as given."""
    dataset = origin.data.dataset
    sizes = [
        (dataset.name, MAX_DATA_NAME),
        (dataset.digest, MAX_DIGEST),
        (dataset.source_type, MAX_DIGEST),
        (dataset.source, MAX_SOURCE),
    ]
    return (
        dataset.schema is None
        and dataset.profile is None
        and _is_plain((), origin.params, ())
        and all(0 < len(given) <= size and "\0" not in given for given, size in sizes)
        and all(len(tag.key) <= MAX_NAME and len(tag.value) <= MAX_DATA_NAME for tag in origin.data.tags)
        and not any("\0" in tag.key + tag.value for tag in origin.data.tags)
    )


def _is_plain(metrics: "Sequence[Metric]", params: "Sequence[Param]", tags: "Sequence[RunTag]") -> bool:
    """True for names, values and steps that MLflow stores as given."""
    named: list[Param | RunTag] = [*params, *tags]
    return (
        all(_is_plain_name(name) for name in {each.key for each in (*metrics, *named)})
        and all(len(group) == len({each.key for each in group}) for group in (params, tags))
        and all(isinstance(each.value, str) and len(each.value) <= MAX_VALUE for each in named)
        and not any("\0" in each.value or each.key.startswith(_OF_MLFLOW) for each in named)
        and all(type(each.value) in {int, float} and math.isfinite(each.value) for each in metrics)
    )


def _is_plain_name(name: str) -> bool:
    return (
        len(name) <= MAX_NAME and _PLAIN_NAME.fullmatch(name) is not None and posixpath.normpath(name) == name
    )


def _latest(metrics: "Sequence[Metric]") -> "list[Metric]":
    """Metric of each name with the greatest step, then time, then value."""
    latest: dict[str, Metric] = {}
    for metric in metrics:
        known = latest.get(metric.key)
        if known is None or _order(metric) > _order(known):
            latest[metric.key] = metric
    return list(latest.values())


def _order(metric: "Metric") -> tuple[int, int, float]:
    return metric.step, metric.timestamp, metric.value


def _named(items: "Sequence[Param] | Sequence[RunTag] | Sequence[InputTag]") -> dict[str, list[str]]:
    return {"names": [each.key for each in items], "values": [each.value for each in items]}


def _measured(metrics: "Sequence[Metric]") -> dict[str, list[str] | list[float] | list[int]]:
    return {
        "names": [each.key for each in metrics],
        "values": [float(each.value) for each in metrics],
        "times": [each.timestamp for each in metrics],
        "steps": [each.step for each in metrics],
    }
