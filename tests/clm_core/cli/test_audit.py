"""`clm audit` on a ledger with entries appended by the services."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from typer.testing import CliRunner

from clm_core.cli import audit
from clm_core.cli.audit import app
from clm_core.domain.actors import Actor
from clm_core.domain.audit import Action, AuditEntry
from clm_core.domain.vocabulary import Role
from clm_core.ledger.audit_log import anchor_folder, append, read_anchors
from clm_core.platform.database import Database, open_database
from clm_core.services import open_ledger, open_services
from clm_core.settings import Settings

MODELS = ("xgboost_btcusd_1h", "lightgbm_btcusd_1h", "xgboost_btcusd_1h")

Clm = Callable[..., str]


def an_entry(second: int, model_id: str) -> AuditEntry:
    return AuditEntry(
        at=datetime(2025, 12, 4, 14, 30, second, tzinfo=UTC),
        actor=Actor(name="ada", role=Role.ADMIN),
        action=Action.VERSION_RETIRED,
        subject=model_id,
        details={"reason": "[bold]old"},
    )


@pytest.fixture(scope="module")
def audited(make_home: Callable[[str], Path]) -> Path:
    """Home whose services recorded three retirements."""
    return make_home("audited")


@pytest.fixture(scope="module")
def database(audited: Path) -> Iterator[Database]:
    settings = Settings(home=audited, database_url=None)
    with open_database(settings.home, settings.database_url) as database:
        with open_services(settings), open_ledger(database) as engine, engine.begin() as connection:
            for second, model_id in enumerate(MODELS):
                append(connection, an_entry(second, model_id))
        yield database


@pytest.fixture
def clm(audited: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> Clm:
    """Runs a command in the process of the test; errors are raised."""
    monkeypatch.setenv("CLM_HOME", str(audited))

    def run(*words: object) -> str:
        return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False).output

    return run


def test_closing_the_services_anchors_what_was_appended(audited: Path, database: Database) -> None:
    assert [anchor.seq for anchor in read_anchors(anchor_folder(audited))] == [3]


def test_show_lists_the_newest_first_and_narrows_by_model(clm: Clm) -> None:
    lines = [line.split() for line in clm("show", "--limit", 2).splitlines() if "ada" in line]
    expected = ["3", "2025-12-04", "14:30:02", "ada", "(admin)", "version_retired", "xgboost_btcusd_1h"]
    assert lines[0] == [*expected, '{"reason":', '"[bold]old"}']
    assert [line[0] for line in lines] == ["3", "2"]
    listed = json.loads(clm("show", "--model", "xgboost_btcusd_1h", "--json"))
    assert [entry["seq"] for entry in listed] == [3, 1]


def test_show_names_the_present_action_beside_a_renamed_action() -> None:
    assert audit._action("drift_detected") == "drift_detected (now alias_moved)"
    assert audit._action("version_retired") == "version_retired"


def test_an_export_verifies_with_and_without_anchors(clm: Clm, audited: Path, tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    assert "Wrote 3 entries" in clm("export", file)
    assert '"entries": 3' in clm("export", file, "--json")
    assert "No anchors" in clm("verify", "--file", file)
    answer = clm("verify", "--file", file, "--anchors", anchor_folder(audited))
    assert "confirm the first 3 entries" in answer


def test_verify_anchors_what_it_found_in_order(clm: Clm, audited: Path, database: Database) -> None:
    with open_ledger(database) as engine, engine.begin() as connection:
        append(connection, an_entry(3, MODELS[0]))
    first = clm("verify")
    second = clm("verify")
    report = json.loads(CliRunner().invoke(app, ["verify", "--json"], catch_exceptions=False).stdout)
    assert (report["entries"], report["anchored"], report["problems"], report["places"]) == (4, 4, [], [])
    assert "4 entries in an unbroken chain" in first
    assert "confirm the first 3 entries" in first
    assert "Anchored entry 4." in first
    assert "confirm the first 4 entries" in second


def test_verify_ends_with_1_and_says_where_the_audit_was_tampered_with(
    audited: Path, database: Database
) -> None:
    with create_engine(database.url("ledger")).begin() as connection:
        connection.execute(text("ALTER TABLE audit_log DISABLE TRIGGER audit_log_append_only"))
        connection.execute(text("UPDATE audit_log SET actor = 'eve' WHERE seq = 2"))
    environment = os.environ | {"CLM_HOME": str(audited)}
    clm = Path(sys.executable).with_name("clm")
    answer = subprocess.run(
        [clm, "audit", "verify"], env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 1
    assert "entry 2 was edited" in answer.stderr
    assert "Traceback" not in answer.stderr
