"""Rows of side-by-side measurements, and how they are timed and written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

TIMES_FASTER = "times faster"
TIMES_LESS = "times less"
OVERHEAD = "% overhead"
MILLISECONDS, SECONDS, MIB = "ms", "s", "MiB"
WARM_S = 0.02


@dataclass(frozen=True)
class Row:
    name: str
    """What was done, with its size."""
    ours: float
    """Median seconds; MiB where `shown_in` says so."""
    peer: str
    """Whom we are compared with, and its version."""
    peers: float
    """The same for the same work, in the same run."""
    ratio: float
    """In `unit`."""
    target: float | None
    """What the ratio should reach, or as an overhead not exceed; None when it is only reported."""
    unit: str
    """TIMES_FASTER, TIMES_LESS or OVERHEAD."""
    shown_in: str = MILLISECONDS
    """MILLISECONDS, SECONDS or MIB."""

    @property
    def met(self) -> bool:
        if self.target is None:
            return True
        return self.ratio <= self.target if self.unit == OVERHEAD else self.ratio >= self.target

    def cells(self) -> tuple[str, ...]:
        limit = "at most" if self.unit == OVERHEAD else "at least"
        return (
            self.name,
            self._show(self.ours),
            self.peer,
            self._show(self.peers),
            f"{self.ratio:,.1f} {self.unit}",
            "" if self.target is None else f"{limit} {self.target:g}",
            "yes" if self.met else "NO",
        )

    def _show(self, value: float) -> str:
        return f"{value * (1e3 if self.shown_in == MILLISECONDS else 1):,.2f} {self.shown_in}"


HEADINGS = ("what", "ours", "peer", "peer's", "ratio", "wanted", "met")


def faster(name: str, ours_s: float, peer: str, peer_s: float, target: float | None) -> Row:
    return Row(name, ours_s, peer, peer_s, peer_s / ours_s, target, TIMES_FASTER)


def overhead(name: str, ours_s: float, peer: str, peer_s: float, target: float | None) -> Row:
    """How much longer than `peer_s` ours takes."""
    return Row(name, ours_s, peer, peer_s, (ours_s / peer_s - 1) * 100, target, OVERHEAD)


def within(name: str, measured: float, allowed: float, shown_in: str = MILLISECONDS) -> Row:
    """Against what was allowed, in the same unit."""
    unit = TIMES_LESS if shown_in == MIB else TIMES_FASTER
    return Row(name, measured, "what was allowed", allowed, allowed / measured, 1.0, unit, shown_in)


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median of `repeats` runs after one that compiles and warms up."""
    work()
    return median(_once(work) for _ in range(repeats))


def side_by_side(ours: Callable[[], object], peer: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median seconds of both, taken in turn so that a busy moment of the machine hits both alike.

    Each runs once beforehand, to compile; short work is repeated for WARM_S a turn, so that neither is
    measured on the caches the other left behind.
    """

    def turn(work: Callable[[], object]) -> float:
        taken: list[float] = []
        while sum(taken) < WARM_S:
            taken.append(_once(work))
        return median(taken)

    ours(), peer()
    pairs = [(turn(ours), turn(peer)) for _ in range(rounds)]
    return median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)


def _once(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def markdown(rows: Sequence[Row]) -> str:
    lines = [HEADINGS, tuple("---" for _ in HEADINGS), *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
