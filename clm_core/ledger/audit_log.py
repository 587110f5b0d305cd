"""The audit: who did what to what, and when, in a log that is only ever added to.

    with engine.begin() as connection:
        ...  # the change itself
        append(
            connection,
            AuditEntry(
                at=now,
                actor=Actor(name="ada", role=Role.OPERATOR),
                action=Action.VERSION_RETIRED,
                subject=version.model_id,
                details={"version": version.version},
            ),
        )

The entry is there if and only if the change is. What keeps it as it was written:

    the application   works as the role `clm_app`, which has neither UPDATE nor DELETE nor TRUNCATE here
    anybody else      meets a trigger that refuses them; so does SQL smuggled into the application, which can
                      leave the role where the login user is more, as on the embedded server
    a superuser       can switch the trigger off, but breaks the chain (`chain.py`) unless he computes every
                      later hash anew; then the log no longer agrees with its anchors

Anchors are lines in files outside the database, one after every command that added something: number and
hash of the newest entry. Whoever can write to the database, but not to these files, can change, remove or
reorder nothing up to the newest anchor without being found. He can add false entries, and rewrite those that
are younger than the newest anchor. Whoever can write both can rewrite everything: copy the anchors to where
he can't reach. A PostgreSQL superuser writes files as the user that the server runs as.
"""

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rfc8785
from pydantic import ValidationError
from pydantic_core import to_jsonable_python
from sqlalchemy import Connection, Engine, Select, Text, cast, func, insert, or_, select

from clm_core.domain.audit import AuditEntry
from clm_core.domain.errors import AuditBroken
from clm_core.ledger.hash_chain import GENESIS, Anchor, ChainReport, Recorded, check, digest, parse
from clm_core.ledger.tables import AuditRow, Base, storable
from clm_core.platform.locks import AdvisoryLock

_LOG = Base.metadata.tables[AuditRow.__tablename__]
# times as text: an altered one may be none that Python can hold
_UTC = func.coalesce(func.to_char(func.timezone("UTC", _LOG.c.at), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), "")
_NEWEST = select(_LOG.c.seq, _LOG.c.hash).order_by(_LOG.c.seq.desc()).limit(1)
_RECORDED = select(
    *(column for column in _LOG.c if column.name not in {"at", "details"}),
    _UTC.label("at"),
    cast(_LOG.c.details, Text).label("details"),
)


def append(connection: Connection, entry: AuditEntry) -> int:
    """Add an entry in the caller's transaction; returns its number.

    Call it last: until the transaction ends, everybody else who appends waits. The transaction has to be
    READ COMMITTED, as it is by default; a stricter one may not see the newest entry, and is refused then.
    """
    # two at once would follow the same entry
    connection.execute(select(func.pg_advisory_xact_lock(AdvisoryLock.AUDIT)))
    newest = connection.execute(_NEWEST).one_or_none()
    seq, prev_hash = (1, GENESIS) if newest is None else (newest.seq + 1, newest.hash)
    said = {
        "at": entry.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "actor": entry.actor.name,
        "role": entry.actor.role,
        "action": entry.action,
        "subject": entry.subject,
        "details": entry.details,
        "prev_hash": prev_hash,
    }
    content = _plain(to_jsonable_python(said))
    connection.execute(insert(_LOG), content | {"seq": seq, "at": entry.at, "hash": digest(content)})
    return seq


def entries(engine: Engine, model_id: str | None = None, limit: int = 50) -> list[Recorded]:
    """Newest first; of one model, its jobs included, or of all."""
    wanted = _RECORDED.order_by(_LOG.c.seq.desc()).limit(limit)
    if model_id is not None:
        of_job = _LOG.c.details["model_id"].astext == model_id
        wanted = wanted.where(or_(_LOG.c.subject == model_id, of_job))
    with engine.connect() as connection:
        return [_recorded(row) for row in connection.execute(wanted).mappings()]


def entries_after(engine: Engine, seq: int, limit: int) -> list[Recorded]:
    """The entries after that number, oldest first: page by page, the whole audit."""
    wanted = _RECORDED.where(_LOG.c.seq > seq).order_by(_LOG.c.seq).limit(limit)
    with engine.connect() as connection:
        return [_recorded(row) for row in connection.execute(wanted).mappings()]


def verify(engine: Engine, anchors: Iterable[Anchor]) -> ChainReport:
    """Check every entry, the order of them all, and that they are those that were anchored."""
    # it may be read twice, and somebody may append meanwhile
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        return check(lambda: _stream(connection), list(anchors))


def export(engine: Engine, file: Path) -> int:
    """Write all entries as JSON lines; returns how many. The file is there whole or not at all."""
    unfinished = file.with_name(f"{file.name}.unfinished")
    count = 0
    with engine.connect() as connection, unfinished.open("wb") as output:
        for entry in _stream(connection):
            output.write(rfc8785.dumps(entry.model_dump()) + b"\n")
            count += 1
    unfinished.replace(file)
    return count


def verify_export(file: Path, anchors: Iterable[Anchor]) -> ChainReport:
    """`verify` for a file that `export` wrote; no database is needed.

    Raises:
        AuditBroken: a line is no entry.
    """
    return check(lambda: _exported(file), list(anchors))


def anchor_folder(home: Path) -> Path:
    return home / "audit" / "anchors"


def anchor(engine: Engine, folder: Path, now: datetime) -> Anchor | None:
    """Write the newest entry's number and hash down in the day's file; None: it is there already.

    Raises:
        AuditBroken: the entry of the newest anchor is not in the log as it was.
    """
    last = _last_anchor(folder)
    covered, counted = (0, 0) if last is None else (last.seq, last.count)
    with engine.connect() as connection:
        if last is not None and connection.scalar(_hash_of(last.seq)) != last.hash:
            raise AuditBroken(
                f"Entry {last.seq} of the audit is no longer the one that was anchored at "
                f"{last.at:%Y-%m-%d %H:%M:%S} UTC: `clm audit verify` says what was changed."
            )
        newest = connection.execute(_NEWEST).one_or_none()
        if newest is None or newest.seq == covered:
            return None
        since = select(func.count()).where(_LOG.c.seq.between(covered + 1, newest.seq))
        counted += connection.scalars(since).one()
    written = Anchor(at=now, seq=newest.seq, hash=newest.hash, count=counted)
    _write_line(folder, f"{now.astimezone(UTC):%Y-%m-%d}.jsonl", written.model_dump_json())
    return written


def read_anchors(folder: Path) -> list[Anchor]:
    """By ascending number; none where there is no such folder.

    Raises:
        AuditBroken: a line is no anchor.
    """
    found = [anchor for file in folder.glob("*.jsonl") for anchor in _anchors(file)]
    return sorted(found, key=lambda anchor: anchor.seq)


def _last_anchor(folder: Path) -> Anchor | None:
    """Of the newest file that has any: enough to see whether there is something new."""
    for file in sorted(folder.glob("*.jsonl"), reverse=True):
        if found := list(_anchors(file)):
            return max(found, key=lambda anchor: anchor.seq)
    return None


def _anchors(file: Path) -> Iterator[Anchor]:
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        try:
            yield Anchor.model_validate_json(line)
        except ValidationError as error:
            raise AuditBroken(
                f"Line {number} of {file} is no anchor. If the machine lost power while it was written, "
                "remove it; else restore the file from a copy."
            ) from error


def _write_line(folder: Path, name: str, line: str) -> None:
    """One unbuffered write at the file's end, so that two writers' lines don't mix; synced to the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("ab", buffering=0) as file:
        file.write(f"{line}\n".encode())
        os.fsync(file.fileno())


def _hash_of(seq: int) -> Select[tuple[str]]:
    return select(_LOG.c.hash).where(_LOG.c.seq == seq)


def _stream(connection: Connection) -> Iterator[Recorded]:
    rows = connection.execution_options(yield_per=1000).execute(_RECORDED.order_by(_LOG.c.seq))
    return map(_recorded, rows.mappings())


def _recorded(row: Mapping[Any, Any]) -> Recorded:
    return Recorded.model_validate({**row, "details": parse(row["details"])})


def _exported(file: Path) -> Iterator[Recorded]:
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield Recorded.model_validate(parse(line))
            except ValueError as error:
                raise AuditBroken(
                    f"Line {number} of {file} is no entry of the audit: export it anew, or use another copy."
                ) from error


def _plain(value: Any) -> Any:
    """What RFC 8785 can write and PostgreSQL can store."""
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case int() if abs(value) >= 2**53:
            return str(value)
        case str():
            return storable(value)
        case dict():
            return {storable(name): _plain(item) for name, item in value.items()}
        case list():
            return [_plain(item) for item in value]
    return value
