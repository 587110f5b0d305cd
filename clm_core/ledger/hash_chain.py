"""The chain of the audit's entries: what binds one to the next, and what tells that it was tampered with.

An entry's hash is the SHA-256 of its canonical JSON (RFC 8785), which holds the hash of the entry before.
The numbers of the entries are not hashed: the chain alone gives the order, so that an entry that was moved
or renumbered can be told from one that was edited.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from itertools import pairwise
from typing import Any, NamedTuple

import rfc8785
from pydantic import AwareDatetime, BaseModel, ConfigDict

GENESIS = "0" * 64
"""What the first entry names as the hash before it."""


class Recorded(BaseModel):
    """An entry as it stands in the log, true or not; nothing in it is taken for granted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seq: int
    at: str
    """UTC with microseconds: 2025-12-04T14:30:22.123456Z."""
    actor: str
    role: str
    action: str
    subject: str
    details: Any
    prev_hash: str
    hash: str

    @property
    def intact(self) -> bool:
        """Whether it says what it said when its hash was computed."""
        try:
            return digest(self.model_dump(exclude={"seq", "hash"})) == self.hash
        except rfc8785.CanonicalizationError:
            return False


class Anchor(BaseModel):
    """What is written down outside the database: entry `seq` had this hash and was the `count`-th."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: AwareDatetime
    seq: int
    hash: str
    count: int


class Tampering(StrEnum):
    EDITED = "edited"
    """Its hash is not the hash of what it says."""
    REPLACED = "replaced"
    """It is in itself sound, but not the entry the next one was written after."""
    MISSING = "missing"
    INSERTED = "inserted"
    SWAPPED = "swapped"
    """It stands at another place than it was written at."""
    REWRITTEN = "rewritten"
    """The chain is sound, but not the one that was anchored."""
    TRUNCATED = "truncated"
    """The log ends before an entry that was anchored."""


@dataclass(frozen=True)
class ChainProblem:
    kind: Tampering
    first: int
    """Number of the first entry concerned."""
    last: int
    message: str


@dataclass(frozen=True)
class ChainReport:
    entries: int
    head: str
    """Hash of the newest entry; GENESIS when there is none."""
    anchors: int
    anchored: int
    """How many entries, counted from the first, a matching anchor vouches for."""
    problems: tuple[ChainProblem, ...]


def digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON, hexadecimal."""
    return hashlib.sha256(rfc8785.dumps(content)).hexdigest()


def parse(text: str) -> Any:
    """JSON whose numbers are doubles, as RFC 8785 has it; one that no double is stays text, so that it can't
    pass for the double next to it."""
    return json.loads(text, parse_int=_whole, parse_float=_exact)


def check(read: Callable[[], Iterable[Recorded]], anchors: Sequence[Anchor]) -> ChainReport:
    """Go through the whole chain once; only if its order is broken once more, to say where.

    Args:
        read: gives the entries by ascending number; called a second time it gives the same ones.
        anchors: by ascending number.
    """
    anchored = {anchor.hash for anchor in anchors}
    places: dict[str, int] = {}
    edited: set[int] = set()
    in_order, count, newest, head = True, 0, 0, GENESIS
    for entry in read():
        count += 1
        in_order &= entry.seq == count and entry.prev_hash == head
        if not entry.intact:
            edited.add(entry.seq)
        if entry.hash in anchored:
            places[entry.hash] = count
        newest, head = entry.seq, entry.hash
    problems = [_problem(Tampering.EDITED, seq, seq) for seq in edited]
    if not in_order:
        links = [_Link(entry.seq, entry.prev_hash, entry.hash) for entry in read()]
        counts = {places[anchor.hash]: anchor.count for anchor in anchors if anchor.hash in places}
        problems += _disorder(links, edited, counts)
    problems += _against_anchors(anchors, places, newest, problems)
    return ChainReport(
        entries=count,
        head=head,
        anchors=len(anchors),
        anchored=max(places.values(), default=0),
        problems=tuple(sorted(problems, key=lambda problem: problem.first)),
    )


class _Link(NamedTuple):
    """What the order of the entries follows from."""

    seq: int
    prev_hash: str
    hash: str


_START = _Link(0, "", GENESIS)


def _disorder(links: Sequence[_Link], edited: Set[int], counts: Mapping[int, int]) -> Iterator[ChainProblem]:
    """Why entries don't follow one from another.

    Args:
        links: as they stand in the log.
        edited: numbers of the entries whose hash is wrong: a break beside one needs no other reason.
        counts: at the place (from 1) where an anchored entry stands, the place it was anchored at.
    """
    strands, inserted = _sifted(links)
    for position in inserted:
        yield _problem(Tampering.INSERTED, links[position].seq, links[position].seq)
    for before, after in pairwise([_START, *links]):
        if after.seq > before.seq + 1:
            yield _problem(Tampering.MISSING, before.seq + 1, after.seq - 1)
    written = [position for strand in strands for position in strand]
    for stands, belongs in zip(sorted(written), written, strict=True):
        if stands != belongs:
            yield _problem(Tampering.SWAPPED, links[stands].seq, links[stands].seq)
    yield from _breaks(links, strands, edited, counts)


def _breaks(
    links: Sequence[_Link], strands: Sequence[Sequence[int]], edited: Set[int], counts: Mapping[int, int]
) -> Iterator[ChainProblem]:
    """Why one strand ends and the next begins."""
    end = -1
    for strand in strands:
        before, after = links[end] if end >= 0 else _START, links[strand[0]]
        renumbered = after.seq - before.seq == strand[0] - end
        if after.prev_hash != before.hash and renumbered and not {before.seq, after.seq} & edited:
            yield _break(before.seq, _taken_out(end + 1, strand[0] + 1, counts))
        end = strand[-1]


def _break(before: int, taken_out: int | None) -> ChainProblem:
    if taken_out or not before:
        return _problem(Tampering.MISSING, before + 1, before + (taken_out or 1), ", those after renumbered")
    unsure = "" if taken_out == 0 else "; or entries after it were taken out and the rest renumbered"
    return _problem(Tampering.REPLACED, before, before, unsure)


def _taken_out(before: int, after: int, counts: Mapping[int, int]) -> int | None:
    """How many entries once stood between two places, by the anchors around; None: none stands behind."""
    behind = [place for place in counts if place >= after]
    if not behind:
        return None
    ahead = [place for place in counts if place <= before]
    lost_ahead = counts[max(ahead)] - max(ahead) if ahead else 0
    return counts[min(behind)] - min(behind) - lost_ahead


def _sifted(links: Sequence[_Link]) -> tuple[list[list[int]], list[int]]:
    """The strands that the log consists of, and the positions that stand between them: inserted."""
    hashes = {link.hash for link in links}
    kept, inserted, furthest = list[list[int]](), list[int](), -1
    for strand in _strands(links, hashes):
        if max(strand) < furthest or links[strand[0]].prev_hash in hashes:
            inserted += strand
        else:
            kept.append(strand)
            furthest = max(strand)
    return kept, inserted


def _strands(links: Sequence[_Link], hashes: Set[str]) -> list[list[int]]:
    """The positions in `links` as unbroken pieces of the chain, by where in the log each first stands."""
    followers, left, strands = _followers(links), set(range(len(links))), list[list[int]]()
    # first those that follow nothing: started elsewhere, a strand would lack its beginning
    for start in sorted(left, key=lambda position: (links[position].prev_hash in hashes, position)):
        strand, position = list[int](), start
        while position in left:
            left.remove(position)
            strand.append(position)
            position = followers.get(links[position].hash, start)
        strands.append(strand)
    return sorted(filter(None, strands), key=min)


def _followers(links: Sequence[_Link]) -> dict[str, int]:
    """Which position follows a hash; of two that claim it, the one that is followed itself."""
    named = {link.prev_hash for link in links}
    followers: dict[str, int] = {}
    for position, link in enumerate(links):
        rival = followers.get(link.prev_hash)
        if rival is None or link.hash in named or links[rival].hash not in named:
            followers[link.prev_hash] = position
    return followers


_MESSAGES = {
    Tampering.EDITED: "{} was edited: its hash is not the hash of what it says",
    Tampering.REPLACED: "{} was replaced: the next one was written after another entry",
    Tampering.MISSING: "{} missing",
    Tampering.INSERTED: "{} was inserted: the chain goes past it",
    Tampering.SWAPPED: "{} stands at another place than it was written at",
    Tampering.REWRITTEN: "{}: at least one was rewritten, and every hash after it; the last was anchored",
    Tampering.TRUNCATED: "{} missing at the end: the last of them was anchored",
}


def _problem(kind: Tampering, first: int, last: int, note: str = "") -> ChainProblem:
    which = f"entry {first}" if first == last else f"entries {first} to {last}"
    return ChainProblem(kind, first, last, _MESSAGES[kind].format(which) + note)


def _against_anchors(
    anchors: Sequence[Anchor], places: Mapping[str, int], newest: int, known: Sequence[ChainProblem]
) -> Iterator[ChainProblem]:
    """The first anchor whose entry is gone, unless something found already explains it."""
    held = 0
    for anchor in anchors:
        if anchor.hash in places:
            held = anchor.seq
        elif anchor.seq > newest:
            yield _problem(Tampering.TRUNCATED, newest + 1, anchors[-1].seq)
            return
        elif not any(held < problem.last and problem.first <= anchor.seq for problem in known):
            yield _problem(Tampering.REWRITTEN, held + 1, anchor.seq)
            return


def _whole(number: str) -> int | float | str:
    # PostgreSQL spells a large double out, too: 1e22 comes back as 23 digits
    return int(number) if len(number) < 16 else _exact(number)


def _exact(number: str) -> float | str:
    value = float(number)
    return value if Decimal(number) == Decimal(repr(value)) else number
