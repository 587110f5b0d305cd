"""The audit: an append-only log of every change, with actor, action, subject and time.

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

The transaction of the change contains the entry, so that neither exists without the other. Protection
against later changes:

    the application   works in the role `clm_app`, which lacks UPDATE, DELETE and TRUNCATE on the log
    other users       are refused by a trigger; so is injected SQL, which could leave the role `clm_app` where
                      the login user has more rights, as on the embedded server
    a superuser       can switch the trigger off, but breaks the hash chain (`hash_chain.py`) unless every
                      later hash is computed anew; then the log no longer agrees with its anchors

Anchors are lines in files outside the database with the number and hash of the newest entry, written after
every command that added entries. Without access to the anchors, an attacker with full access to the database
cannot change, remove or reorder entries up to the newest anchor undetected, but can add false entries and
rewrite entries younger than the newest anchor. With access to both, an attacker can rewrite everything but
the copies of the anchors elsewhere: see `anchor_copies`. A PostgreSQL superuser writes files as the user of
the server process.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import rfc8785
from pydantic import ValidationError
from pydantic_core import to_jsonable_python
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Connection,
    Engine,
    Select,
    Text,
    any_,
    cast,
    func,
    insert,
    literal,
    or_,
    select,
)

from clm_core.domain.audit import AuditEntry
from clm_core.domain.errors import AuditBroken
from clm_core.domain.progress import Announce
from clm_core.ledger.hash_chain import GENESIS, Anchor, ChainReport, Recorded, check, digest, parse
from clm_core.ledger.tables import AuditRow, Base, storable
from clm_core.platform.locks import AdvisoryLock

_LOG = Base.metadata.tables[AuditRow.__tablename__]
# times as text: an altered time may be outside the range of Python
_UTC = func.coalesce(func.to_char(func.timezone("UTC", _LOG.c.at), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), "")
_LOCKED = select(func.pg_advisory_xact_lock(AdvisoryLock.AUDIT))
_NEWEST = select(_LOG.c.seq, _LOG.c.hash).order_by(_LOG.c.seq.desc()).limit(1)
_RECORDED = select(
    *(column for column in _LOG.c if column.name not in {"at", "details"}),
    _UTC.label("at"),
    cast(_LOG.c.details, Text).label("details"),
)


_SEE = "`clm audit verify` lists the changes."


class BrokenEntry(NamedTuple):
    """An entry that was changed, or whose predecessor is gone."""

    seq: int
    message: str


def append(connection: Connection, entry: AuditEntry) -> int:
    """Append an entry in the caller's transaction; returns the entry's number.

    Call last in the transaction: until the end, other transactions that append wait. The transaction has to
    have the default isolation level READ COMMITTED; a stricter transaction may miss the newest entry, and is
    refused in the latter case.
    """
    # two concurrent entries would follow the same entry
    connection.execute(_LOCKED)
    newest = connection.execute(_NEWEST).one_or_none()
    seq, prev_hash = (1, GENESIS) if newest is None else (newest.seq + 1, newest.hash)
    written = {
        "at": entry.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "actor": entry.actor.name,
        "role": entry.actor.role,
        "action": entry.action,
        "subject": entry.subject,
        "details": entry.details,
        "prev_hash": prev_hash,
    }
    content = _plain(to_jsonable_python(written))
    connection.execute(insert(_LOG), content | {"seq": seq, "at": entry.at, "hash": digest(content)})
    return seq


def entries(engine: Engine, model_id: str | None = None, limit: int = 50) -> list[Recorded]:
    """Newest entries first: all entries, or entries about a model and the model's jobs."""
    query = _RECORDED.order_by(_LOG.c.seq.desc()).limit(limit)
    if model_id is not None:
        of_job = _LOG.c.details["model_id"].astext == model_id
        query = query.where(or_(_LOG.c.subject == model_id, of_job))
    with engine.connect() as connection:
        return [_recorded(row) for row in connection.execute(query).mappings()]


def entries_after(engine: Engine, seq: int, limit: int) -> list[Recorded]:
    """Entries after a number, oldest first; for reading the whole audit page by page."""
    query = _RECORDED.where(_LOG.c.seq > seq).order_by(_LOG.c.seq).limit(limit)
    with engine.connect() as connection:
        return [_recorded(row) for row in connection.execute(query).mappings()]


def verify(
    engine: Engine,
    anchors: Iterable[Anchor],
    checked: Anchor | None = None,
    note: Callable[[int, str], None] | None = None,
) -> ChainReport:
    """Check the content and order of all entries, and compare the log with the anchors.

    Args:
        checked: last entry of an interrupted verification, whose earlier entries are not read again. All are,
            if the log no longer agrees with this entry, or with an anchor before.
        note: called with number and hash of each entry while all entries so far are sound.
    """
    known = sorted([*anchors, *([] if checked is None else [checked])], key=lambda anchor: anchor.seq)
    # the log may be read twice, with entries appended meanwhile
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        start = 0
        if checked is not None:
            before = [anchor for anchor in known if anchor.seq <= checked.seq]
            held = _hashes(connection, before)
            start = checked.seq if all(held.get(each.seq) == each.hash for each in before) else 0
        report = check(lambda after: _stream(connection, after), known, start, note)
        return replace(report, anchors=len(known) - (checked is not None))


def newest_number(engine: Engine) -> int:
    """Number of the newest entry; 0 for an empty log."""
    with engine.connect() as connection:
        newest = connection.execute(_NEWEST).one_or_none()
    return 0 if newest is None else int(newest.seq)


def broken_entry(engine: Engine, after: int, limit: int) -> BrokenEntry | None:
    """First entry of a part of the log that was changed, or does not follow the entry before.

    Args:
        after: number of the entry before the part; 0 for the beginning of the log.
        limit: number of entries of the part.
    """
    query = _RECORDED.where(_LOG.c.seq <= after).order_by(_LOG.c.seq.desc()).limit(1)
    with engine.connect() as connection:
        last = connection.execute(query).mappings().one_or_none()
    seq, head = (0, GENESIS) if last is None else (last["seq"], last["hash"])
    for entry in entries_after(engine, after, limit):
        if not entry.intact:
            return BrokenEntry(entry.seq, f"Entry {entry.seq} of the audit was changed: {_SEE}")
        if (entry.seq, entry.prev_hash) != (seq + 1, head):
            return BrokenEntry(
                entry.seq, f"Entry {entry.seq} of the audit does not follow entry {seq}: {_SEE}"
            )
        seq = entry.seq
        head = entry.hash
    return None


def export(engine: Engine, file: Path, announce: Announce = lambda step, share: None) -> int:
    """Write all entries as JSON lines; returns the number of entries. The file is replaced as a whole."""
    unfinished = file.with_name(f"{file.name}.unfinished")
    count = 0
    total = max(newest_number(engine), 1)
    with engine.connect() as connection, unfinished.open("wb") as output:
        for entry in _stream(connection):
            output.write(rfc8785.dumps(entry.model_dump()) + b"\n")
            count += 1
            if count % 1000 == 0:
                announce(f"{count:,} of {total:,} entries", min(count / total, 1.0))
    unfinished.replace(file)
    return count


def verify_export(file: Path, anchors: Iterable[Anchor]) -> ChainReport:
    """Check a file written by `export`, without a database.

    Raises:
        AuditBroken: a line is not an entry.
    """

    def read(after: int) -> Iterator[Recorded]:
        return (entry for entry in _exported(file) if not after or entry.seq > after)

    return check(read, list(anchors))


def anchor_folder(home: Path) -> Path:
    return home / "audit" / "anchors"


def anchor(engine: Engine, folder: Path, now: datetime) -> Anchor | None:
    """Write number and hash of the newest entry to the day's file; None if the entry is anchored already.

    Raises:
        AuditBroken: the last anchored entry is missing from the log, or differs.
    """
    last = _last_anchor(folder)
    covered = 0 if last is None else last.seq
    counted = 0 if last is None else last.count
    with engine.connect() as connection:
        if last is not None and connection.scalar(_hash_of(last.seq)) != last.hash:
            raise AuditBroken(
                f"Entry {last.seq} of the audit differs from the entry anchored at "
                f"{last.at:%Y-%m-%d %H:%M:%S} UTC: `clm audit verify` lists the changes."
            )
        newest = connection.execute(_NEWEST).one_or_none()
        if newest is None or newest.seq == covered:
            return None
        since = select(func.count()).where(_LOG.c.seq.between(covered + 1, newest.seq))
        counted += connection.scalars(since).one()
    written = Anchor(at=now, seq=newest.seq, hash=newest.hash, count=counted)
    write_line(folder, f"{now.astimezone(UTC):%Y-%m-%d}.jsonl", written.model_dump_json())
    return written


def require_held(engine: Engine, anchors: Sequence[Anchor], place: str) -> None:
    """Compare the log with the anchors of a place outside the home, without a check of the chain.

    Args:
        place: place of the anchors, for the message.

    Raises:
        AuditBroken: an anchored entry is missing from the log, or differs.
    """
    with engine.connect() as connection:
        held = _hashes(connection, anchors)
    for anchor in anchors:
        if held.get(anchor.seq) != anchor.hash:
            raise AuditBroken(
                f"Entry {anchor.seq} of the audit is missing, or differs from the entry anchored in {place} "
                f"at {anchor.at:%Y-%m-%d %H:%M:%S} UTC: `clm audit verify` lists the changes."
            )


def read_anchors(folder: Path, files: str = "*.jsonl") -> list[Anchor]:
    """Anchors by ascending number; empty if the folder does not exist.

    Args:
        files: pattern of the names of the files.

    Raises:
        AuditBroken: a line is not an anchor.
    """
    anchors = [anchor for file in folder.glob(files) for anchor in _anchors(file)]
    return sorted(anchors, key=lambda anchor: anchor.seq)


def _last_anchor(folder: Path) -> Anchor | None:
    """Newest anchor, from the newest file with anchors."""
    for file in sorted(folder.glob("*.jsonl"), reverse=True):
        if anchors := list(_anchors(file)):
            return max(anchors, key=lambda anchor: anchor.seq)
    return None


def _anchors(file: Path) -> Iterator[Anchor]:
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        try:
            yield Anchor.model_validate_json(line)
        except ValidationError as error:
            raise AuditBroken(
                f"Line {number} of {file} is not an anchor. Remove the line if the machine lost power during "
                "the write; otherwise restore the file from a copy."
            ) from error


def write_line(folder: Path, name: str, line: str) -> None:
    """Append a line by a single unbuffered write, so that concurrent lines don't mix; synced to the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("ab", buffering=0) as file:
        file.write(f"{line}\n".encode())
        os.fsync(file.fileno())


def _hash_of(seq: int) -> Select[tuple[str]]:
    return select(_LOG.c.hash).where(_LOG.c.seq == seq)


def _hashes(connection: Connection, anchors: Sequence[Anchor]) -> dict[int, str]:
    """Hashes of the anchored entries in the log, by number."""
    # an array: a list of parameters ends at 65,535, and a year has more anchors
    numbers = literal([anchor.seq for anchor in anchors], ARRAY(BigInteger))
    recorded = select(_LOG.c.seq, _LOG.c.hash).where(_LOG.c.seq == any_(numbers))
    return dict(connection.execute(recorded).tuples().all())


def _stream(connection: Connection, after: int = 0) -> Iterator[Recorded]:
    query = _RECORDED.order_by(_LOG.c.seq)
    rows = connection.execution_options(yield_per=1000).execute(
        query.where(_LOG.c.seq > after) if after else query
    )
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
                    f"Line {number} of {file} is not an audit entry: repeat the export, or use another copy."
                ) from error


def _plain(value: Any) -> Any:
    """Value that RFC 8785 can write and PostgreSQL can store."""
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
