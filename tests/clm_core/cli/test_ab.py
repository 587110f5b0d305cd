"""`clm ab` on a home with a production version and a candidate."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import records
from click.testing import Result
from sqlalchemy import text
from typer.testing import CliRunner

from clm_core.cli.app import app
from clm_core.domain.errors import AllocationRefused, NotFound
from clm_core.ledger.engine import open_engine
from clm_core.platform.database import open_database
from clm_core.services import open_services
from clm_core.settings import Settings

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
PRODUCTION = "v20260304_120000"
CANDIDATE = "v20260304_130000"
FAILED = "v20260304_140000"
Clm = Callable[..., Result]
PROMOTED = text("""
INSERT INTO promotions (model_id, kind, state, from_version, to_version, expected, actor, role, reason,
                        forced, at, finished_at)
VALUES (:model_id, 'promotion', 'committed', NULL, :version, false, 'ada', 'operator', '', false, :at, :at)
""")
STATUS = text("UPDATE model_versions SET status = :status WHERE version = :version")


@pytest.fixture(scope="module")
def shared(make_home: Callable[[str], Path]) -> Path:
    folder = make_home("shared-capital")
    with open_services(Settings(home=folder, database_url=None)) as services:
        job = services.ledger.create_job(records.a_job(created_at=NOW))
        for number, label in enumerate((PRODUCTION, CANDIDATE, FAILED)):
            services.ledger.add_version(
                records.a_version(job, label, mlflow_version=number + 1, created_at=NOW)
            )
        engine = open_engine(services.database.url("ledger", driver="psycopg"))
        statuses = zip((PRODUCTION, CANDIDATE, FAILED), ("production", "candidate", "failed"), strict=True)
        with engine.begin() as connection:
            for label, status in statuses:
                connection.execute(STATUS, {"status": status, "version": label})
            connection.execute(PROMOTED, {"model_id": job.model_id, "version": PRODUCTION, "at": NOW})
        engine.dispose()
    return folder


@pytest.fixture
def clm(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Clm:
    monkeypatch.setenv("CLM_HOME", str(shared))
    return lambda *words: CliRunner().invoke(app, list(words))


def test_an_allocation_is_started_shown_and_stopped_on_the_command_line(shared: Path, clm: Clm) -> None:
    model_id = records.a_job().model_id
    with open_database(shared):
        assert "No allocation is running" in clm("ab", "status").output
        assert isinstance(clm("ab", "start", f"{model_id}@{FAILED}").exception, AllocationRefused)
        elsewhere = clm("ab", "start", f"{model_id}@{CANDIDATE}", "--also", f"other@{FAILED}")
        assert (elsewhere.exit_code, "version of another model" in elsewhere.output) == (2, True)
        started = clm("ab", "start", f"{model_id}@{CANDIDATE}", "--reason", "try", "--json")
        [shown] = json.loads(started.output)
        assert [(arm["version"], arm["weight"]) for arm in shown["arms"]] == [
            (PRODUCTION, 0.7),
            (CANDIDATE, 0.3),
        ]
        table = clm("ab", "status").output
        assert all(word in table for word in (model_id, "running", "70.0 %", "30.0 %", "candidate"))
        assert clm("ab", "stop", model_id, "--reason", " ").exit_code == 2
        assert "stopped: enough" in clm("ab", "stop", model_id, "--reason", "enough").output
        assert "100.0 %" in clm("ab", "status", model_id).output
        assert isinstance(clm("ab", "status", "no_such_1h").exception, NotFound)
