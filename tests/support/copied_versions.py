"""Registered versions made by copying the rows and files of one that was registered in full.

A registration takes a quarter of a second of processor time in MLflow, and most tests need nothing but its
result. A copy has its own model, run, logged model and files, under names and ids of its own.
"""

import json
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg.sql import SQL, Identifier

from clm_core.domain.jobs import TrainingJob
from clm_core.registry import integrity
from clm_core.registry.mlflow_registry import PACKAGE_TAG, Registered

TABLES = (
    "runs",
    "tags",
    "params",
    "latest_metrics",
    "metrics",
    "inputs",
    "input_tags",
    "logged_models",
    "logged_model_params",
    "logged_model_tags",
    "registered_models",
    "model_versions",
    "model_version_tags",
    "registered_model_aliases",
)
"""Tables of MLflow with rows of a version, in the order of their references."""
OF_VERSION: dict[str, LiteralString] = {
    "runs": "run_uuid = %(run)s",
    "tags": "run_uuid = %(run)s",
    "params": "run_uuid = %(run)s",
    "latest_metrics": "run_uuid = %(run)s",
    "metrics": "run_uuid = %(run)s",
    "inputs": "destination_id = %(run)s",
    "input_tags": "input_uuid IN (SELECT input_uuid FROM inputs WHERE destination_id = %(run)s)",
    "logged_models": "model_id = %(logged)s",
    "logged_model_params": "model_id = %(logged)s",
    "logged_model_tags": "model_id = %(logged)s",
    "registered_models": "name = %(name)s",
    "model_versions": "run_id = %(run)s",
    "model_version_tags": "(name, version) = (%(name)s, %(number)s)",
    "registered_model_aliases": "(name, version) = (%(name)s, %(number)s)",
}


INSERT = SQL("INSERT INTO {0} SELECT * FROM jsonb_populate_recordset(NULL::{0}, %s::jsonb)")


@dataclass(frozen=True)
class Original:
    """A version registered in full."""

    job: TrainingJob
    registered: Registered
    logged: str
    """Id of MLflow's logged model."""
    files: Path
    rows: dict[str, list[str]]
    """Rows in MLflow's tables right after the registration, as JSON."""
    inputs: tuple[str, ...]
    """Ids of the run's inputs."""


class CopiedVersions:
    """Function `register` of a registry, in full for the first version of a bundle and by copies after it."""

    def __init__(self, database: psycopg.Connection, artifacts: Path, kept: Path) -> None:
        """
        Args:
            database: connection to MLflow's database.
            artifacts: folder of MLflow's artifacts.
            kept: folder for the files of originals.
        """
        self._database = database
        self._artifacts = artifacts
        self._kept = kept
        self._originals = dict[str, Original]()

    def register(
        self, job: TrainingJob, digest: str, label: str, above: int, in_full: Callable[[], Registered]
    ) -> Registered:
        """
        Args:
            digest: digest of the bundle.
            above: greatest number of the model's versions in the ledger.
            in_full: registration by the registry.
        """
        original = self._originals.get(digest)
        if original is None:
            registered = in_full()
            self._originals[digest] = self._read(job, registered)
            return registered
        return self._copy(original, job, label, above)

    def _read(self, job: TrainingJob, registered: Registered) -> Original:
        ids: dict[str, Any] = {
            "run": registered.run_id,
            "name": job.model_id,
            "number": registered.mlflow_version,
        }
        source = self._rows("model_versions", ids)[0]
        logged = ids["logged"] = json.loads(source)["source"].removeprefix("models:/")
        # the test of this version may change rows and files
        rows = {table: self._rows(table, ids) for table in TABLES}
        files = self._kept / logged
        shutil.copytree(self._artifacts / "models" / logged / "artifacts", files)
        inputs = tuple(json.loads(row)["input_uuid"] for row in rows["inputs"])
        return Original(job, registered, logged, files, rows, inputs)

    def _rows(self, table: str, ids: dict[str, Any]) -> list[str]:
        query = SQL("SELECT to_jsonb(r)::text FROM {} r WHERE ").format(Identifier(table))
        return [row for (row,) in self._database.execute(query + SQL(OF_VERSION[table]), ids).fetchall()]

    def _copy(self, original: Original, job: TrainingJob, label: str, above: int) -> Registered:
        name = job.model_id
        run = uuid.uuid4().hex
        logged = f"m-{uuid.uuid4().hex}"
        was = original.registered
        renamed = {was.run_id: run, original.logged: logged, str(original.job.id): str(job.id)}
        renamed |= {each: uuid.uuid4().hex for each in original.inputs}
        renamed |= {original.job.model_id: name, was.label: label}
        folder = self._artifacts / "models" / logged / "artifacts"
        shutil.copytree(original.files, folder)
        described = folder / "MLmodel"
        described.write_text(_replaced(described.read_text(), renamed))
        listed = integrity.listing(folder)
        with self._database.transaction():
            [number] = self._database.execute(
                "SELECT greatest(coalesce(max(version), 0), %s) + 1 FROM model_versions WHERE name = %s",
                (above, name),
            ).fetchone() or (above + 1,)
            for table in TABLES:
                self._copy_rows(table, original, renamed, number)
            self._database.execute(
                "UPDATE model_version_tags SET value = %s WHERE (name, version, key) = (%s, %s, %s)",
                (listed, name, number, PACKAGE_TAG),
            )
        return Registered(label, number, run, f"models:/{name}@{label}", integrity.digest(listed))

    def _copy_rows(self, table: str, original: Original, renamed: dict[str, str], number: int) -> None:
        rows = [json.loads(_replaced(row, renamed)) for row in original.rows[table]]
        for row in rows:
            if "version" in row:
                row["version"] = number
        insert = INSERT.format(Identifier(table))
        if table == "registered_models":
            # the model may have other versions
            insert += SQL(" ON CONFLICT DO NOTHING")
        self._database.execute(insert, (json.dumps(rows),))


def _replaced(text: str, renamed: dict[str, str]) -> str:
    for before, after in renamed.items():
        text = text.replace(before, after)
    return text
