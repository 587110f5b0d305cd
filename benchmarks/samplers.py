"""Samplers of `clm tune` and the genetic search of `clm evolve`, at 100 evaluations each.

    python -m benchmarks.samplers [--seeds N]    N seeds (default 3), continued; writes docs/how-to/tuning.md
    python -m benchmarks.samplers --write        the table alone

Three real series and a planted edge: a year of hourly bars each, and 23 years of daily ones. A trial is a
walk-forward of LightGBM with 30 trees by the product's own evaluator, counted and pruned as ever. Everything
else is at the defaults of the commands, but for the genetic search: a population of 16 in 7 generations makes
100 candidates. The defaults of the kind are among the 100.
Outcomes are kept in benchmarks/samplers.jsonl; remove the file to begin anew. Real series are read from
CLM_BENCHMARK_DATA, by default ../shared/data.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from benchmarks.evolved_worlds import PLANTED, YEAR
from benchmarks.pages import markdown_table, replace_part
from benchmarks.recipes import Window
from benchmarks.recipes import bars_of as real_bars
from clm_core.domain.evolution import EvolveRequest
from clm_core.domain.searches import HeldOutSharpe, Sampler
from clm_core.domain.tuning import TuneRequest
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars, Floats
from clm_core.market.store import SeriesStore
from clm_core.search import evolution, tuning
from clm_core.search.folds import FoldTask, SharedInputs, run_fold
from clm_core.search.request import checked_features, search_bars
from clm_core.search.workers import Failure, error_line

if TYPE_CHECKING:
    from clm_core.domain.searches import Search
    from clm_core.services import Services

DOCUMENT = Path(__file__).parents[1] / "docs" / "how-to" / "tuning.md"
OUTCOMES = Path(__file__).with_suffix(".jsonl")
REAL = {
    "ETHUSDT 1h": Window("ETHUSDT_1h", "ETHUSDT", "1h", "2024-09-20", "2025-09-20", 1),
    "XAUUSD 1h": Window("XAUUSD_1h", "XAUUSD", "1h", "2021-03-05", "2022-03-05", 1),
    "SPY 1d": Window("SPY_1d", "SPY", "1d", "1998-01-01", "2021-04-01", 4),
}
CASES = (*REAL, "planted momentum")
EVALUATIONS = 100
GENETIC = "genetic"
METHODS = (Sampler.TPE.value, Sampler.GP.value, GENETIC)
LABELS = {"tpe": "TPE", "gp": "Gaussian process", GENETIC: "genetic"}
DAYS = 10_000
"""More than the days of any case."""


@dataclass(frozen=True)
class Outcome:
    """A search: annualised Sharpe ratios after costs."""

    case: str
    method: str
    seed: int
    searched: float
    """Best of the search, on the bars of the search."""
    held_out: float
    """That trial on the held-out bars."""
    defaults: float
    """Defaults of the kind on the held-out bars."""
    evaluations: int
    seconds: float
    """Processor time of the whole search."""


class Inline:
    """Folds computed one after the other in this process."""

    count = 1

    def __init__(self, shared_inputs: SharedInputs) -> None:
        self._shared_inputs = shared_inputs

    def submit(self, fold_task: FoldTask) -> Future[Floats]:
        future = Future[Floats]()
        try:
            future.set_result(run_fold(self._shared_inputs, fold_task))
        except Exception as error:  # noqa: BLE001 - reported as the failure of the fold, as by the product's workers
            future.set_exception(error)
        return future

    def result(self, future: Future[Floats]) -> Floats | Failure:
        error = future.exception()
        return future.result() if error is None else Failure(error_line(error), lost=False)


def bars_of(case: str) -> Bars:
    bars = real_bars(REAL[case]) if case in REAL else PLANTED.bars("MADE", YEAR, seed=4_000)
    # a series of its own, without a bundled series of the same name
    return replace(bars, symbol=f"CASE{CASES.index(case)}USD")


def measured(clm: "Services", case: str, method: str, seed: int) -> Outcome:
    begun = time.process_time()
    symbol = f"CASE{CASES.index(case)}USD"
    timeframe = "1d" if case.endswith("1d") else "1h"
    shared: dict[str, Any] = {
        "model_type": ModelType.LIGHTGBM,
        "symbol": symbol,
        "timeframe": timeframe,
        "dataset_span_days": DAYS,
        "training_params": {"rounds": 30},
        "seed": seed,
        "requested_by": "benchmark",
    }
    searched, held_out, evaluations = (_evolved if method == GENETIC else _tuned)(clm, shared, method)
    assert held_out is not None
    return Outcome(
        case,
        method,
        seed,
        round(searched, 4),
        round(held_out.best or 0.0, 4),
        round(held_out.defaults or 0.0, 4),
        evaluations,
        round(time.process_time() - begun, 1),
    )


def _tuned(clm: "Services", shared: dict[str, Any], method: str) -> tuple[float, HeldOutSharpe | None, int]:
    name = f"{shared['symbol']}_{method}_{shared['seed']}"
    fields = shared | {"trials": EVALUATIONS, "sampler": method, "study": name}
    request = TuneRequest.model_validate(fields)
    opened = tuning.open_tuning(clm, request)
    workers, bars = _workers(clm, opened)
    result = tuning.search_with(workers, clm, opened, request, bars)
    assert result.best is not None
    return result.best.sharpe_ratio or 0.0, result.unseen, len(result.trials)


def _evolved(clm: "Services", shared: dict[str, Any], method: str) -> tuple[float, HeldOutSharpe | None, int]:
    name = f"{shared['symbol']}_{method}_{shared['seed']}"
    fields = shared | {"population": 16, "generations": 6, "name": name}
    opened = evolution.open_evolution(clm, EvolveRequest.model_validate(fields))
    workers, bars = _workers(clm, opened)
    result = evolution.search_with(workers, clm, opened, bars)
    assert result.best is not None
    return result.best.fitness_score or 0.0, result.unseen, result.candidates


def _workers(clm: "Services", search: "Search") -> tuple[Inline, Bars]:
    bars = search_bars(clm.market, search)
    features = checked_features(search, bars)
    return Inline(SharedInputs(search.kind, search.market_costs, bars, features)), bars


def run(seeds: int) -> None:
    """Measure what is missing."""
    from clm_core.services import open_services
    from clm_core.settings import load_settings

    done = {(each.case, each.method, each.seed) for each in kept()}
    combinations = [(case, method, seed) for seed in range(seeds) for case in CASES for method in METHODS]
    with tempfile.TemporaryDirectory() as home:
        os.environ["CLM_HOME"] = home
        # a setting of the benchmarks, and none of a home
        os.environ.pop("CLM_BENCHMARK_DATA", None)
        for case in CASES:
            SeriesStore(Path(home, "data")).add(bars_of(case), "made", datetime.now(UTC))
        with open_services(load_settings()) as clm:
            for each in combinations:
                if each not in done:
                    keep(measured(clm, *each))


def keep(outcome: Outcome) -> None:
    with OUTCOMES.open("a") as file:
        file.write(json.dumps(asdict(outcome)) + "\n")


def kept() -> list[Outcome]:
    lines = OUTCOMES.read_text().splitlines() if OUTCOMES.exists() else []
    return [Outcome(**json.loads(line)) for line in lines]


def write() -> None:
    replace_part(DOCUMENT, "python -m benchmarks.samplers", _table(kept()))


def _table(outcomes: list[Outcome]) -> str:
    headings = (
        *("case", "seeds", "best in the search: TPE", "GP", "genetic"),
        *("the same, held out: TPE", "GP", "genetic", "defaults", "processor time, s: TPE", "GP", "genetic"),
    )
    rows = []
    every: dict[str, list[Outcome]] = {name: [] for name in METHODS}
    by_cell = {(each.case, each.method, each.seed): each for each in outcomes}
    for case in CASES:
        # seeds with an outcome of every method
        seeds = sorted(
            {seed for _, _, seed in by_cell if all((case, name, seed) in by_cell for name in METHODS)}
        )
        if seeds:
            own = {name: [by_cell[case, name, seed] for seed in seeds] for name in METHODS}
            rows.append((case, str(len(seeds)), *_cells(own)))
            for name in METHODS:
                every[name] += own[name]
    if rows:
        rows.append(("mean of all searches", "", *_cells(every)))
    return markdown_table(headings, rows)


def _cells(own: dict[str, list[Outcome]]) -> Iterator[str]:
    for field in ("searched", "held_out"):
        for name in METHODS:
            yield f"{mean(getattr(each, field) for each in own[name]):.2f}"
    yield f"{mean(each.defaults for each in own[METHODS[0]]):.2f}"
    for name in METHODS:
        yield f"{mean(each.seconds for each in own[name]):.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="write the table alone")
    options = parser.parse_args()
    if not options.write:
        run(options.seeds)
    write()


if __name__ == "__main__":
    main()
