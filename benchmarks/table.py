"""Rows of side-by-side measurements: timing and formatting."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

TIMES_FASTER = "times faster"
TIMES_LESS = "times less"
OVERHEAD = "% overhead"
MILLISECONDS = "ms"
SECONDS = "s"
MIB = "MiB"
WARM_S = 0.02
"""Minimum seconds of work per turn."""


@dataclass(frozen=True)
class Row:
    """A measurement of ours beside a peer or a limit."""

    name: str
    """Work measured, with its size."""
    ours: float
    """Median seconds; MiB if `value_unit` is MIB."""
    peer: str
    """Name and version of the peer."""
    peers: float
    """Value of the peer for the same work, in the same run."""
    ratio: float
    """Ratio of the two values, in `unit`."""
    target: float | None
    """Minimum ratio, or maximum overhead; None for a ratio only reported."""
    unit: str
    """Unit of the ratio: TIMES_FASTER, TIMES_LESS or OVERHEAD."""
    value_unit: str = MILLISECONDS
    """Unit of the values: MILLISECONDS, SECONDS or MIB."""

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
        return f"{value * (1e3 if self.value_unit == MILLISECONDS else 1):,.2f} {self.value_unit}"


HEADINGS = ("work", "ours", "peer", "peer's", "ratio", "target", "met")


def faster(
    name: str, ours_s: float, peer: str, peer_s: float, target: float | None, value_unit: str = MILLISECONDS
) -> Row:
    return Row(name, ours_s, peer, peer_s, peer_s / ours_s, target, TIMES_FASTER, value_unit)


def overhead(name: str, ours_s: float, peer: str, peer_s: float, target: float | None) -> Row:
    """Row of the extra time of ours over `peer_s`, in percent."""
    return Row(name, ours_s, peer, peer_s, (ours_s / peer_s - 1) * 100, target, OVERHEAD)


def within(name: str, measured: float, limit: float, value_unit: str = MILLISECONDS) -> Row:
    """Row of a value measured against a limit in the same unit."""
    unit = TIMES_LESS if value_unit == MIB else TIMES_FASTER
    return Row(name, measured, "limit", limit, limit / measured, 1.0, unit, value_unit)


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median seconds of `repeats` runs, after a first run to compile and warm up."""
    work()
    return median(_once(work) for _ in range(repeats))


def side_by_side(ours: Callable[[], object], peer: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median seconds of ours and of the peer, in turn, so that other load on the machine falls on both.

    Both run once beforehand, to compile. Short work is repeated for WARM_S per turn, so that neither side is
    measured on the caches left by the other.
    """

    def turn(work: Callable[[], object]) -> float:
        durations: list[float] = []
        while sum(durations) < WARM_S:
            durations.append(_once(work))
        return median(durations)

    ours()
    peer()
    pairs = [(turn(ours), turn(peer)) for _ in range(rounds)]
    return median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)


def _once(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def markdown(rows: Sequence[Row]) -> str:
    lines = [HEADINGS, tuple("---" for _ in HEADINGS), *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
