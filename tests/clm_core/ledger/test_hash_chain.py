"""Detection and location of tampering by the hash chain and the anchors."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_core.ledger.hash_chain import GENESIS, Anchor, ChainReport, Recorded, Tampering, check, digest, parse

NOW = datetime(2025, 12, 4, tzinfo=UTC)
EDITED, REPLACED, MISSING, INSERTED, SWAPPED, REWRITTEN, TRUNCATED = Tampering

Log = list[Recorded]
Tamper = Callable[[Log], Log]


def sealed(entry: Recorded) -> Recorded:
    content = entry.model_dump(exclude={"seq", "hash"})
    return entry.model_copy(update={"hash": digest(content)})


def following(log: Sequence[Recorded], subject: str) -> Recorded:
    return sealed(
        Recorded(
            seq=len(log) + 1,
            at="2025-12-04T14:30:22.123456Z",
            actor="ada",
            role="operator",
            action="promotion_committed",
            subject=subject,
            details={"score": 47.5},
            prev_hash=log[-1].hash if log else GENESIS,
            hash="",
        )
    )


def a_log(length: int = 12) -> Log:
    log: Log = []
    for number in range(length):
        log.append(following(log, f"model {number}"))
    return log


def anchored(log: Log, *places: int) -> list[Anchor]:
    return [Anchor(at=NOW, seq=n, hash=log[n - 1].hash, count=n) for n in places]


def checked(log: Log, anchors: list[Anchor]) -> ChainReport:
    in_order = sorted(log, key=lambda entry: entry.seq)
    return check(lambda after: in_order, anchors)


def renumbered(log: Log) -> Log:
    return [entry.model_copy(update={"seq": place}) for place, entry in enumerate(log, start=1)]


def rehashed(log: Log) -> Log:
    new: Log = []
    for entry in renumbered(log):
        new.append(sealed(entry.model_copy(update={"prev_hash": new[-1].hash if new else GENESIS})))
    return new


def edit(number: int, **changes: object) -> Tamper:
    return lambda log: [e.model_copy(update=changes) if e.seq == number else e for e in log]


def edit_and_seal(number: int) -> Tamper:
    return lambda log: [sealed(e.model_copy(update={"actor": "eve"})) if e.seq == number else e for e in log]


def delete(first: int, last: int) -> Tamper:
    return lambda log: [entry for entry in log if not first <= entry.seq <= last]


def insert(place: int, after: int, **changes: object) -> Tamper:
    """Insert a forged entry at a place, with the hash of another entry as predecessor."""

    def inserted(log: Log) -> Log:
        forged = following(log[:after], "forged").model_copy(update=changes)
        return renumbered([*log[: place - 1], forged, *log[place - 1 :]])

    return inserted


def swap(one: int, other: int) -> Tamper:
    numbers = {one: other, other: one}
    return lambda log: [e.model_copy(update={"seq": numbers.get(e.seq, e.seq)}) for e in log]


def both(first: Tamper, then: Tamper) -> Tamper:
    return lambda log: then(first(log))


@pytest.mark.parametrize(
    ("tamper", "expected"),
    [
        pytest.param(lambda log: log, [], id="untouched"),
        pytest.param(edit(4, actor="eve"), [(EDITED, 4, 4)], id="edited"),
        pytest.param(edit(1, details={"score": 47.6}), [(EDITED, 1, 1)], id="edited first"),
        pytest.param(edit(12, subject="other"), [(EDITED, 12, 12)], id="edited last"),
        pytest.param(edit(4, hash="f" * 64), [(EDITED, 4, 4)], id="another hash"),
        pytest.param(edit(4, prev_hash="f" * 64), [(EDITED, 4, 4)], id="another predecessor"),
        pytest.param(
            both(edit(4, role="x"), edit(9, at="")), [(EDITED, 4, 4), (EDITED, 9, 9)], id="two edits"
        ),
        pytest.param(edit_and_seal(4), [(REPLACED, 4, 4)], id="edited and hashed anew"),
        pytest.param(delete(4, 4), [(MISSING, 4, 4)], id="deleted"),
        pytest.param(delete(4, 6), [(MISSING, 4, 6)], id="several deleted"),
        pytest.param(delete(1, 1), [(MISSING, 1, 1)], id="first deleted"),
        pytest.param(both(delete(4, 5), renumbered), [(MISSING, 4, 5)], id="deleted and renumbered"),
        pytest.param(both(delete(1, 2), renumbered), [(MISSING, 1, 2)], id="first deleted and renumbered"),
        pytest.param(insert(5, after=4), [(INSERTED, 5, 5)], id="inserted"),
        pytest.param(
            insert(5, after=4, prev_hash="f" * 64), [(EDITED, 5, 5), (INSERTED, 5, 5)], id="inserted, no link"
        ),
        pytest.param(insert(13, after=9), [(INSERTED, 13, 13)], id="appended, linked further back"),
        pytest.param(swap(4, 8), [(SWAPPED, 4, 4), (SWAPPED, 8, 8)], id="swapped"),
        pytest.param(swap(4, 5), [(SWAPPED, 4, 4), (SWAPPED, 5, 5)], id="neighbours swapped"),
        pytest.param(swap(1, 12), [(SWAPPED, 1, 1), (SWAPPED, 12, 12)], id="first and last swapped"),
        pytest.param(
            both(edit(4, subject="model 7"), edit(8, subject="model 3")),
            [(EDITED, 4, 4), (EDITED, 8, 8)],
            id="contents swapped",
        ),
        pytest.param(both(edit(2, actor="eve"), rehashed), [(REWRITTEN, 1, 5)], id="suffix hashed anew"),
        pytest.param(
            both(edit(7, actor="eve"), rehashed), [(REWRITTEN, 6, 10)], id="later suffix hashed anew"
        ),
        pytest.param(both(delete(7, 7), rehashed), [(REWRITTEN, 6, 10)], id="deleted, suffix hashed anew"),
        pytest.param(
            both(insert(3, after=2), rehashed), [(REWRITTEN, 1, 5)], id="inserted, suffix hashed anew"
        ),
        pytest.param(delete(9, 12), [(TRUNCATED, 9, 10)], id="truncated"),
        pytest.param(delete(1, 12), [(TRUNCATED, 1, 10)], id="emptied"),
        pytest.param(lambda log: rehashed(log[8::-1]), [(REWRITTEN, 1, 5)], id="written anew"),
        # entries younger than the newest anchor are beyond the limits of detection
        pytest.param(both(edit(11, actor="eve"), rehashed), [], id="rewritten after the newest anchor"),
        pytest.param(delete(11, 12), [], id="truncated after the newest anchor"),
    ],
)
def test_tampering_is_found_and_located(tamper: Tamper, expected: list[tuple[Tampering, int, int]]) -> None:
    log = a_log()
    report = checked(tamper(log), anchored(log, 5, 10))
    assert [(problem.kind, problem.first, problem.last) for problem in report.problems] == expected


def test_without_anchors_a_truncated_log_passes() -> None:
    log = a_log()
    assert checked(rehashed(log[2:9]), []).problems == ()
    [problem] = checked(renumbered(delete(4, 5)(log)), []).problems
    assert (problem.kind, problem.first) == (REPLACED, 3)
    assert "or later entries were removed" in problem.message


def test_the_report_counts_the_entries_confirmed_by_anchors() -> None:
    log = a_log()
    report = checked(log, anchored(log, 5, 10))
    assert (report.entries, report.head, report.anchors, report.anchored) == (12, log[-1].hash, 2, 10)
    assert checked([], []) == ChainReport(entries=0, head=GENESIS, anchors=0, anchored=0, problems=())


FIELDS = [name for name in Recorded.model_fields if name != "seq"]


@given(data=st.data(), length=st.integers(1, 9))
def test_no_change_before_the_newest_anchor_goes_unnoticed(data: st.DataObject, length: int) -> None:
    log = a_log(length)
    anchors = anchored(log, *sorted(data.draw(st.sets(st.integers(1, length)))), length)
    changed = data.draw(st.permutations(log))[: data.draw(st.integers(0, length))]
    if data.draw(st.booleans()) and changed:
        victim = data.draw(st.sampled_from(changed)).seq
        changed = edit(victim, **{data.draw(st.sampled_from(FIELDS)): data.draw(st.text("ab1"))})(changed)
    if data.draw(st.booleans()):
        changed = renumbered(changed)
    if data.draw(st.booleans()):
        changed = rehashed(changed)
    untouched = sorted(changed, key=lambda entry: entry.seq) == log
    assert bool(checked(changed, anchors).problems) is not untouched


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-7", -7),
        ("0.1", 0.1),
        ("1.50", 1.5),
        ("10000000000000000000000", 1e22),
        ("9007199254740993", "9007199254740993"),
        ("0.1000000000000000055511151231257827", "0.1000000000000000055511151231257827"),
        ("1" * 5000, "1" * 5000),
    ],
)
def test_a_number_is_read_as_an_exact_double_or_stays_text(text: str, value: object) -> None:
    assert parse(text) == value
