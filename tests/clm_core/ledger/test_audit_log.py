"""The audit on a real PostgreSQL server: appending, protection, anchors and exports."""

import hashlib
import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.sql import SQL, Identifier
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from clm_core.domain.actors import Actor
from clm_core.domain.audit import Action, AuditEntry
from clm_core.domain.errors import AuditBroken, DatabaseUnavailable
from clm_core.domain.vocabulary import Role
from clm_core.ledger.audit_log import (
    anchor,
    append,
    broken_entry,
    entries,
    export,
    read_anchors,
    verify,
    verify_export,
)
from clm_core.ledger.engine import open_engine
from clm_core.ledger.hash_chain import GENESIS, Anchor, ChainProblem, Tampering
from clm_core.ledger.migrations import upgrade
from clm_core.platform.database import Database

NOW = datetime(2025, 12, 4, 14, 30, 22, 123456, tzinfo=UTC)
ADA = Actor(name="ada", role=Role.OPERATOR)


def an_entry(number: int = 0, **details: object) -> AuditEntry:
    return AuditEntry(
        at=NOW + timedelta(seconds=number),
        actor=ADA,
        action=Action.PROMOTION_COMMITTED,
        subject="xgboost_btcusd_1h",
        details={"version": f"v{number}", **details},
    )


def appended(engine: Engine, *new: AuditEntry) -> list[int]:
    with engine.begin() as connection:
        return [append(connection, entry) for entry in new]


def problems_of(engine: Engine, folder: Path) -> list[ChainProblem]:
    return list(verify(engine, read_anchors(folder)).problems)


@pytest.fixture(scope="module")
def migrated(empty_database: Callable[[], str]) -> str:
    url = empty_database()
    upgrade(url)
    return url


@pytest.fixture(scope="module")
def make_url(database: Database, migrated: str) -> Callable[[], str]:
    """URL of a ledger with an empty audit, made anew for each test: entries cannot be removed."""
    template = Identifier(urlsplit(migrated).path.removeprefix("/"))

    def make() -> str:
        name = f"audit_{uuid.uuid4().hex}"
        with psycopg.connect(database.server, autocommit=True) as connection:
            connection.execute(SQL("CREATE DATABASE {} TEMPLATE {}").format(Identifier(name), template))
        return urlsplit(migrated)._replace(path=f"/{name}").geturl()

    return make


@pytest.fixture
def url(make_url: Callable[[], str]) -> str:
    return make_url()


@pytest.fixture
def audit(url: str) -> Iterator[Engine]:
    """Engine in the role of the application."""
    engine = open_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def superuser(url: str) -> Iterator[Engine]:
    engine = create_engine(url)
    yield engine
    engine.dispose()


def test_entries_are_numbered_and_read_back_newest_first(audit: Engine) -> None:
    assert appended(audit, an_entry(1), an_entry(2, reason="better")) == [1, 2]
    assert appended(audit, an_entry(3)) == [3]
    newest, older, _ = entries(audit)
    assert newest.prev_hash == older.hash
    assert older.model_dump(exclude={"hash", "prev_hash"}) == {
        "seq": 2,
        "at": "2025-12-04T14:30:24.123456Z",
        "actor": "ada",
        "role": "operator",
        "action": "promotion_committed",
        "subject": "xgboost_btcusd_1h",
        "details": {"version": "v2", "reason": "better"},
    }
    assert entries(audit, limit=1) == [newest]


def test_a_hash_can_be_checked_without_this_software(audit: Engine) -> None:
    here = timezone(timedelta(hours=2))
    appended(audit, an_entry().model_copy(update={"at": NOW.astimezone(here)}))
    [entry] = entries(audit)
    fields = {
        "action": "promotion_committed",
        "actor": "ada",
        "at": "2025-12-04T14:30:22.123456Z",
        "details": {"version": "v0"},
        "prev_hash": GENESIS,
        "role": "operator",
        "subject": "xgboost_btcusd_1h",
    }
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    assert entry.hash == hashlib.sha256(canonical).hexdigest()


def test_entries_of_a_model_include_entries_of_its_jobs(audit: Engine) -> None:
    job = AuditEntry(at=NOW, actor=ADA, action=Action.JOB_CREATED, subject="5f0c", details={"model_id": "m"})
    of_model = AuditEntry(at=NOW, actor=ADA, action=Action.VERSION_RETIRED, subject="m")
    appended(audit, job, an_entry(), of_model)
    assert [entry.subject for entry in entries(audit, "m")] == ["m", "5f0c"]
    assert [entry.subject for entry in entries(audit, "5f0c")] == ["5f0c"]


def test_an_entry_is_committed_if_and_only_if_the_change_is(audit: Engine) -> None:
    with audit.begin() as connection:
        append(connection, an_entry(1))
        connection.rollback()
    assert appended(audit, an_entry(2)) == [1]
    assert [entry.details["version"] for entry in entries(audit)] == ["v2"]


def test_a_transaction_that_cannot_see_the_newest_entry_is_refused(audit: Engine) -> None:
    with audit.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        connection.execute(text("SELECT FROM audit_log"))
        appended(audit, an_entry(1))
        with pytest.raises(IntegrityError, match="pk_audit_log"):
            append(connection, an_entry(2))


@pytest.fixture(scope="module")
def shared(make_url: Callable[[], str]) -> Iterator[Engine]:
    engine = open_engine(make_url())
    yield engine
    engine.dispose()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(details=st.dictionaries(st.text(max_size=3), JSON, max_size=3))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_entries_with_any_details_are_read_back_with_the_same_hash(
    details: dict[str, object], shared: Engine
) -> None:
    appended(shared, an_entry(**{f"given {name}": value for name, value in details.items()}))
    assert entries(shared, limit=1)[0].intact


def test_values_that_json_cannot_represent_are_written_as_text(audit: Engine) -> None:
    job = uuid.uuid4()
    appended(audit, an_entry(sharpe=float("nan"), seed=2**60, job=job, at=NOW, cause="\0\udcff", trades=60))
    details = entries(audit)[0].details
    assert details == {
        "version": "v0",
        "sharpe": "nan",
        "seed": str(2**60),
        "job": str(job),
        "at": "2025-12-04T14:30:22.123456Z",
        "cause": "\\0\\udcff",
        "trades": 60,
    }


WRITER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from clm_core.domain.actors import Actor
from clm_core.domain.vocabulary import Role
from clm_core.domain.audit import Action, AuditEntry
from clm_core.ledger.audit_log import append
from clm_core.ledger.engine import open_engine

url, process = sys.argv[1:]
engine = open_engine(url)
print("ready", flush=True)
sys.stdin.read()

def write(thread):
    for number in range(10):
        name = f"{process} {thread} {number}"
        with engine.begin() as connection:
            append(connection, AuditEntry(at=datetime.now(UTC), actor=Actor(name=name, role=Role.ADMIN),
                                          action=Action.JOB_CREATED, subject=name))

with ThreadPoolExecutor(8) as pool:
    list(pool.map(write, range(8)))
"""


def test_thirty_two_concurrent_writers_never_fork_the_chain(audit: Engine, url: str) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, url, str(process)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for process in range(4)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.close()
    assert [writer.wait() for writer in writers] == [0, 0, 0, 0]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.close()
    report = verify(audit, [])
    assert (report.entries, report.problems) == (320, ())
    assert len({entry.actor for entry in entries(audit, limit=1000)}) == 320


CHANGES = [
    "UPDATE audit_log SET actor = 'eve'",
    "DELETE FROM audit_log",
    "TRUNCATE audit_log",
    "INSERT INTO audit_log SELECT * FROM audit_log ON CONFLICT (seq) DO UPDATE SET actor = 'eve'",
]


@pytest.mark.parametrize("change", CHANGES)
def test_the_application_has_no_right_to_change_the_audit(audit: Engine, change: str) -> None:
    appended(audit, an_entry())
    with pytest.raises(ProgrammingError, match="permission denied for table audit_log"), audit.begin() as c:
        c.execute(text(change))


@pytest.mark.parametrize(
    "change",
    ["ALTER TABLE audit_log DISABLE TRIGGER ALL", "DROP TABLE audit_log", "DROP FUNCTION audit_log_refuse"],
)
def test_the_application_cannot_remove_the_protection(audit: Engine, change: str) -> None:
    with pytest.raises(ProgrammingError, match="must be owner"), audit.begin() as connection:
        connection.execute(text(change))


@pytest.mark.parametrize("role", ["origin", "replica"])
@pytest.mark.parametrize("change", CHANGES)
def test_the_trigger_refuses_changes_by_a_superuser(superuser: Engine, change: str, role: str) -> None:
    appended(superuser, an_entry())
    with superuser.connect() as connection:
        connection.execute(text(f"SET LOCAL session_replication_role = {role}"))
        with pytest.raises(ProgrammingError, match="audit_log is append-only"):
            connection.execute(text(change))


def test_the_application_may_write_present_and_future_other_tables(audit: Engine, superuser: Engine) -> None:
    with superuser.begin() as connection:
        connection.execute(text("CREATE TABLE to_come (id serial, what text)"))
    with audit.begin() as connection:
        assert connection.scalar(text("SELECT current_user")) == "clm_app"
        connection.execute(text("INSERT INTO to_come (what) VALUES ('x')"))
        connection.execute(text("UPDATE to_come SET what = 'y'"))
        connection.execute(text("DELETE FROM to_come"))
        connection.execute(text("UPDATE training_jobs SET symbol = symbol"))


def test_a_rollback_does_not_give_the_rights_back(audit: Engine) -> None:
    with audit.connect() as connection:
        connection.execute(text("SELECT 1"))
        connection.rollback()
        assert connection.scalar(text("SELECT current_user")) == "clm_app"


def test_a_user_without_the_role_gets_the_statements_for_an_administrator(
    database: Database, migrated: str
) -> None:
    name = f"plain_{uuid.uuid4().hex}"
    url = urlsplit(migrated)._replace(path=f"/{name}", netloc=f"{name}:@").geturl()
    with psycopg.connect(database.server, autocommit=True) as administrator:
        administrator.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(name)))
        administrator.execute(SQL("CREATE DATABASE {0} OWNER {0}").format(Identifier(name)))
        with pytest.raises(DatabaseUnavailable, match="GRANT clm_app TO <user>"):
            upgrade(url)
        administrator.execute(SQL("GRANT clm_app TO {}").format(Identifier(name)))
    upgrade(url)
    engine = open_engine(url)
    assert appended(engine, an_entry()) == [1]
    engine.dispose()


UNGUARDED = "ALTER TABLE audit_log DISABLE TRIGGER audit_log_append_only; "


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        pytest.param(
            "UPDATE audit_log SET actor = 'eve' WHERE seq = 4", [(Tampering.EDITED, 4, 4)], id="edited"
        ),
        pytest.param(
            "UPDATE audit_log SET at = 'infinity' WHERE seq = 4", [(Tampering.EDITED, 4, 4)], id="no time"
        ),
        pytest.param(
            "UPDATE audit_log SET details = jsonb_set(details, '{score}', '47.50000000000000000001') "
            "WHERE seq = 4",
            [(Tampering.EDITED, 4, 4)],
            id="edited by less than a double tells",
        ),
        pytest.param(
            "DELETE FROM audit_log WHERE seq BETWEEN 4 AND 5", [(Tampering.MISSING, 4, 5)], id="deleted"
        ),
        pytest.param(
            "UPDATE audit_log SET seq = -1 WHERE seq = 4; UPDATE audit_log SET seq = 4 WHERE seq = 7; "
            "UPDATE audit_log SET seq = 7 WHERE seq = -1",
            [(Tampering.SWAPPED, 4, 4), (Tampering.SWAPPED, 7, 7)],
            id="swapped",
        ),
        pytest.param(
            "UPDATE audit_log SET seq = seq + 100 WHERE seq >= 4; "
            "UPDATE audit_log SET seq = seq - 99 WHERE seq > 100; "
            "INSERT INTO audit_log SELECT 4, at, 'eve', role, action, subject, details, hash, 'made up' "
            "FROM audit_log WHERE seq = 3",
            [(Tampering.EDITED, 4, 4), (Tampering.INSERTED, 4, 4)],
            id="inserted",
        ),
        pytest.param(
            "DELETE FROM audit_log WHERE seq > 5", [(Tampering.TRUNCATED, 6, 8)], id="truncated tail"
        ),
        pytest.param("TRUNCATE audit_log", [(Tampering.TRUNCATED, 1, 8)], id="emptied"),
    ],
)
def test_changes_by_a_superuser_without_the_trigger_are_detected(
    audit: Engine, superuser: Engine, tmp_path: Path, sql: str, expected: list[tuple[Tampering, int, int]]
) -> None:
    appended(audit, *(an_entry(number, score=47.5) for number in range(8)))
    anchor(audit, tmp_path, NOW)
    appended(audit, an_entry(9))
    assert problems_of(audit, tmp_path) == []
    unchecked = "ALTER TABLE audit_log DROP CONSTRAINT ck_audit_log_seq; "
    with superuser.begin() as connection:
        connection.execute(text(UNGUARDED + unchecked + sql))
    problems = problems_of(audit, tmp_path)
    assert [(problem.kind, problem.first, problem.last) for problem in problems] == expected


@pytest.mark.parametrize(
    ("sql", "broken"),
    [
        pytest.param("SELECT", [None, None, None], id="intact"),
        pytest.param("UPDATE audit_log SET actor = 'eve' WHERE seq = 4", [None, 4, None], id="edited"),
        pytest.param("DELETE FROM audit_log WHERE seq = 4", [None, 5, None], id="deleted"),
        pytest.param("DELETE FROM audit_log WHERE seq = 1", [2, None, None], id="first deleted"),
        pytest.param("UPDATE audit_log SET prev_hash = '' WHERE seq = 7", [None, None, 7], id="cut"),
    ],
)
def test_the_first_broken_entry_of_a_part_of_the_log_is_named(
    audit: Engine, superuser: Engine, sql: str, broken: list[int | None]
) -> None:
    assert broken_entry(audit, after=0, limit=3) is None
    appended(audit, *map(an_entry, range(7)))
    with superuser.begin() as connection:
        connection.execute(text(UNGUARDED + sql))
    broken_entries = [broken_entry(audit, after, limit=3) for after in (0, 3, 6)]
    assert [None if each is None else each.seq for each in broken_entries] == broken
    for each in broken_entries:
        assert each is None or broken_entry(audit, each.seq - 1, limit=1) == each


def test_a_rewritten_history_contradicts_its_anchor(audit: Engine, superuser: Engine, tmp_path: Path) -> None:
    appended(audit, *map(an_entry, range(3)))
    anchor(audit, tmp_path, NOW)
    appended(audit, *map(an_entry, range(3, 5)))
    anchor(audit, tmp_path, NOW)
    with superuser.begin() as connection:
        connection.execute(text(UNGUARDED + "DELETE FROM audit_log WHERE seq > 3"))
    appended(superuser, an_entry(99), an_entry(4))
    assert verify(audit, []).problems == ()
    [problem] = problems_of(audit, tmp_path)
    assert (problem.kind, problem.first, problem.last) == (Tampering.REWRITTEN, 4, 5)
    with pytest.raises(AuditBroken, match="Entry 5 of the audit differs from the entry anchored"):
        anchor(audit, tmp_path, NOW)


def test_entries_before_the_last_sound_one_are_not_read_again(audit: Engine, superuser: Engine) -> None:
    appended(audit, *map(an_entry, range(6)))
    sound = list[tuple[int, str]]()
    whole = verify(audit, [], note=lambda *entry: sound.append(entry))
    assert [seq for seq, _ in sound] == [1, 2, 3, 4, 5, 6]
    third = Anchor(at=NOW, seq=3, hash=sound[2][1], count=3)
    again = list[tuple[int, str]]()
    rest = verify(audit, [], third, note=lambda *entry: again.append(entry))
    assert (rest, again) == (replace(whole, anchored=3), sound[3:])
    early, late = (Anchor(at=NOW, seq=seq, hash=sound[seq - 1][1], count=seq) for seq in (2, 5))
    assert verify(audit, [early, late], third) == verify(audit, [early, late])


def test_a_change_behind_the_last_sound_entry_is_found_by_its_hash(audit: Engine, superuser: Engine) -> None:
    appended(audit, *map(an_entry, range(5)))
    sound = dict[int, str]()
    verify(audit, [], note=sound.__setitem__)
    checked = Anchor(at=NOW, seq=3, hash=sound[3], count=3)
    with superuser.begin() as connection:
        connection.execute(text(UNGUARDED + "DELETE FROM audit_log WHERE seq > 1"))
    appended(superuser, *map(an_entry, range(7, 10)))
    [problem] = verify(audit, [], checked).problems
    assert (problem.kind, problem.first, problem.last) == (Tampering.REWRITTEN, 1, 3)


def test_an_anchor_is_written_after_new_entries_only(audit: Engine, tmp_path: Path) -> None:
    assert anchor(audit, tmp_path, NOW) is None
    appended(audit, an_entry(1), an_entry(2))
    first = anchor(audit, tmp_path, NOW)
    assert first is not None
    assert (first.seq, first.count, first.hash, first.at) == (2, 2, entries(audit)[0].hash, NOW)
    assert anchor(audit, tmp_path, NOW + timedelta(hours=1)) is None
    appended(audit, an_entry(3))
    second = anchor(audit, tmp_path, NOW + timedelta(days=1))
    assert read_anchors(tmp_path) == [first, second]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["2025-12-04.jsonl", "2025-12-05.jsonl"]


def test_a_damaged_anchor_is_named_with_its_line(audit: Engine, tmp_path: Path) -> None:
    appended(audit, an_entry())
    anchor(audit, tmp_path, NOW)
    with (tmp_path / "2025-12-04.jsonl").open("a") as file:
        file.write('{"at": "2025-12')
    for call in (lambda: read_anchors(tmp_path), lambda: anchor(audit, tmp_path, NOW)):
        with pytest.raises(AuditBroken, match=r"Line 2 of .*2025-12-04\.jsonl is not an anchor"):
            call()


def test_an_export_is_verified_without_a_database(audit: Engine, tmp_path: Path) -> None:
    appended(audit, *(an_entry(number, score=0.1 * number, name="Zoë") for number in range(5)))
    anchors = tmp_path / "anchors"
    file = tmp_path / "audit.jsonl"
    anchor(audit, anchors, NOW)
    assert export(audit, file) == 5
    assert verify_export(file, read_anchors(anchors)) == verify(audit, read_anchors(anchors))
    lines = file.read_text().splitlines(keepends=True)
    for altered, expected in (
        (lines[:1] + lines[2:], [(Tampering.MISSING, 2)]),
        (lines[:4], [(Tampering.TRUNCATED, 5)]),
        ([line.replace("v2", "v9") for line in lines], [(Tampering.EDITED, 3)]),
        ([*lines[:4], lines[4].replace("Zoë", "\\ud800")], [(Tampering.EDITED, 5)]),
    ):
        file.write_text("".join(altered))
        problems = verify_export(file, read_anchors(anchors)).problems
        assert [(problem.kind, problem.first) for problem in problems] == expected


@pytest.mark.parametrize("line", ["", "{", "[]", '{"seq": 1}'], ids=["empty", "cut", "list", "lacking"])
def test_a_line_without_an_entry_is_named(line: str, tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    file.write_text(f"{line}\n")
    with pytest.raises(AuditBroken, match=r"Line 1 of .*audit\.jsonl is not an audit entry"):
        verify_export(file, [])
