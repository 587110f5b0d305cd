"""Invariants of a home at rest, checked by SQL and SHA-256 alone: `python scripts/invariants.py HOME`.

The script imports nothing of CLM, so a fault of the product cannot hide itself. Violations are printed, one
line each, and the exit status is 1.

    one-production     at most one version of a model is in production
    alias              MLflow's alias `production` names the version in production, and nothing else
    number             no number of MLflow stands for two versions of a model
    label              MLflow's alias of every version's label names the version
    change-under-way   no promotion is left half done
    audit              numbers, hashes and order of the audit's entries, and the anchors of the home
    acknowledged       every job and message that was acknowledged is there (`--acknowledged FILE`)
    artifacts          the files of every version match the digests in the ledger; failed versions may have
                       none, if the removal is recorded
    unknown-version    a version that only MLflow knows is marked as failed
    lease              a job in progress has a lease, and no other job has one
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

import psycopg
import rfc8785
from psycopg.rows import dict_row

FIRST = "0" * 64
"""Hash before the first entry of the audit."""
HASHED = ("at", "actor", "role", "action", "subject", "details", "prev_hash")
"""Fields of an entry that its hash covers."""
BUNDLE = Path("artifacts", "bundle")
WRITTEN_BY_READERS = "registered_model_meta"

Row = dict[str, Any]


class Violation(NamedTuple):
    invariant: str
    message: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.message}"


class Stores(NamedTuple):
    """Connections to the databases of ledger and MLflow, and the folder of the home."""

    home: Path
    ledger: "psycopg.Connection[Row]"
    mlflow: "psycopg.Connection[Row]"


def violations(home: Path, server: str, acknowledged: Iterable[Row] = ()) -> list[Violation]:
    """All violations of a home.

    Args:
        server: `postgresql://…` of the server; the path is ignored.
        acknowledged: `{"job": id}` and `{"source": name, "message": id}`, as acknowledged to a client.
    """
    with _connected(server, "clm_ledger") as ledger, _connected(server, "clm_mlflow") as mlflow:
        stores = Stores(home, ledger, mlflow)
        return [
            *_production(stores),
            *_numbers(stores),
            *_labels(stores),
            *_changes(stores),
            *_audit(stores),
            *_acknowledged(stores, acknowledged),
            *_artifacts(stores),
            *_unknown(stores),
            *_leases(stores),
        ]


def _production(stores: Stores) -> Iterator[Violation]:
    rows = stores.ledger.execute(
        "SELECT model_id, array_agg(version ORDER BY version) AS versions, "
        "array_agg(mlflow_version ORDER BY version) AS numbers "
        "FROM model_versions WHERE status = 'production' GROUP BY model_id"
    ).fetchall()
    for row in rows:
        if len(row["versions"]) > 1:
            yield Violation("one-production", f"{row['model_id']} has {', '.join(row['versions'])}")
    recorded = {row["model_id"]: row["numbers"] for row in rows}
    served = _aliases(stores, "alias = 'production'")
    for model_id in sorted(recorded.keys() | {name for name, _ in served}):
        number = served.get((model_id, "production"))
        expected = recorded.get(model_id, [])
        if [number] != (expected or [None]):
            yield Violation("alias", f"{model_id} serves {number}, in production are {expected}")


def _numbers(stores: Stores) -> Iterator[Violation]:
    query = (
        "SELECT model_id, mlflow_version, array_agg(version ORDER BY version) AS versions "
        "FROM model_versions GROUP BY model_id, mlflow_version HAVING count(*) > 1"
    )
    for row in stores.ledger.execute(query):
        yield Violation(
            "number", f"{row['model_id']} version {row['mlflow_version']} is {', '.join(row['versions'])}"
        )


def _labels(stores: Stores) -> Iterator[Violation]:
    aliases = _aliases(stores, "true")
    for row in stores.ledger.execute("SELECT model_id, version, mlflow_version FROM model_versions"):
        number = aliases.get((row["model_id"], row["version"]))
        if number != row["mlflow_version"]:
            name = f"{row['model_id']} {row['version']}"
            yield Violation("label", f"{name} is version {row['mlflow_version']}, its alias names {number}")


def _changes(stores: Stores) -> Iterator[Violation]:
    query = "SELECT id, model_id, state FROM promotions WHERE finished_at IS NULL"
    for row in stores.ledger.execute(query):
        yield Violation("change-under-way", f"change {row['id']} of {row['model_id']} is {row['state']}")


def _audit(stores: Stores) -> Iterator[Violation]:
    before = FIRST
    hashes: dict[int, str] = {}
    query = (
        "SELECT seq, actor, role, action, subject, details::text AS details, prev_hash, hash, "
        "to_char(timezone('UTC', at), 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS at FROM audit_log ORDER BY seq"
    )
    for number, row in enumerate(stores.ledger.execute(query), start=1):
        if row["seq"] != number:
            yield Violation("audit", f"entry {row['seq']} stands where entry {number} belongs")
            return
        content = {name: row[name] for name in HASHED} | {"details": json.loads(row["details"])}
        if hashlib.sha256(rfc8785.dumps(content)).hexdigest() != row["hash"]:
            yield Violation("audit", f"entry {number} does not match its hash")
        if row["prev_hash"] != before:
            yield Violation("audit", f"entry {number} does not follow entry {number - 1}")
        before = row["hash"]
        hashes[number] = row["hash"]
    for file in sorted((stores.home / "audit" / "anchors").glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            anchor = json.loads(line)
            if hashes.get(anchor["seq"]) != anchor["hash"]:
                yield Violation("audit", f"entry {anchor['seq']} is not the anchored entry of {file.name}")


def _acknowledged(stores: Stores, acknowledged: Iterable[Row]) -> Iterator[Violation]:
    for each in acknowledged:
        if "job" in each:
            query = "SELECT 1 FROM training_jobs WHERE id = %s"
            key = [each["job"]]
        else:
            query = "SELECT 1 FROM inbox WHERE source = %s AND message_id = %s"
            key = [each["source"], each["message"]]
        if stores.ledger.execute(query, key).fetchone() is None:
            yield Violation("acknowledged", f"{json.dumps(each)} was acknowledged and is lost")


def _artifacts(stores: Stores) -> Iterator[Violation]:
    places = {
        (row["name"], row["version"]): row
        for row in stores.mlflow.execute(
            "SELECT name, version, status, storage_location, source FROM model_versions "
            "WHERE current_stage IS DISTINCT FROM 'Deleted_Internal'"
        )
    }
    query = (
        "SELECT model_id, version, mlflow_version, bundle_digest, package_digest FROM model_versions v "
        "WHERE NOT (status = 'failed' AND EXISTS (SELECT 1 FROM removed_files r "
        "WHERE r.model_id = v.model_id AND r.version = v.version))"
    )
    for row in stores.ledger.execute(query).fetchall():
        name = f"{row['model_id']} {row['version']}"
        place = places.get((row["model_id"], row["mlflow_version"]))
        if place is None or place["status"] != "READY":
            yield Violation("artifacts", f"MLflow has no ready version {row['mlflow_version']} for {name}")
            continue
        with _package(place["storage_location"] or place["source"]) as package:
            problems = list(_problems(package, row["bundle_digest"], row["package_digest"]))
        yield from (Violation("artifacts", f"{name}: {problem}") for problem in problems)


def _problems(package: Path, bundle_digest: str, package_digest: str | None) -> Iterator[str]:
    manifest = package / BUNDLE / "manifest.json"
    if not manifest.is_file():
        yield f"{manifest} is missing"
        return
    if _sha256(manifest) != bundle_digest:
        yield f"{manifest} was changed"
    listed = json.loads(manifest.read_bytes())["files"]
    present = {path.name for path in (package / BUNDLE).iterdir()} - {manifest.name}
    for name in sorted(listed.keys() | present):
        path = package / BUNDLE / name
        if name not in listed or name not in present or _sha256(path) != listed[name]["sha256"]:
            yield f"{path} is missing, added or changed"
    beside = {
        path.relative_to(package).as_posix(): _sha256(path)
        for path in sorted(package.rglob("*"))
        if path.is_file()
        and not path.is_relative_to(package / BUNDLE)
        and path.relative_to(package).as_posix() != WRITTEN_BY_READERS
    }
    listing = json.dumps(beside, sort_keys=True, separators=(",", ":"))
    if package_digest is not None and hashlib.sha256(listing.encode()).hexdigest() != package_digest:
        yield f"a file beside {package / BUNDLE} was changed"


def _unknown(stores: Stores) -> Iterator[Violation]:
    known = {
        (row["model_id"], row["mlflow_version"])
        for row in stores.ledger.execute("SELECT model_id, mlflow_version FROM model_versions")
    }
    rows = stores.mlflow.execute(
        "SELECT v.name, v.version, t.value AS status FROM model_versions v LEFT JOIN model_version_tags t "
        "ON t.name = v.name AND t.version = v.version AND t.key = 'clm.status' "
        "WHERE v.current_stage IS DISTINCT FROM 'Deleted_Internal'"
    )
    for row in rows:
        if (row["name"], row["version"]) not in known and row["status"] != "failed":
            yield Violation(
                "unknown-version",
                f"{row['name']} version {row['version']} is {row['status']} in MLflow alone",
            )


def _leases(stores: Stores) -> Iterator[Violation]:
    query = (
        "SELECT j.id, j.status, l.holder FROM training_jobs j LEFT JOIN job_leases l ON l.job_id = j.id "
        "WHERE (j.status = 'in_progress') <> (l.job_id IS NOT NULL)"
    )
    for row in stores.ledger.execute(query):
        held = "no lease" if row["holder"] is None else f"a lease of {row['holder']}"
        yield Violation("lease", f"job {row['id']} is {row['status']} with {held}")


def _aliases(stores: Stores, condition: str) -> dict[tuple[str, str], int]:
    query = f"SELECT name, alias, version FROM registered_model_aliases WHERE {condition}"
    return {(row["name"], row["alias"]): row["version"] for row in stores.mlflow.execute(query)}


@contextmanager
def _package(location: str) -> Iterator[Path]:
    """Folder of the files of a version; of a bucket a copy, by the keys and address of AWS's variables."""
    place = urlsplit(location)
    if place.scheme != "s3":
        yield Path(unquote(place.path))
        return
    import boto3

    client = boto3.client("s3")
    prefix = f"{place.path.strip('/')}/"
    with tempfile.TemporaryDirectory() as folder:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=place.netloc, Prefix=prefix):
            for each in page.get("Contents", ()):
                target = Path(folder, each["Key"].removeprefix(prefix))
                target.parent.mkdir(parents=True, exist_ok=True)
                client.download_file(place.netloc, each["Key"], str(target))
        yield Path(folder)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _connected(server: str, database: str) -> "psycopg.Connection[Row]":
    url = urlsplit(server)._replace(scheme="postgresql", path=f"/{database}").geturl()
    return psycopg.connect(url, row_factory=dict_row, options="-c default_transaction_read_only=on")


def embedded_server(home: Path) -> str:
    """URL of the running embedded server of a home.

    Raises:
        FileNotFoundError: the server does not run.
    """
    sockets = (home / "postgres" / "postmaster.pid").read_text().splitlines()[4]
    return f"postgresql://postgres:@/postgres?host={quote(sockets)}&port=5432"


def main() -> int:
    parser = argparse.ArgumentParser(description="Check the invariants of a home at rest.")
    parser.add_argument("home", type=Path)
    parser.add_argument("--database", help="URL of the server; default: CLM_DATABASE_URL, or embedded")
    parser.add_argument("--acknowledged", type=Path, help='file of JSON lines: {"job": "..."}')
    options = parser.parse_args()
    try:
        server = options.database or os.environ.get("CLM_DATABASE_URL") or embedded_server(options.home)
    except FileNotFoundError:
        parser.error(f"no server runs in {options.home}: clm exec -- python scripts/invariants.py HOME")
    lines = [] if options.acknowledged is None else options.acknowledged.read_text().splitlines()
    breaches = violations(options.home, server, map(json.loads, lines))
    for violation in breaches:
        print(violation)
    if not breaches:
        print("No violations.")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
