"""A large installation made from a real version: rows of the databases are copied under other names.

A copy has its own model or version, job, verdict, trial and registration in MLflow, and shares the files of
the original. MLflow's history of metrics, 600 rows a version, is left out: only a page of MLflow reads it.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, text

from clm_core.domain.audit import Action
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus, Role
from clm_core.ledger.hash_chain import digest
from clm_core.ledger.store import Ledger
from clm_core.platform.database import Database

MODELS = 300
VERSIONS = 10_000
JOBS = 100_000
AUDIT_ENTRIES = 1_000_000
START = datetime(2024, 1, 1, tzinfo=UTC)
CLM = Path(sys.executable).with_name("clm")
MODEL = "xgboost_btcusd_1h"
TRAINED = ("retrain", "--model", "xgboost", "--symbol", "BTCUSD", "--days", "120")

OF_VERSIONS = ("training_jobs", "job_runs", "trials", "model_versions", "evaluations", "evaluation_evidence")
"""Tables of the ledger with rows of a version, in the order of their references."""
NUMBERED = ("model_versions", "model_version_tags", "registered_model_aliases")
"""Tables of MLflow with the number of the version."""
IN_MLFLOW = (
    "registered_models",
    "runs",
    "tags",
    "params",
    "latest_metrics",
    "logged_models",
    "model_versions",
    "model_version_tags",
    "registered_model_aliases",
)
"""Tables of MLflow with rows of a registered version, in the order of their references."""
ONCE_A_MODEL = {
    "registered_models": "copies.first",
    "registered_model_aliases": "(copies.first OR kept.row->>'alias' <> 'production')",
    "model_version_tags": "(copies.first OR kept.row->>'key' <> 'clm.status')",
}
"""Conditions of the rows that a model has once, whatever the number of its versions."""
SHARED_FILES = {
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}
"""Columns of MLflow with the place of files, which the copies share with the original."""

_NAMED = text("""
CREATE TEMPORARY TABLE copies AS SELECT * FROM jsonb_to_recordset(CAST(:copies AS jsonb))
AS names(number int, first bool, made_at timestamptz, version text, upper text, lower text, job text,
    trial text, evaluation text, run text, logged text, place int)
""")
_COPY = """
INSERT INTO "{table}" ({columns}) OVERRIDING SYSTEM VALUE SELECT {copied}
FROM copies, (SELECT to_jsonb(original) AS row FROM "{table}" AS original WHERE {which}) AS kept,
LATERAL jsonb_populate_record(NULL::"{table}", {renamed}::jsonb || {own}) AS copied
WHERE {condition}
"""
_COLUMNS = text("""
SELECT column_name FROM information_schema.columns
WHERE table_schema = 'public' AND table_name = :table AND is_generated = 'NEVER'
""")
NAMES = ("version", "upper", "lower", "job", "trial", "evaluation", "run", "logged")
MOMENTS = {
    "training_jobs": ("created_at", "started_at", "finished_at"),
    "model_versions": ("created_at",),
    "evaluations": ("created_at",),
    "trials": ("at",),
    "trigger_requests": ("at",),
    "promotions": ("at", "finished_at"),
}
"""Columns of the ledger with the moment of a copy."""


@dataclass(frozen=True)
class Size:
    """Size of an installation, the real version included."""

    versions: int = VERSIONS
    jobs: int = JOBS
    audit_entries: int = AUDIT_ENTRIES

    @classmethod
    def part(cls, part: int) -> "Size":
        """The full size divided by a number."""
        return cls(VERSIONS // part, JOBS // part, AUDIT_ENTRIES // part)

    @property
    def models(self) -> int:
        return min(MODELS, self.versions)


def train_and_promote(home: Path) -> None:
    """Train a version on bundled bars and promote it by force, as a person would."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("CLM_", "PREFECT_"))
    } | {"CLM_HOME": str(home)}
    # exit code 3: the gate did not pass the version
    subprocess.run([CLM, *TRAINED], env=environment, stdout=subprocess.DEVNULL, check=False)
    listed = subprocess.run([CLM, "models", "--json"], env=environment, capture_output=True, check=True)
    [version] = json.loads(listed.stdout)
    label = f"{version['model_id']}@{version['version']}"
    forced = [str(CLM), "promote", label, "--force", "--reason", "A version to copy"]
    subprocess.run(forced, env=environment, stdout=subprocess.DEVNULL, check=True)


def enlarge(ledger: Ledger, engine: Engine, database: Database, size: Size) -> None:
    """Copy the one version of a home until the databases have a size."""
    version = ledger.version(MODEL, ledger.promotions.champion(MODEL) or "")
    registered = create_engine(database.url("mlflow", driver="psycopg"))
    with registered.begin() as connection:
        logged = connection.scalar(text("SELECT model_id FROM logged_models"))
        _without_triggers(connection)
    with engine.begin() as connection:
        connection.execute(text("SET ROLE NONE"))
        _without_triggers(connection)
        original = _original(connection, version) | {"logged": str(logged)}
        _enlarge_ledger(connection, original, size)
        _append_audit(connection, size)
    with registered.begin() as connection:
        _without_triggers(connection)
        _enlarge_mlflow(connection, original, size)
    for each in (engine, registered):
        with each.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("SET ROLE NONE") if each is engine else text("SELECT 1"))
            connection.execute(text("VACUUM ANALYZE"))
    registered.dispose()


def _enlarge_ledger(connection: Connection, original: Mapping[str, str], size: Size) -> None:
    def copy(table: str, condition: str = "TRUE", **own: str) -> None:
        own |= dict.fromkeys(MOMENTS.get(table, ()), "copies.made_at")
        which = f"original.model_id = '{MODEL}'" if table in MOMENTS else "TRUE"
        _copy(connection, table, original, own, condition, which)

    _name_copies(connection, 1, size.versions, size.models)
    served = f"CASE WHEN copies.first THEN '{ModelStatus.PRODUCTION}' ELSE '{ModelStatus.RETIRED}' END"
    for table in OF_VERSIONS:
        copy(table, **({"status": served} if table == "model_versions" else {}))
    copy("promotions", "copies.first", id="copies.number + 1")
    _name_copies(connection, size.versions, size.jobs, size.models)
    copy("training_jobs")
    copy("trigger_requests", number="copies.number + 1")
    for table, column in (("promotions", "id"), ("trigger_requests", "number")):
        connection.execute(
            text(f"SELECT setval('{table}_{column}_seq', (SELECT max({column}) FROM {table}))")
        )


def _enlarge_mlflow(connection: Connection, original: Mapping[str, str], size: Size) -> None:
    _name_copies(connection, 1, size.versions, size.models)
    for table in IN_MLFLOW:
        own = {"version": "copies.place"} if table in NUMBERED else {}
        if place := SHARED_FILES.get(table):
            own[place] = f"kept.row->'{place}'"
        _copy(connection, table, original, own, ONCE_A_MODEL.get(table, "TRUE"))


def model_id(number: int) -> str:
    """Id of a copied model, by its number from 1."""
    return f"xgboost_m{number:03}usd_1h"


def _without_triggers(connection: Connection) -> None:
    """Leave out triggers and checks of references, which a million rows would wait for."""
    connection.execute(text("SET LOCAL session_replication_role = replica"))


def _original(connection: Connection, version: ModelVersion) -> dict[str, str]:
    """Names and ids of the real version, which every copy replaces."""
    ids = "SELECT id, trial_id FROM evaluations WHERE (model_id, version) = (:model, :version)"
    named = {"model": version.model_id, "version": version.version}
    evaluation, trial = connection.execute(text(ids), named).one()
    return {
        "version": version.version,
        "upper": version.symbol,
        "lower": version.symbol.lower(),
        "job": str(version.training_job_id),
        "trial": str(trial),
        "evaluation": str(evaluation),
        "run": version.mlflow_run_id,
    }


def _name_copies(connection: Connection, first: int, end: int, models: int) -> None:
    """Table `copies` with the names of copies by number; a model's first copy is its first version."""
    connection.execute(text("DROP TABLE IF EXISTS copies"))
    copies = [_names(number, models) for number in range(first, end)]
    connection.execute(_NAMED, {"copies": json.dumps(copies)})
    connection.execute(text("ANALYZE copies"))


def _copy(
    connection: Connection,
    table: str,
    original: Mapping[str, str],
    own: Mapping[str, str],
    condition: str = "TRUE",
    which: str = "TRUE",
) -> None:
    """Copy rows of a table for every copy.

    Args:
        own: SQL expressions of columns whose values no text of the original names.
        condition: SQL condition of a copied row.
        which: SQL condition of the rows to copy.
    """
    renamed = "kept.row::text"
    for name in NAMES:
        renamed = f"replace({renamed}, :{name}, copies.{name})"
    pairs = ", ".join(f"'{column}', {value}" for column, value in own.items())
    columns = [f'"{name}"' for name in connection.scalars(_COLUMNS, {"table": table})]
    statement = _COPY.format(
        table=table,
        columns=", ".join(columns),
        copied=", ".join(f"copied.{name}" for name in columns),
        which=which,
        renamed=renamed,
        own=f"jsonb_build_object({pairs})",
        condition=condition,
    )
    connection.execute(text(statement), dict(original))


def _names(number: int, models: int) -> dict[str, Any]:
    model = (number - 1) % models + 1
    before = (number - 1) // models
    made_at = START + timedelta(minutes=13 * number)
    return {
        "number": number,
        "first": before == 0,
        "made_at": made_at.isoformat(),
        "version": f"v{made_at:%Y%m%d_%H%M%S}",
        "upper": f"M{model:03}USD",
        "lower": f"m{model:03}usd",
        **{name: _uuid(f"{name} {number}") for name in ("job", "trial", "evaluation")},
        "run": hashlib.md5(f"run {number}".encode()).hexdigest(),
        "logged": f"m-{hashlib.md5(f'logged {number}'.encode()).hexdigest()}",
        "place": before + 1,
    }


def _uuid(name: str) -> str:
    each = hashlib.md5(name.encode()).hexdigest()
    return "-".join((each[:8], each[8:12], each[12:16], each[16:20], each[20:]))


def _append_audit(connection: Connection, size: Size) -> None:
    """Append entries to the audit, in one stream: the usual way takes a transaction for each."""
    seq, prev_hash = connection.execute(
        text("SELECT seq, hash FROM audit_log ORDER BY seq DESC LIMIT 1")
    ).one()
    driver = connection.connection.driver_connection
    assert driver is not None
    into = "COPY audit_log (seq, at, actor, role, action, subject, details, prev_hash, hash) FROM STDIN"
    with driver.cursor() as cursor, cursor.copy(into) as stream:
        for number in range(seq + 1, size.audit_entries + 1):
            entry = {
                "at": (START + timedelta(seconds=30 * number)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                "actor": "ada",
                "role": Role.OPERATOR.value,
                "action": Action.PROMOTION_COMMITTED.value,
                "subject": model_id(number % size.models + 1),
                "details": {
                    "id": number,
                    "reason": "Sharpe ratio 1.52 against 1.31",
                    "score": 61 + number / 7,
                },
                "prev_hash": prev_hash,
            }
            prev_hash = digest(entry)
            details = json.dumps(entry["details"])
            stream.write_row([number, *(list(entry.values())[:5]), details, entry["prev_hash"], prev_hash])
