"""Models that a machine can carry: cost of a stack at rest, of a retrain, of the watch, and waits of a week.

A real `clm up` with scheduled models is measured in processor time. The week is then played through with the
schedules of the deployments, the measured duration of a retrain, and the runs that the worker takes at once:
how long do scheduled retrains wait for each other? Besides its schedule, each model is retrained for an event
at a random moment once a week.

python -m benchmarks.sizing               measure with 300 models, write the tables of docs/how-to/sizing.md
python -m benchmarks.sizing --models 20   with fewer, printed only
"""

import argparse
import heapq
import os
import random
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

from benchmarks.operations import CLM, DEADLINE_S, Stack, memory_mib, running, seconds_until
from benchmarks.pages import markdown_table, replace_part
from benchmarks.run import processor
from clm_core.domain.universe import Market
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars
from clm_core.market.sources import MarketData
from clm_core.market.store import SeriesStore
from clm_core.settings import Settings
from deployments.definitions import target_deployments

DOCUMENT = Path("docs/how-to/sizing.md")
KINDS = (ModelType.XGBOOST, ModelType.LIGHTGBM)
MODELS = 300
SIZES = (50, 100, 300, 1000)
MEASURED_MARKETS = 2
"""Markets whose models are retrained and promoted for the measurement, with every kind."""
REST_S = 120.0
SETTLED_S = 30.0
"""Seconds from the last deployment until the scheduler of Prefect is at rest."""
SLOTS = 2
"""Runs that the worker takes at a time, as by default."""
WEEK = timedelta(weeks=1)
PROCESSORS = os.cpu_count() or 1


@dataclass(frozen=True)
class Costs:
    """Measured costs of an installation."""

    models: int
    """Models scheduled in the measured stack."""
    ready_s: float
    """Seconds of `clm up` until ready."""
    rest_share: float
    """Share of a processor used at rest, 1 for one processor."""
    rest_mib: float
    """Median memory of all processes at rest."""
    retrain_s: float
    """Processor seconds of a scheduled retrain of trees, all processes of the stack together."""
    retrain_wall_s: float
    """Seconds by the clock from the request to the verdict, two runs at a time."""
    watch_s: float
    """Processor seconds that a further production version adds to a watch."""


@dataclass(frozen=True)
class Waits:
    """Waits of the retrains of a week, seconds."""

    runs: int
    p95: float
    longest: float
    most_waiting: int


def measured(models: int) -> Costs:
    """Costs of a stack with scheduled models on real bars."""
    with tempfile.TemporaryDirectory(prefix="clm-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        home.chmod(0o755)  # started by root, PostgreSQL runs as a user of its own
        universe = universe_of(models)
        import_bars(home, universe)
        with running(home, settings_text(universe)) as (stack, ready_s):
            wait_until_deployed(stack, universe)
            rest_share, rest_mib = at_rest(stack)
            retrain_s, wall_s = retrains(stack, rest_share)
            watch_s = watch(stack)
    return Costs(models, ready_s, rest_share, rest_mib, retrain_s, wall_s, watch_s)


def universe_of(models: int) -> tuple[Market, ...]:
    return tuple(
        Market(symbol=f"M{number:03}USD", model_types=KINDS) for number in range(models // len(KINDS))
    )


def settings_text(universe: Sequence[Market]) -> str:
    """The universe in the settings file."""
    kinds = ", ".join(f'"{kind}"' for kind in KINDS)
    return "".join(
        f'[[universe]]\nsymbol = "{market.symbol}"\nmodel_types = [{kinds}]\n' for market in universe
    )


def import_bars(home: Path, universe: Sequence[Market]) -> None:
    """Import the bundled bars of BTCUSD under every symbol."""
    bars = MarketData(home).bars("BTCUSD", "1h", closed_by=datetime.now(UTC))
    columns = [getattr(bars, name) for name in ("time", "open", "high", "low", "close", "volume")]
    store = SeriesStore(home / "data")
    for market in universe:
        store.add(Bars(market.symbol, bars.timeframe, bars.calendar, *columns), "bench", datetime.now(UTC))


def wait_until_deployed(stack: Stack, universe: Sequence[Market]) -> None:
    """Wait for the deployments and their first runs: hundreds are made after the start."""
    expected = len(target_deployments(Settings(universe=tuple(universe))))
    seconds_until(lambda: stack.prefect("POST", "/deployments/count", {}) >= expected)
    time.sleep(SETTLED_S)


def at_rest(stack: Stack) -> tuple[float, float]:
    """Share of a processor and memory while nothing but the scheduled passes runs."""
    before = stack.processor_s()
    began = time.monotonic()
    memory = list[float]()
    while time.monotonic() - began < REST_S:
        memory.append(memory_mib(stack))
        time.sleep(5.0)
    return (stack.processor_s() - before) / (time.monotonic() - began), statistics.median(memory)


def retrains(stack: Stack, rest_share: float) -> tuple[float, float]:
    """Processor seconds of a retrain, and seconds by the clock, of those requested together."""
    ids = [f"{kind}_M{number:03}USD" for number, kind in product(range(MEASURED_MARKETS), KINDS)]
    before = stack.processor_s()
    began = time.monotonic()
    stack.deliver(ids)
    while stack.ended(ids) < len(ids):
        assert time.monotonic() - began < 3 * DEADLINE_S, "the retrains did not end in time"
        time.sleep(2.0)
    taken = time.monotonic() - began
    used = stack.processor_s() - before - rest_share * taken
    return used / len(ids), taken * SLOTS / len(ids)


def watch(stack: Stack) -> float:
    """Processor seconds of a watch for each production version after the first, which loads the libraries."""
    first, *others = stack.versions()
    command_seconds(stack, "promote", first, "--force", "--reason", "Measured")
    # usage of features is measured by the first watch of a day
    command_seconds(stack, "watch")
    of_one = command_seconds(stack, "watch")
    for each in others:
        command_seconds(stack, "promote", each, "--force", "--reason", "Measured")
    command_seconds(stack, "watch")
    return (command_seconds(stack, "watch") - of_one) / len(others)


def command_seconds(stack: Stack, *arguments: str) -> float:
    """Processor seconds of a command of `clm`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [CLM, *arguments],
        env=stack.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def waits(models: int, retrain_s: float) -> Waits:
    """Waits of the scheduled retrains, and of as many for events, of a week; no run ends early."""
    return played(sorted([*scheduled(models), *for_events(models)]), retrain_s)


def scheduled(models: int) -> Iterator[float]:
    """Seconds in the week of the scheduled retrains, by the schedules of the deployments."""
    universe = universe_of(models)
    for deployment in target_deployments(Settings(universe=universe)):
        if deployment.entrypoint == "flows.retrain.retrain" and deployment.every is not None:
            every = deployment.every.total_seconds()
            first = deployment.anchor.timestamp() % every
            yield from (first + number * every for number in range(int(WEEK.total_seconds() // every)))


def for_events(models: int) -> list[float]:
    return [random.Random(models + number).uniform(0, WEEK.total_seconds()) for number in range(models)]


def played(starts: Sequence[float], retrain_s: float) -> Waits:
    """Waits of runs due at ascending moments, with `SLOTS` at a time, first come, first served."""
    free = [0.0] * SLOTS
    waited = list[float]()
    begun = list[float]()
    most_waiting = 0
    for due in starts:
        begin = max(due, heapq.heappop(free))
        heapq.heappush(free, begin + retrain_s)
        waited.append(begin - due)
        begun.append(begin)
        most_waiting = max(most_waiting, sum(each > due for each in begun[-100:]))
    p95 = statistics.quantiles(waited, n=20, method="inclusive")[-1]
    return Waits(len(starts), p95, max(waited), most_waiting)


def costs_table(costs: Costs) -> str:
    rows = [
        (f"`clm up` with {costs.models} scheduled models, until ready", f"{costs.ready_s:.0f} s"),
        ("at rest, with the scheduled passes", f"{costs.rest_share:.0%} of a processor"),
        ("at rest, memory of all processes", f"{costs.rest_mib:,.0f} MiB"),
        ("a retrain of trees on five years of hourly bars, processor time", f"{costs.retrain_s:.0f} s"),
        ("the same, from the request to the verdict, two at a time", f"{costs.retrain_wall_s:.0f} s"),
        ("the hourly watch of a further production version, processor time", f"{costs.watch_s:.2f} s"),
    ]
    return markdown_table(("cost", "measured"), rows)


def waits_table(costs: Costs) -> str:
    rows = []
    for models in SIZES:
        week = waits(models, costs.retrain_wall_s)
        busy_s = week.runs * costs.retrain_s + models * costs.watch_s * WEEK / timedelta(hours=1)
        share = busy_s / WEEK.total_seconds() / PROCESSORS
        rows.append(
            (
                f"{models:,}",
                f"{week.runs:,}",
                f"{share:.0%}",
                f"{week.p95 / 60:.1f} min",
                f"{week.longest / 60:.1f} min",
                f"{week.most_waiting}",
            )
        )
    headings = (
        "models",
        "retrains a week",
        f"work, share of {PROCESSORS} processors",
        "95 % of retrains wait at most",
        "longest wait",
        "most waiting",
    )
    return markdown_table(headings, rows)


def machine() -> str:
    return f"Measured on {datetime.now(UTC):%Y-%m-%d}: {processor()}, {PROCESSORS} processors."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=MODELS, help="models in the measured stack")
    models = parser.parse_args().models
    costs = measured(models)
    tables = {"costs": costs_table(costs), "waits": waits_table(costs)}
    for name, table in tables.items():
        print(table)
        if models == MODELS:
            text = f"{table}\n{machine()}\n" if name == "costs" else table
            replace_part(DOCUMENT, f"python -m benchmarks.sizing, {name}", text)


if __name__ == "__main__":
    main()
