"""Small studies for tests, with threads as workers."""

import contextlib
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from clm_core.domain.searches import Search
from clm_core.domain.tuning import TuneRequest, TuneResult
from clm_core.domain.vocabulary import ModelType
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.market.bars import Floats
from clm_core.market.sources import MarketData
from clm_core.market.store import SeriesStore
from clm_core.search import tuning
from clm_core.search.folds import FoldTask, SharedInputs, run_fold
from clm_core.search.request import search_bars
from clm_core.search.workers import Failure, error_line
from clm_core.services import Services


def a_request(**changes: Any) -> TuneRequest:
    values: dict[str, Any] = {
        "model_type": ModelType.LIGHTGBM,
        "symbol": "BTCUSD",
        "dataset_span_days": 90,
        "trials": 3,
        "training_params": {
            "rounds": 10,
            "threshold": 0.0,
            "learning_rate": 0.1,
            "min_child_weight": 5.0,
            # the bars are too few for rows of its own at the longest horizon
            "calibrate": False,
        },
        "study": f"s-{uuid.uuid4().hex}",
        "requested_by": "ada",
    }
    return TuneRequest.model_validate(values | changes)


def quick(services: Services) -> Services:
    """Services with three folds per trial."""
    plan = WalkForwardPlan(folds=3)
    return replace(services, settings=services.settings.model_copy(update={"walk_forward": plan}))


def own_market(services: Services, folder: Path) -> Services:
    """Services with a separate market for the test, so that trials of other tests do not count."""
    bars = services.market.bars("BTCUSD", "1h", days=100, closed_by=services.clock())
    symbol = f"T{uuid.uuid4().hex[:8]}".upper()
    SeriesStore(folder / "data").add(replace(bars, symbol=symbol), "tests", services.clock())
    return quick(replace(services, open_market=lambda: MarketData(folder)))


def own_symbol(clm: Services) -> str:
    [symbol] = [info.symbol for info in clm.market.series() if info.source == "tests"]
    return symbol


class Threads:
    """Workers as threads of the test process."""

    def __init__(self, shared_inputs: SharedInputs, count: int = 1) -> None:
        self.count = count
        self.folds = list[FoldTask]()
        self._shared_inputs = shared_inputs
        self._pool = ThreadPoolExecutor(count)

    def submit(self, fold_task: FoldTask) -> Future[Floats]:
        self.folds.append(fold_task)
        return self._pool.submit(run_fold, self._shared_inputs, fold_task)

    def result(self, future: Future[Floats]) -> Floats | Failure:
        error = future.exception()
        return future.result() if error is None else Failure(error_line(error), lost=False)

    def end(self) -> None:
        self._pool.shutdown()


@contextlib.contextmanager
def thread_workers(count: int | None, shared_inputs: SharedInputs) -> Iterator[Threads]:
    """Stand-in for `local_workers`, whose processes take a second of processor time to start."""
    workers = Threads(shared_inputs, count or 1)
    yield workers
    workers.end()


def threads(services: Services, search: Search, kind: type[Threads] = Threads, count: int = 1) -> Threads:
    bars = search_bars(services.market, search)
    return kind(SharedInputs(search.kind, search.costs, bars), count)


def tune(services: Services, request: TuneRequest, kind: type[Threads] = Threads) -> TuneResult:
    opened = tuning.open_tuning(services, request)
    workers = threads(services, opened, kind)
    return tuning.search_with(workers, services, opened, request, search_bars(services.market, opened))
