"""Dumps of several databases at one moment, and passwords that stay hidden."""

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from clm_core.domain.errors import BackupFailed
from clm_core.platform import database_dumps
from clm_core.platform.database import Database
from clm_core.platform.database_dumps import ConsistentCut, consistent_cut
from clm_core.services import Services


@pytest.fixture
def writer(services: Services) -> Iterator["psycopg.Connection[Any]"]:
    with psycopg.connect(services.database.address("ledger")) as connection:
        yield connection
        connection.rollback()


def test_a_cut_waits_for_the_end_of_a_transaction_and_sees_all_of_it(
    services: Services, writer: "psycopg.Connection[Any]"
) -> None:
    writer.execute("CREATE TABLE IF NOT EXISTS of_the_cut (number int)")
    writer.commit()
    writer.execute("INSERT INTO of_the_cut VALUES (1)")
    threading.Timer(0.1, writer.commit).start()
    with consistent_cut(services.database) as cut:
        seen = cut.connections["ledger"].execute("SELECT count(*) FROM of_the_cut").fetchone()
        with psycopg.connect(services.database.address("ledger")) as later:
            later.execute("INSERT INTO of_the_cut VALUES (2)")
            later.commit()
        assert cut.connections["ledger"].execute("SELECT count(*) FROM of_the_cut").fetchone() == seen == (1,)
    writer.execute("DROP TABLE of_the_cut")
    writer.commit()


def test_a_vacuum_is_waited_for_once(services: Services, writer: "psycopg.Connection[Any]") -> None:
    writer.execute("LOCK TABLE promotions IN SHARE UPDATE EXCLUSIVE MODE")
    threading.Timer(0.1, writer.commit).start()
    with consistent_cut(services.database) as cut:
        assert set(cut.snapshots) == set(database_dumps.DUMPED)


def test_a_ledger_that_is_never_quiet_refuses_the_cut(
    services: Services, writer: "psycopg.Connection[Any]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_dumps, "LOCKED_WITHIN_SECONDS", 0.05)
    writer.execute("LOCK TABLE promotions IN ROW EXCLUSIVE MODE")
    with pytest.raises(BackupFailed, match="at a quieter time"), consistent_cut(services.database):
        pass


def test_a_password_is_no_argument_of_the_program(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[list[str], dict[str, str]]] = []

    def run(command: list[str], env: dict[str, str], **options: Any) -> SimpleNamespace:
        called.append((command, env))
        return SimpleNamespace(returncode=1, stderr="no server\n", stdout="")

    monkeypatch.setattr(subprocess, "run", run)
    database = Database("postgresql://ada:p%40ss@example.com:5433/postgres?sslmode=require")
    with pytest.raises(BackupFailed, match="The database ledger cannot be dumped: no server"):
        ConsistentCut(database, {}, {"ledger": "1-1"}).dump("ledger", tmp_path / "x")
    [(command, environment)] = called
    assert "--dbname=postgresql://ada@example.com:5433/clm_ledger?sslmode=require" in command
    assert "p%40ss" not in " ".join(command)
    assert environment["PGPASSWORD"] == "p@ss"
