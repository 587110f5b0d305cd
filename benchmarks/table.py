"""Rows of side-by-side measurements: timing and formatting."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from resource import RUSAGE_CHILDREN, getrusage
from statistics import median
from time import perf_counter, process_time

TIMES_FASTER = "times faster"
TIMES_LESS = "times less"
OVERHEAD = "% overhead"
MILLISECONDS = "ms"
SECONDS = "s"
MIB = "MiB"
CLOCK = "clock"
PROCESSOR = "processor"
WARM_S = 0.02
"""Minimum seconds of work per turn."""


@dataclass(frozen=True)
class Timing:
    """Seconds of a piece of work, one number for each run."""

    clock: tuple[float, ...]
    """Seconds on the clock."""
    processor: tuple[float, ...]
    """Seconds of processor time, of all threads and of the child processes that have ended."""

    def median(self, by: str) -> float:
        """
        Args:
            by: CLOCK or PROCESSOR.
        """
        return median(self.clock if by == CLOCK else self.processor)

    def less(self, other: "Timing") -> "Timing":
        """Times above the minimum of another work, such as the start of a process."""
        return Timing(
            tuple(each - min(other.clock) for each in self.clock),
            tuple(each - min(other.processor) for each in self.processor),
        )

    def times(self, factor: float) -> "Timing":
        return Timing(*(tuple(factor * each for each in part) for part in (self.clock, self.processor)))


@dataclass(frozen=True)
class Row:
    """A measurement of ours beside a peer or a limit."""

    name: str
    """Work measured, with its size."""
    ours: Timing | float
    """Runs of ours; a single value where no runs are timed: a percentile of waits in seconds, MiB, bars."""
    peer: str
    """Name and version of the peer."""
    peers: Timing | float
    """Runs or value of the peer for the same work, in the same run of the benchmark."""
    ratio: float
    """Ratio of the two values, in `unit`; of runs, of their medians."""
    target: float | None
    """Minimum ratio, or maximum overhead; None for a ratio only reported."""
    unit: str
    """Unit of the ratio: TIMES_FASTER, TIMES_LESS or OVERHEAD."""
    value_unit: str = MILLISECONDS
    """Unit of the values: MILLISECONDS, SECONDS or MIB."""
    by: str = CLOCK
    """Time behind the ratio: CLOCK or PROCESSOR."""
    processor_s: float | None = None
    """Processor seconds of the processes that do the work behind a single value; None: not measured."""

    @property
    def met(self) -> bool:
        if self.target is None:
            return True
        return self.ratio <= self.target if self.unit == OVERHEAD else self.ratio >= self.target

    def cells(self) -> tuple[str, ...]:
        limit = "at most" if self.unit == OVERHEAD else "at least"
        timed = self.unit in {TIMES_FASTER, OVERHEAD} and isinstance(self.ours, Timing)
        return (
            self.name,
            *self._cells(self.ours, self.processor_s),
            self.peer,
            *self._cells(self.peers),
            f"{self.ratio:,.1f} {self.unit}{f' ({self.by})' if timed else ''}",
            "" if self.target is None else f"{limit} {self.target:g}",
            "yes" if self.met else "NO",
        )

    def _cells(self, value: Timing | float, processor_s: float | None = None) -> tuple[str, str]:
        """Cells of the clock, or of a single value, and of the processor."""
        if not isinstance(value, Timing):
            return self._numbers(value), "" if processor_s is None else self._numbers(processor_s)
        clock = value.clock
        processor = value.processor
        return self._numbers(min(clock), median(clock)), self._numbers(min(processor), median(processor))

    def _numbers(self, *values: float) -> str:
        factor = 1e3 if self.value_unit == MILLISECONDS else 1
        return f"{' / '.join(f'{factor * value:,.2f}' for value in values)} {self.value_unit}"


HEADINGS = (
    "work",
    "ours, clock",
    "ours, processor",
    "peer",
    "peer's, clock",
    "peer's, processor",
    "ratio",
    "target",
    "met",
)


def faster(
    name: str,
    ours: Timing | float,
    peer: str,
    peers: Timing | float,
    target: float | None,
    value_unit: str = MILLISECONDS,
    by: str = CLOCK,
) -> Row:
    ratio = _value(peers, by) / _value(ours, by)
    return Row(name, ours, peer, peers, ratio, target, TIMES_FASTER, value_unit, by)


def overhead(
    name: str,
    ours: Timing,
    peer: str,
    peers: Timing,
    target: float | None,
    value_unit: str = MILLISECONDS,
    by: str = CLOCK,
) -> Row:
    """Row of the extra time of ours over the peer's, in percent."""
    percent = (ours.median(by) / peers.median(by) - 1) * 100
    return Row(name, ours, peer, peers, percent, target, OVERHEAD, value_unit, by)


def within(
    name: str,
    measured: Timing | float,
    limit: float,
    value_unit: str = MILLISECONDS,
    by: str = CLOCK,
    processor_s: float | None = None,
) -> Row:
    """Row of a value measured against a limit in the same unit."""
    row = replace(faster(name, measured, "limit", limit, 1.0, value_unit, by), processor_s=processor_s)
    return replace(row, unit=TIMES_LESS) if value_unit == MIB else row


def _value(measured: Timing | float, by: str) -> float:
    return measured.median(by) if isinstance(measured, Timing) else measured


def timed(work: Callable[[], object], repeats: int, warm_up: bool = True) -> Timing:
    """Times of `repeats` runs.

    Args:
        warm_up: run the work once beforehand, to compile and to fill caches.
    """
    if warm_up:
        work()
    return timing_of([_once(work) for _ in range(repeats)])


def side_by_side(
    ours: Callable[[], object], peer: Callable[[], object], rounds: int
) -> tuple[Timing, Timing]:
    """Times of ours and of the peer, in turn, so that other load on the machine falls on both.

    Both run once beforehand, to compile. Short work is repeated for WARM_S per turn, so that neither side is
    measured on the caches left by the other; a turn counts as one run, with its median.
    """

    def turn(work: Callable[[], object]) -> tuple[float, float]:
        runs: list[tuple[float, float]] = []
        while sum(clock for clock, _ in runs) < WARM_S:
            runs.append(_once(work))
        return median(clock for clock, _ in runs), median(processor for _, processor in runs)

    ours()
    peer()
    pairs = [(turn(ours), turn(peer)) for _ in range(rounds)]
    return timing_of([pair[0] for pair in pairs]), timing_of([pair[1] for pair in pairs])


def timing_of(runs: Sequence[tuple[float, float]]) -> Timing:
    """Timing of runs, each with its seconds on the clock and of the processor."""
    return Timing(tuple(clock for clock, _ in runs), tuple(processor for _, processor in runs))


def _once(work: Callable[[], object]) -> tuple[float, float]:
    processor = processor_s()
    clock = perf_counter()
    work()
    return perf_counter() - clock, processor_s() - processor


def processor_s() -> float:
    """Processor time of this process, all threads, and of its ended child processes."""
    children = getrusage(RUSAGE_CHILDREN)
    return process_time() + children.ru_utime + children.ru_stime


def markdown(rows: Sequence[Row]) -> str:
    lines = [HEADINGS, tuple("---" for _ in HEADINGS), *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
