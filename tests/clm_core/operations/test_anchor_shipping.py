"""Anchors shipped outside the home: a folder, a git repository, a webhook and a time-stamp authority.

The attacker of these tests is a PostgreSQL superuser who can also write in the home.
"""

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from authorities import TestAuthority, authority, openssl
from pydantic import SecretStr, ValidationError
from sqlalchemy import Engine, create_engine, text
from standardwebhooks import Webhook
from typer.testing import CliRunner, Result

from clm_core.cli.app import app
from clm_core.domain.actors import SYSTEM
from clm_core.domain.alerts import AlertKind
from clm_core.domain.audit import Action, AuditEntry
from clm_core.domain.audit_settings import AuditSettings
from clm_core.domain.webhook_settings import Subscriber
from clm_core.ledger import audit_log, timestamps
from clm_core.ledger.anchor_copies import FolderCopy, GitCopy
from clm_core.ledger.audit_log import anchor_folder, read_anchors
from clm_core.ledger.hash_chain import digest
from clm_core.operations import anchor_shipping, maintenance
from clm_core.operations.delivery import deliver
from clm_core.services import Services, open_services
from clm_core.settings import Settings

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None or shutil.which("git") is None, reason="openssl and git are not installed"
)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass(frozen=True)
class Audited:
    """A home of its own, whose audit has a few entries, and places for its anchors."""

    services: Services
    places: Path
    tsa: TestAuthority

    @property
    def home(self) -> Path:
        return self.services.settings.home

    @property
    def anchors(self) -> Path:
        return anchor_folder(self.home)

    @property
    def repository(self) -> Path:
        return self.places / "anchors.git"

    @property
    def folder(self) -> Path:
        return self.places / "volume"

    def add(self, entries: int = 1) -> None:
        """Add entries to the audit, and anchor the newest."""
        now = self.services.clock()
        with superuser(self) as engine, engine.begin() as connection:
            for _ in range(entries):
                entry = AuditEntry(at=now, actor=SYSTEM, action=Action.TOKEN_CREATED, subject="tests")
                audit_log.append(connection, entry)
        self.services.ledger.anchor(self.anchors, self.services.clock())

    def ship(self, *places: str) -> list[str]:
        """Ship to places of the settings; returns the sentences."""
        services = replace(self.services, settings=self.settings(*places))
        return [sentence for _, step in anchor_shipping.steps(services) for sentence in step()]

    def settings(self, *places: str) -> Settings:
        audit = {
            "folder": {"folder": self.folder},
            "git": {"git": SecretStr(str(self.repository))},
            "timestamp": {
                "timestamp_url": self.tsa.url,
                "timestamp_certificates": self.tsa.certificates,
            },
        }
        chosen = {name: value for place in places for name, value in audit[place].items()}
        return self.services.settings.model_copy(update={"audit": AuditSettings.model_validate(chosen)})

    def clm(self, *arguments: str, places: tuple[str, ...] = ()) -> Result:
        variables = {
            "folder": {"CLM_AUDIT__FOLDER": str(self.folder)},
            "git": {"CLM_AUDIT__GIT": str(self.repository)},
            "timestamp": {
                "CLM_AUDIT__TIMESTAMP_URL": self.tsa.url,
                "CLM_AUDIT__TIMESTAMP_CERTIFICATES": str(self.tsa.certificates),
            },
        }
        environment = {"CLM_HOME": str(self.home)}
        for place in places:
            environment |= variables[place]
        return CliRunner().invoke(app, arguments, env=environment)

    def alerts(self) -> set[tuple[AlertKind, str]]:
        return {(alert.kind, alert.subject) for alert in self.services.alerts.lasting()}


@pytest.fixture(scope="module")
def tsa(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestAuthority]:
    with authority(tmp_path_factory.mktemp("authority") / "tsa") as served:
        yield served


@pytest.fixture(scope="module")
def own(make_home: Callable[[str], Path]) -> Iterator[Services]:
    """Services of a home whose audit may be destroyed."""
    with open_services(Settings(home=make_home("anchors"), database_url=None)) as services:
        yield services


@pytest.fixture
def audited(own: Services, tmp_path: Path, tsa: TestAuthority) -> Iterator[Audited]:
    (tmp_path / "volume").mkdir()
    git("init", "--bare", "--quiet", str(tmp_path / "anchors.git"))
    tsa.answers = True
    prepared = Audited(own, tmp_path, tsa)
    prepared.add(3)
    prepared.add(3)
    yield prepared
    with superuser(prepared) as engine, engine.begin() as connection:
        connection.execute(text("ALTER TABLE audit_log DISABLE TRIGGER ALL"))
        connection.execute(text("TRUNCATE audit_log, alerts, outbox, receivers CASCADE"))
        connection.execute(text("ALTER TABLE audit_log ENABLE ALWAYS TRIGGER audit_log_append_only"))
    shutil.rmtree(own.settings.home / "audit")


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout


@contextmanager
def superuser(audited: Audited) -> Iterator[Engine]:
    engine = create_engine(audited.services.database.url("ledger"))
    yield engine
    engine.dispose()


def truncate(audited: Audited) -> None:
    """Delete the newest entries."""
    with superuser(audited) as engine, engine.begin() as connection:
        connection.execute(text("ALTER TABLE audit_log DISABLE TRIGGER ALL"))
        connection.execute(text("DELETE FROM audit_log WHERE seq > 4"))


def rewrite(audited: Audited) -> None:
    """Change an entry and compute all later hashes anew."""
    with superuser(audited) as engine:
        entries = audit_log.entries_after(engine, 0, 100)
        before = entries[2].prev_hash
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE audit_log DISABLE TRIGGER ALL"))
            for entry in entries[2:]:
                content = entry.model_dump(exclude={"seq", "hash"}) | {"actor": "eve", "prev_hash": before}
                row = {"seq": entry.seq, "actor": "eve", "prev": before, "hash": digest(content)}
                change = (
                    "UPDATE audit_log SET actor = :actor, prev_hash = :prev, hash = :hash WHERE seq = :seq"
                )
                connection.execute(text(change), row)
                before = row["hash"]


def forge_local_anchors(audited: Audited) -> None:
    """Delete all anchors and timestamps of the home, and anchor the changed audit."""
    shutil.rmtree(audited.anchors)
    shutil.rmtree(audited.home / "audit" / "git", ignore_errors=True)
    audited.services.ledger.anchor(audited.anchors, audited.services.clock())


@pytest.mark.parametrize("attack", [truncate, rewrite], ids=lambda attack: attack.__name__)
@pytest.mark.parametrize("place", ["folder", "git"])
def test_a_forged_audit_with_forged_local_anchors_contradicts_a_shipped_copy(
    place: str, attack: Callable[[Audited], None], audited: Audited
) -> None:
    assert any("2 anchors were shipped" in sentence for sentence in audited.ship(place))
    assert audited.clm("audit", "verify", places=(place,)).exit_code == 0
    attack(audited)
    forge_local_anchors(audited)
    # without a copy the forgery is perfect
    assert audited.clm("audit", "verify").exit_code == 0
    verification = audited.clm("audit", "verify", places=(place,))
    assert "The audit was changed" in str(verification.exception)
    report = maintenance.run(replace(audited.services, settings=audited.settings(place)))
    assert AlertKind.AUDIT_BROKEN in {alert.kind for alert in report.conditions}


@pytest.mark.parametrize("attack", [truncate, rewrite], ids=lambda attack: attack.__name__)
def test_a_forged_audit_contradicts_a_copy_named_by_anchors(
    attack: Callable[[Audited], None], audited: Audited, tmp_path: Path
) -> None:
    shutil.copytree(audited.anchors, tmp_path / "copy")
    attack(audited)
    forge_local_anchors(audited)
    verification = audited.clm("audit", "verify", "--anchors", str(tmp_path / "copy"))
    assert "The audit was changed" in str(verification.exception)


@pytest.mark.parametrize("attack", [truncate, rewrite], ids=lambda attack: attack.__name__)
def test_a_forged_audit_contradicts_the_timestamps_in_the_home(
    attack: Callable[[Audited], None], audited: Audited
) -> None:
    assert "entry 6 is stamped" in audited.ship("timestamp")[0]
    attack(audited)
    for file in audited.anchors.glob("*.jsonl"):
        file.unlink()
    assert audited.clm("audit", "verify").exit_code == 0
    verification = audited.clm("audit", "verify", places=("timestamp",))
    assert "The audit was changed" in str(verification.exception)


def test_a_build_that_reads_no_copies_believes_a_forged_audit(
    audited: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clm_core.operations.anchor_shipping.compare", lambda audit, home: [])
    with pytest.raises(AssertionError):
        test_a_forged_audit_with_forged_local_anchors_contradicts_a_shipped_copy("folder", truncate, audited)


def test_a_copy_that_contradicts_the_audit_gets_no_forged_anchors(audited: Audited) -> None:
    audited.ship("folder")
    before = read_anchors(audited.folder)
    truncate(audited)
    forge_local_anchors(audited)
    [sentence] = audited.ship("folder")
    assert "Entry 6 of the audit is missing, or differs" in sentence
    assert read_anchors(audited.folder) == before
    assert audited.alerts() == {(AlertKind.AUDIT_BROKEN, f"folder {audited.folder}")}


def test_every_place_gets_what_it_missed_and_its_alert_ends(audited: Audited) -> None:
    audited.folder.rename(audited.places / "unmounted")
    audited.repository.rename(audited.places / "moved.git")
    audited.tsa.answers = False
    failed = audited.ship("folder", "git", "timestamp")
    assert len(failed) == 3
    assert audited.clm("audit", "ship", places=("folder",)).exit_code == 1
    copy = GitCopy(SecretStr(str(audited.repository)), "clm-anchors", audited.home / "audit" / "git")
    names = {f"folder {audited.folder}", copy.name, "timestamp"}
    assert audited.alerts() == {(AlertKind.ANCHORS_NOT_SHIPPED, name) for name in names}
    audited.add()
    (audited.places / "unmounted").rename(audited.folder)
    (audited.places / "moved.git").rename(audited.repository)
    audited.tsa.answers = True
    audited.ship("folder", "git", "timestamp")
    assert audited.alerts() == set()
    anchors = read_anchors(audited.anchors)
    assert len(anchors) == 3
    assert read_anchors(audited.folder) == anchors
    assert read_anchors(copy.folder()) == anchors
    for folder in (audited.folder, copy.folder()):
        assert [token.seq for token in timestamps.tokens(folder)] == [anchors[-1].seq]
    assert audited.ship("folder", "git", "timestamp") == []


def test_an_unreachable_place_fails_no_maintenance_and_fails_the_verification(audited: Audited) -> None:
    audited.folder.rmdir()
    report = maintenance.run(replace(audited.services, settings=audited.settings("folder")))
    assert report.failed == ()
    assert AlertKind.ANCHORS_NOT_SHIPPED in {alert.kind for alert in report.conditions}
    verified = audited.clm("audit", "verify", places=("folder",))
    assert verified.exit_code == 1
    assert "NOT READ" in verified.stdout
    assert f"not compared with: folder {audited.folder}" in str(verified.exception)


def test_a_repository_has_a_commit_for_each_anchor(audited: Audited) -> None:
    audited.ship("git")
    audited.add()
    audited.ship("git")
    subjects = git("-C", str(audited.repository), "log", "--format=%s", "clm-anchors").splitlines()
    assert subjects == ["Anchor entry 7", "Anchor entry 6", "Anchor entry 3"]


def rewind_branch(audited: Audited) -> None:
    commit = git("-C", str(audited.repository), "rev-parse", "clm-anchors~1").strip()
    git("-C", str(audited.repository), "update-ref", "refs/heads/clm-anchors", commit)


def delete_branch(audited: Audited) -> None:
    git("-C", str(audited.repository), "update-ref", "-d", "refs/heads/clm-anchors")


@pytest.mark.parametrize("damage", [rewind_branch, delete_branch], ids=lambda damage: damage.__name__)
def test_a_rewritten_or_deleted_branch_is_reported_and_not_written_to(
    damage: Callable[[Audited], None], audited: Audited
) -> None:
    audited.ship("git")
    damage(audited)
    before = git("-C", str(audited.repository), "for-each-ref")
    audited.add()
    audited.ship("git")
    assert {kind for kind, _ in audited.alerts()} == {AlertKind.AUDIT_BROKEN}
    assert git("-C", str(audited.repository), "for-each-ref") == before
    assert audited.clm("audit", "verify", places=("git",)).exit_code == 1


def test_commits_that_the_repository_never_accepted_are_shipped_again(audited: Audited) -> None:
    audited.ship("git")
    hook = audited.repository / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    audited.add()
    assert "git push failed" in audited.ship("git")[0]
    hook.unlink()
    assert "1 anchors were shipped" in audited.ship("git")[0]
    assert audited.alerts() == set()


def test_a_password_in_the_url_of_a_repository_is_in_no_message(audited: Audited) -> None:
    audit = AuditSettings(git=SecretStr(f"file://ada:hunter2@localhost{audited.places}/nowhere.git"))
    services = audited.services
    settings = services.settings.model_copy(update={"audit": audit})
    [(place, step)] = anchor_shipping.steps(replace(services, settings=settings))
    said = step()
    assert said
    sentences = [place, *said, *(alert.message for alert in services.alerts.lasting())]
    assert not any("hunter2" in sentence for sentence in sentences)


def test_a_repository_that_looks_like_an_option_is_refused() -> None:
    with pytest.raises(ValidationError, match="git clone"):
        AuditSettings(git=SecretStr("--upload-pack=touch /tmp/x"))


@pytest.mark.parametrize("name", ["timestamp_url", "timestamp_certificates"])
def test_a_timestamp_authority_without_certificates_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="belong together"):
        AuditSettings.model_validate({name: "http://localhost/"})


def test_a_line_torn_by_a_full_volume_is_completed(audited: Audited) -> None:
    """A timestamp written in part is completed; nothing of a copy is overwritten."""
    audited.ship("timestamp", "folder")
    [token] = timestamps.tokens(audited.folder)
    whole = token.file.read_bytes()
    token.file.write_bytes(whole[:100])
    assert FolderCopy(audited.folder).ship(audited.anchors) == 0
    assert token.file.read_bytes() == whole


def test_a_timestamp_is_verified_by_openssl_without_this_software(audited: Audited, tmp_path: Path) -> None:
    audited.ship("timestamp")
    [token] = timestamps.tokens(audited.anchors)
    (tmp_path / "hash").write_text(token.hash)
    root = str(audited.tsa.certificates)
    openssl("ts", "-verify", "-data", "hash", "-in", str(token.file), "-CAfile", root, folder=tmp_path)


def of_another_hash(audited: Audited) -> bytes:
    audited.add()
    audited.ship("timestamp")
    [_, newest] = timestamps.tokens(audited.anchors)
    return newest.file.read_bytes()


def of_another_authority(audited: Audited) -> bytes:
    with authority(audited.places / "other") as other:
        newest = read_anchors(audited.anchors)[-1]
        timestamps.Authority(other.url, other.certificates).stamp(newest, audited.places)
    [token] = timestamps.tokens(audited.places)
    return token.file.read_bytes()


def damaged(audited: Audited) -> bytes:
    [token] = timestamps.tokens(audited.anchors)
    return token.file.read_bytes()[:-20]


@pytest.mark.parametrize(
    "forged", [of_another_hash, of_another_authority, damaged], ids=lambda forged: forged.__name__
)
def test_a_timestamp_that_the_authority_did_not_give_is_refused(
    forged: Callable[[Audited], bytes], audited: Audited
) -> None:
    audited.ship("timestamp")
    assert audited.clm("audit", "verify", places=("timestamp",)).exit_code == 0
    [token] = timestamps.tokens(audited.anchors)
    token.file.write_bytes(forged(audited))
    verified = audited.clm("audit", "verify", places=("timestamp",))
    assert verified.exit_code == 1
    assert "the timestamp cannot be trusted" in verified.stdout


@dataclass
class Receiver:
    url: str = ""
    status: int = 503
    received: list[tuple[str, dict[str, str]]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    own = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            own.received.append((body, {name.lower(): value for name, value in self.headers.items()}))
            self.send_response(own.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing: a test has no use for the lines."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    own.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    yield own
    server.shutdown()
    server.server_close()


def test_a_webhook_gets_every_anchor_signed_and_nothing_else(audited: Audited, receiver: Receiver) -> None:
    webhook = Subscriber(url=SecretStr(receiver.url), secret=SecretStr(SECRET))
    settings = audited.services.settings.model_copy(update={"audit": AuditSettings(webhook=webhook)})
    services = replace(audited.services, settings=settings)

    def announce() -> None:
        for _, step in anchor_shipping.steps(services):
            step()

    announce()
    announce()
    [result] = deliver(services)
    assert (result.sent, result.waiting) == (0, 1)
    assert result.last_error == "the receiver answered with status 503"
    receiver.status = 204
    receiver.received.clear()
    with superuser(audited) as engine, engine.begin() as connection:
        connection.execute(text("UPDATE receivers SET retry_at = NULL"))
    audited.add()
    announce()
    deliver(services)
    events = [Webhook(SECRET).verify(body, headers) for body, headers in receiver.received]
    anchors = read_anchors(audited.anchors)[1:]
    assert [each["type"] for each in events] == ["clm.audit_anchored"] * 2
    assert [(each["data"]["seq"], each["data"]["hash"]) for each in events] == [
        (anchor.seq, anchor.hash) for anchor in anchors
    ]
    assert json.loads(receiver.received[0][0])["data"]["count"] == anchors[0].count
