"""Hash chain of the audit's entries, and detection of tampering.

An entry's hash is the SHA-256 of the entry's canonical JSON (RFC 8785), which contains the hash of the
preceding entry. The numbers of the entries are not hashed: the chain alone gives the order, so that a moved
or renumbered entry can be distinguished from an edited entry.
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
"""Previous hash of the first entry."""


class Recorded(BaseModel):
    """An entry as found in the log, possibly tampered with, and therefore hardly validated."""

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
        """True if the content matches the hash."""
        try:
            return digest(self.model_dump(exclude={"seq", "hash"})) == self.hash
        except rfc8785.CanonicalizationError:
            return False


class Anchor(BaseModel):
    """Hash, number and position (1, 2, 3, ...) of an entry, recorded outside the database."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: AwareDatetime
    seq: int
    hash: str
    count: int


class Tampering(StrEnum):
    EDITED = "edited"
    """The entry's content does not match the hash."""
    REPLACED = "replaced"
    """The entry is sound, but the following entry was written after a different entry."""
    MISSING = "missing"
    INSERTED = "inserted"
    SWAPPED = "swapped"
    """The entry was moved to another place."""
    REWRITTEN = "rewritten"
    """The chain is sound, but contradicts an anchor."""
    TRUNCATED = "truncated"
    """The log ends before an anchored entry."""


@dataclass(frozen=True)
class ChainProblem:
    kind: Tampering
    first: int
    """Number of the first affected entry."""
    last: int
    """Number of the last affected entry."""
    message: str


@dataclass(frozen=True)
class ChainReport:
    entries: int
    head: str
    """Hash of the newest entry; GENESIS for an empty log."""
    anchors: int
    anchored: int
    """Number of entries, counted from the first, confirmed by a matching anchor, or by the last entry of an
    interrupted verification."""
    problems: tuple[ChainProblem, ...]


def digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON, hexadecimal."""
    return hashlib.sha256(rfc8785.dumps(content)).hexdigest()


def parse(text: str) -> Any:
    """Parse JSON with doubles as numbers (RFC 8785). A number without an exact double stays text, so that the
    number never equals the nearest double."""
    return json.loads(text, parse_int=_whole, parse_float=_exact)


def check(
    read: Callable[[int], Iterable[Recorded]],
    anchors: Sequence[Anchor],
    start: int = 0,
    note: Callable[[int, str], None] | None = None,
) -> ChainReport:
    """Check the chain in a single pass; a broken order is located in a second pass.

    Args:
        read: returns the entries after a number, ascending, the same entries at every call.
        anchors: anchors by ascending number; those up to `start` agree with the log.
        start: number of the last entry of a sound chain checked before, an anchor's; 0 checks all entries.
        note: called with number and hash of each entry while all entries so far are sound.
    """
    anchored = {anchor.hash for anchor in anchors}
    places = {anchor.hash: anchor.seq for anchor in anchors if anchor.seq <= start}
    edited: set[int] = set()
    in_order = True
    count = newest = start
    head = next((anchor.hash for anchor in anchors if anchor.seq == start), GENESIS)
    for entry in read(start):
        count += 1
        in_order &= entry.seq == count and entry.prev_hash == head
        if not entry.intact:
            edited.add(entry.seq)
        if entry.hash in anchored:
            places[entry.hash] = count
        newest = entry.seq
        head = entry.hash
        if note is not None and in_order and not edited:
            note(newest, head)
    problems = [_problem(Tampering.EDITED, seq, seq) for seq in edited]
    if not in_order:
        links = [_Link(entry.seq, entry.prev_hash, entry.hash) for entry in read(0)]
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
    """The parts of an entry that determine the order."""

    seq: int
    prev_hash: str
    hash: str


_START = _Link(0, "", GENESIS)


def _disorder(links: Sequence[_Link], edited: Set[int], counts: Mapping[int, int]) -> Iterator[ChainProblem]:
    """Reasons for breaks in the order of the entries.

    Args:
        links: entries in the order of the log.
        edited: numbers of the entries with a wrong hash, which explains any adjacent break.
        counts: original place (from 1) of each anchored entry, by the place in the log.
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
    """Reasons for the breaks between consecutive strands."""
    end = -1
    for strand in strands:
        before = links[end] if end >= 0 else _START
        after = links[strand[0]]
        renumbered = after.seq - before.seq == strand[0] - end
        if after.prev_hash != before.hash and renumbered and not {before.seq, after.seq} & edited:
            yield _break(before.seq, _count_removed(end + 1, strand[0] + 1, counts))
        end = strand[-1]


def _break(before: int, removed: int | None) -> ChainProblem:
    if removed or not before:
        return _problem(
            Tampering.MISSING, before + 1, before + (removed or 1), ", with the entries after renumbered"
        )
    unsure = "" if removed == 0 else "; or later entries were removed and the rest renumbered"
    return _problem(Tampering.REPLACED, before, before, unsure)


def _count_removed(before: int, after: int, counts: Mapping[int, int]) -> int | None:
    """Number of removed entries between two places, by the anchors around; None without a later anchor."""
    behind = [place for place in counts if place >= after]
    if not behind:
        return None
    ahead = [place for place in counts if place <= before]
    lost_ahead = counts[max(ahead)] - max(ahead) if ahead else 0
    return counts[min(behind)] - min(behind) - lost_ahead


def _sifted(links: Sequence[_Link]) -> tuple[list[list[int]], list[int]]:
    """Strands of the log, and the positions of inserted entries between the strands."""
    hashes = {link.hash for link in links}
    kept = list[list[int]]()
    inserted = list[int]()
    furthest = -1
    for strand in _strands(links, hashes):
        if max(strand) < furthest or links[strand[0]].prev_hash in hashes:
            inserted += strand
        else:
            kept.append(strand)
            furthest = max(strand)
    return kept, inserted


def _strands(links: Sequence[_Link], hashes: Set[str]) -> list[list[int]]:
    """Positions in `links`, grouped into unbroken pieces of the chain, by first position in the log."""
    followers = _followers(links)
    left = set(range(len(links)))
    strands = list[list[int]]()
    # entries without a predecessor first: started elsewhere, a strand would lack its beginning
    for start in sorted(left, key=lambda position: (links[position].prev_hash in hashes, position)):
        strand = list[int]()
        position = start
        while position in left:
            left.remove(position)
            strand.append(position)
            position = followers.get(links[position].hash, start)
        strands.append(strand)
    return sorted(filter(None, strands), key=min)


def _followers(links: Sequence[_Link]) -> dict[str, int]:
    """Position of the entry after a hash; of two candidates, the candidate with a successor."""
    predecessors = {link.prev_hash for link in links}
    followers: dict[str, int] = {}
    for position, link in enumerate(links):
        rival = followers.get(link.prev_hash)
        if rival is None or link.hash in predecessors or links[rival].hash not in predecessors:
            followers[link.prev_hash] = position
    return followers


_MESSAGES = {
    Tampering.EDITED: "{} was edited: the content does not match the hash",
    Tampering.REPLACED: "{} was replaced: the following entry was written after a different entry",
    Tampering.MISSING: "{} missing",
    Tampering.INSERTED: "{} was inserted: the chain continues without the entry",
    Tampering.SWAPPED: "{} was moved from another place",
    Tampering.REWRITTEN: "{}: at least one entry was rewritten, with every later hash; the last was anchored",
    Tampering.TRUNCATED: "{} missing at the end: the last was anchored",
}


def _problem(kind: Tampering, first: int, last: int, note: str = "") -> ChainProblem:
    numbers = f"entry {first}" if first == last else f"entries {first} to {last}"
    return ChainProblem(kind, first, last, _MESSAGES[kind].format(numbers) + note)


def _against_anchors(
    anchors: Sequence[Anchor], places: Mapping[str, int], newest: int, known: Sequence[ChainProblem]
) -> Iterator[ChainProblem]:
    """Problem at the first anchor without its entry, unless a known problem explains the absence."""
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
    # PostgreSQL writes large doubles as integers: 1e22 comes back as 23 digits
    return int(number) if len(number) < 16 else _exact(number)


def _exact(number: str) -> float | str:
    value = float(number)
    return value if Decimal(number) == Decimal(repr(value)) else number
