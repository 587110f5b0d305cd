"""Benchmarks against peers, and tables of the documentation: `make bench` and `make bench-tables`.

python -m benchmarks.run                all sections, for RESULTS.md, and the simulated tables
python -m benchmarks.run --tables       all tables, trainings of hours included
python -m benchmarks.run engine gate    the named ones; sections are printed only

Each one runs in a process of its own with a time limit, and alone where the clock is measured; simulated
tables run one a processor. Failures are named at the end, in RESULTS.md too, and keep no other from being
measured. The exit code is 1 after a failure or a missed target.
"""

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from os import cpu_count
from pathlib import Path

from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table

from benchmarks.table import HEADINGS, Row, markdown

SECTIONS = (
    "engine",
    "raptorbt_engine",
    "strategy_search",
    "features",
    "gaps",
    "regimes",
    "pools",
    "tree_shap",
    "conformal",
    "whole_job",
    "weekly_retrains",
    "long_series",
    "overhead",
    "evidence",
    "audit",
    "registry",
    "lock",
    "forecasting",
    "reinforcement",
    "operations",
    "looks",
    "deliveries",
)
"""Modules with rows of RESULTS.md."""
SIMULATED: dict[str, tuple[str, ...]] = {
    "feature_drift": (),
    "forecast_errors": (),
    "shadow_decisions": (),
    "allocation": (),
    "nsga2": (),
    "protection": (),
    "calibration": (),
    "paper_record": (),
}
"""Modules that write tables of the documentation in a processor minute or two, with their arguments; the
longest first. They state processor time alone."""
ALONE: dict[str, tuple[str, ...]] = {"gate": ()}
"""The same for modules that keep all processors busy."""
LONG: dict[str, tuple[str, ...]] = {
    "regimes": (),
    "scale": (),
    "sizing": (),
    "samplers": (),
    "strategy_evolution": ("--home", ".clm-bench"),
    "recipes": ("--all",),
    "retraining_cost": ("--seeds", "5"),
}
"""Tables of `make bench-tables` alone: large installations, bars beyond the repository, hours of training."""
TABLES = SIMULATED | ALONE | LONG
TABLES_ONLY = "--tables"
PACKAGES = (
    "numpy",
    "numba",
    "pandas",
    "polars",
    "vectorbt",
    "raptorbt",
    "backtesting",
    "jumpmodels",
    "crepes",
    "arch",
    "prefect",
    "mlflow",
    "xgboost",
    "lightgbm",
    "torch",
    "neuralforecast",
    "stable-baselines3",
)
RESULTS = Path(__file__).with_name("RESULTS.md")
SECTION_LIMIT_S = 1_800.0
TABLE_LIMIT_S = 1_800.0
LONG_LIMIT_S = 4 * 3_600.0
GRACE_S = 60.0
"""Seconds between the interruption of a process and its end by force, in which it stops its servers."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Environment of a part beside others: threads of one would only wait for those of another."""
OF_SECTION = "--section"
READING = (
    "Times are the minimum and the median of several runs, on the clock and of the processor (all threads "
    "and child processes); the ratio is that of the medians of the time in brackets. Rows with a single "
    "value count waits, with the processor time of all processes for each of them, memory or bars."
)


_running: list["subprocess.Popen[bytes]"] = []
"""Processes of the parts that run now, to be stopped with the command."""


@dataclass(frozen=True)
class Outcome:
    """End of a section or a table."""

    name: str
    rows: tuple[Row, ...] = ()
    failure: str | None = None
    """Reason for the missing rows; None after success."""


@dataclass(frozen=True)
class Part:
    """A section or a table, as a process."""

    name: str
    command: tuple[str, ...]
    limit_s: float
    is_alone: bool = True
    """False for a simulation: several run at a time."""


def section(module: str, limit_s: float = SECTION_LIMIT_S) -> Part:
    return Part(module.rpartition(".")[2], ("benchmarks.run", OF_SECTION, module), limit_s)


def table(name: str) -> Part:
    limit_s = LONG_LIMIT_S if name in LONG else TABLE_LIMIT_S
    return Part(name, (f"benchmarks.{name}", *TABLES[name]), limit_s, is_alone=name not in SIMULATED)


def run(part: Part) -> Outcome:
    """Run a part in a separate process, up to its time limit."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "rows.json"
        code = _exit_code(part, written)
        if code is None or not written.exists():
            return Outcome(part.name, failure=None if code == 0 else _failure(code, part.limit_s))
        record = json.loads(written.read_text(encoding="utf-8"))
    if failure := record.get("failure"):
        return Outcome(part.name, failure=failure)
    return Outcome(part.name, TypeAdapter(tuple[Row, ...]).validate_python(record["rows"]))


def _exit_code(part: Part, written: Path) -> int | None:
    """Exit code of the process, None if it was stopped at its time limit."""
    process = subprocess.Popen(
        [sys.executable, "-m", *part.command],
        env=os.environ | {"BENCHMARK_ROWS": str(written)} | ({} if part.is_alone else ONE_THREAD),
        start_new_session=True,
    )
    _running.append(process)
    try:
        return process.wait(part.limit_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        _stop(process)
        _running.remove(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Interrupt the process, so that its servers are stopped, and end the rest of its group."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _failure(code: int | None, limit_s: float) -> str:
    if code is None:
        return f"stopped after its time limit of {limit_s:g} s"
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return f"exit code {code}: the reason is in the output"


def write_rows(module: str, written: Path) -> None:
    """Measure a section in this process, and write its rows, or the reason for its failure, as JSON."""
    try:
        rows = [asdict(row) for row in import_module(module).rows()]
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        written.write_text(json.dumps({"failure": reason}), encoding="utf-8")
        raise
    written.write_text(json.dumps({"rows": rows}), encoding="utf-8")


def processor() -> str:
    names = Path("/proc/cpuinfo")
    if not names.exists():
        return platform.processor()
    return next(line.split(": ", 1)[1] for line in names.read_text().splitlines() if "model name" in line)


def circumstances() -> str:
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d}, {processor()}, {cpu_count()} cores, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, "
        + ", ".join(f"{package} {installed(package)}" for package in PACKAGES)
        + "."
    )


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def document(outcomes: Sequence[Outcome]) -> str:
    """Text of RESULTS.md."""
    rows = [row for outcome in outcomes for row in outcome.rows]
    text = (
        f"# Benchmarks\n\n`make bench` writes this file. {circumstances()}\n\n{READING}\n\n{markdown(rows)}"
    )
    failed = failures(outcomes)
    if failed:
        text += "\n## Not measured\n\n" + "".join(f"- {each}\n" for each in failed)
    return text


def failures(outcomes: Sequence[Outcome]) -> list[str]:
    return [f"`{each.name}`: {each.failure}" for each in outcomes if each.failure]


def show(rows: Sequence[Row]) -> None:
    shown = Table(*HEADINGS, title="Side by side, minimum / median")
    for row in rows:
        shown.add_row(*row.cells(), style=None if row.met else "red")
    Console(width=240 if not sys.stdout.isatty() else None).print(shown)


def parts_of(names: Sequence[str]) -> list[Part]:
    """Parts by name, all tables, or those of `make bench`; a name of both stands for the section."""
    if names == [TABLES_ONLY]:
        return list(map(table, TABLES))
    if unknown := sorted(set(names) - set(SECTIONS) - set(TABLES)):
        known = ", ".join([*SECTIONS, *(name for name in TABLES if name not in SECTIONS)])
        raise SystemExit(f"no section or table {', '.join(unknown)}: choose from {known}")
    if not names:
        return [*(section(f"benchmarks.{name}") for name in SECTIONS), *map(table, ALONE | SIMULATED)]
    return [section(f"benchmarks.{name}") if name in SECTIONS else table(name) for name in names]


def run_all(parts: Sequence[Part]) -> Iterator[Outcome]:
    """Run the timed parts one after another, then the simulations, one a processor."""

    def announced(part: Part) -> Outcome:
        print(f"{part.name} ...", flush=True)
        began = time.monotonic()
        outcome = run(part)
        print(f"{part.name}: {outcome.failure or 'done'} ({time.monotonic() - began:,.0f} s)", flush=True)
        return outcome

    yield from (announced(part) for part in parts if part.is_alone)
    with ThreadPoolExecutor(cpu_count()) as pool:
        try:
            yield from pool.map(announced, (part for part in parts if not part.is_alone))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(_running):
                process.send_signal(signal.SIGINT)
            raise


def main(names: Sequence[str]) -> int:
    outcomes = list[Outcome]()
    for outcome in run_all(parts_of(names)):
        outcomes.append(outcome)
        if not names and outcome.rows:
            # written after each section, so that an interruption loses none that is done
            RESULTS.write_text(document(outcomes), encoding="utf-8")
    rows = [row for outcome in outcomes for row in outcome.rows]
    if rows:
        show(rows)
    if not names:
        RESULTS.write_text(document(outcomes), encoding="utf-8")
    for each in failures(outcomes):
        print(f"failed: {each}")
    return 0 if all(row.met for row in rows) and not failures(outcomes) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == [OF_SECTION]:
        write_rows(sys.argv[2], Path(os.environ["BENCHMARK_ROWS"]))
    else:
        sys.exit(main(sys.argv[1:]))
