"""Training, in a process of its own that can be ended: native code hears of no time limit, no cancellation.

A folder holds what goes in and what comes out, as JSON, numpy arrays and a bundle:

order.json  bars.npz  members/                  what is to be trained, on what; of an ensemble, the members
bundle/  out_of_sample.npz  trained.json        the results; the last of them is written last

`order_key` names the results by all that they depend on, so that a retrain which failed later on finds them.
"""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from clm_core.backtest import sentinel
from clm_core.backtest.walk_forward import FoldResult, OutOfSample, fold_result, walk_forward
from clm_core.domain import errors
from clm_core.domain.costs import Costs
from clm_core.domain.errors import BundleCorrupt, CLMError, TrainingFailed
from clm_core.domain.progress import Announce
from clm_core.domain.vocabulary import ModelType
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.market.bars import FIELDS, Bars, Floats
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.models import catalog
from clm_core.models.bundle import installed_libraries, save_bundle, verify_bundle
from clm_core.models.contract import Recipe
from clm_core.models.ensemble import with_members

ORDER, BARS, BUNDLE, OUT_OF_SAMPLE, RESULTS = (
    "order.json",
    "bars.npz",
    "bundle",
    "out_of_sample.npz",
    "trained.json",
)
LOG = "training.log"
MEMBERS = "members"
"""Where the bundles of an ensemble's members lie before it is trained."""
PAUSE_SECONDS = 0.1
"""No line for every tree."""
LOG_TAIL = 2000
"""Characters of the log that an error quotes."""


class TrainingSpec(BaseModel):
    """What is to be trained; on what is said apart."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_type: ModelType
    plugin: str | None = None
    params: dict[str, Any]
    costs: Costs
    seed: int
    seeds: int
    """How often it is walked forward: with `seed`, and the next ones."""
    plan: WalkForwardPlan

    def recipe(self) -> Recipe:
        return catalog.recipe(self.model_type, self.params, self.costs, self.plugin)


@dataclass(frozen=True)
class TrainingResult:
    """A model fitted on all the bars, and what its recipe did out of sample on the way there."""

    bundle: Path
    bundle_digest: str
    params: dict[str, Any]
    train_metrics: dict[str, float]
    learning_curve: tuple[float, ...]
    importances: dict[str, float]
    out_of_sample: tuple[OutOfSample, ...]
    """One a seed."""


def order_key(order: TrainingSpec, data_hash: str) -> str:
    """Of the parameters, the data, this code and the libraries: equal keys, equal results."""
    recipe = order.recipe()
    named = {
        "order": order.model_dump(mode="json"),
        "data": data_hash,
        "code": _code_digest(),
        "libraries": installed_libraries(recipe),
        "plugins": catalog.plugin_code(recipe),
    }
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def train(order: TrainingSpec, bars: Bars, folder: Path, announce: Announce) -> None:
    """Walk forward for honest results, fit on everything for the model that would serve, and prove that
    nothing of it knows the future; the results lie in the folder then.

    Raises:
        LookAhead: names the feature, or what else does.
    """
    recipe, share = order.recipe(), order.plan.folds / (order.plan.folds + 2)
    walks = [_walk(order, recipe, bars, number, share, announce) for number in range(order.seeds)]
    serving = with_members(recipe, folder / MEMBERS)
    model = serving.fit(bars, order.seed, lambda done: announce("Final fit", share + done * (1 - share) / 2))
    announce("Looking for leaks", (1 + share) / 2)
    sentinel.examine(recipe, model, bars, order.seed)
    digest = save_bundle(model, recipe, folder / BUNDLE, bars)
    arrays = {f"positions{number}": walk.positions for number, walk in enumerate(walks)}
    arrays |= {f"forecast{number}": walk.forecast for number, walk in enumerate(walks)}
    np.savez(folder / OUT_OF_SAMPLE, allow_pickle=False, **arrays)
    results = {
        "bundle_digest": digest,
        "params": recipe.describe(),
        "train_metrics": model.train_metrics,
        "learning_curve": model.learning_curve,
        "importances": model.importances(),
        "folds": [[_fold_json(fold) for fold in walk.folds] for walk in walks],
    }
    unfinished = folder / f"{RESULTS}.part"
    unfinished.write_text(json.dumps(results, default=float))
    unfinished.replace(folder / RESULTS)


def train_in_subprocess(
    order: TrainingSpec, bars: Bars, folder: Path, announce: Announce, limit_seconds: float
) -> None:
    """`train`, in a process that ends when the time is over, when the caller is interrupted, or dies.

    Raises:
        TrainingFailed: it was ended, or died; carries the end of its log.
        CLMError: what the training raised.
    """
    _write_order(order, bars, folder)
    with (folder / LOG).open("wb") as log, _process(folder, log) as process:
        too_long = threading.Event()

        def end() -> None:
            too_long.set()
            process.kill()

        limit = threading.Timer(limit_seconds, end)
        limit.start()
        try:
            assert process.stdout is not None
            done = any(_heard(json.loads(line), announce) for line in process.stdout)
        finally:
            limit.cancel()
            process.kill()
    if not done:
        raise _cause_of_death(process.returncode, folder / LOG, limit_seconds if too_long.is_set() else None)


def read(folder: Path, bars: Bars) -> TrainingResult:
    """The results of a training on these bars."""
    results = json.loads((folder / RESULTS).read_text())
    with np.load(folder / OUT_OF_SAMPLE, allow_pickle=False) as arrays:
        walks = tuple(
            _read_walk(bars, folds, arrays[f"positions{number}"], arrays[f"forecast{number}"])
            for number, folds in enumerate(results["folds"])
        )
    return TrainingResult(
        bundle=folder / BUNDLE,
        bundle_digest=results["bundle_digest"],
        params=results["params"],
        train_metrics=results["train_metrics"],
        learning_curve=tuple(results["learning_curve"]),
        importances=results["importances"],
        out_of_sample=walks,
    )


def is_complete(folder: Path) -> bool:
    """Whether the folder holds all the results of a training, and its bundle as it was saved."""
    if not (folder / RESULTS).exists():
        return False
    with contextlib.suppress(BundleCorrupt):
        verify_bundle(folder / BUNDLE, json.loads((folder / RESULTS).read_text())["bundle_digest"])
        return True
    return False


def _walk(
    order: TrainingSpec, recipe: Recipe, bars: Bars, number: int, share: float, announce: Announce
) -> OutOfSample:
    def report(done: float) -> None:
        announce("Walk-forward", (number + done) / order.seeds * share)

    return walk_forward(recipe, bars, order.plan, order.seed + number, report)


def _fold_json(fold: FoldResult) -> dict[str, Any]:
    rows = {name: [rows.start, rows.stop] for name, rows in (("train", fold.train), ("test", fold.test))}
    return rows | {"train_metrics": fold.train_metrics}


def _read_walk(
    bars: Bars, folds: Sequence[Mapping[str, Any]], positions: Floats, forecast: Floats
) -> OutOfSample:
    for array in (positions, forecast):
        array.setflags(write=False)
    results = tuple(
        fold_result(bars, slice(*fold["train"]), slice(*fold["test"]), fold["train_metrics"])
        for fold in folds
    )
    return OutOfSample(positions, forecast, slice(results[0].test.start, len(bars)), results)


@cache
def _code_digest() -> str:
    """Of every source file: a commit does not tell of changes that are in none."""
    digest, root = hashlib.sha256(), Path(__file__).parents[1]
    for source in sorted(root.rglob("*.py")):
        digest.update(str(source.relative_to(root)).encode() + source.read_bytes())
    return digest.hexdigest()


def _write_order(order: TrainingSpec, bars: Bars, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ORDER).write_text(order.model_dump_json())
    np.savez(
        folder / BARS,
        allow_pickle=False,
        symbol=bars.symbol,
        timeframe=bars.timeframe.value,
        calendar=bars.calendar.value,
        **{name: getattr(bars, name) for name in ("time", *FIELDS)},
    )


def _read_order(folder: Path) -> tuple[TrainingSpec, Bars]:
    with np.load(folder / BARS, allow_pickle=False) as kept:
        series = str(kept["symbol"]), Timeframe(str(kept["timeframe"])), Calendar(str(kept["calendar"]))
        bars = Bars(*series, **{name: kept[name] for name in ("time", *FIELDS)})
    return TrainingSpec.model_validate_json((folder / ORDER).read_bytes()), bars


def _process(folder: Path, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """In a session of its own: Ctrl-C in a terminal is the caller's to answer."""
    return subprocess.Popen(
        [sys.executable, "-m", "clm_core.retraining.training", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,
    )


def _heard(message: dict[str, Any], announce: Announce) -> bool:
    """What the process said; whether it was the last word."""
    match message:
        case {"step": step, "share": share}:
            announce(step, share)
        case {"error": name, "message": text}:
            kind = getattr(errors, name)
            error: CLMError = kind.__new__(kind)
            error.args = (text,)
            raise error
    return "done" in message


def _cause_of_death(code: int, log: Path, limit_seconds: float | None) -> TrainingFailed:
    if limit_seconds is not None:
        return TrainingFailed(
            f"the training took longer than {limit_seconds:g} s and was ended: give it fewer bars or smaller "
            "parameters, or raise training.limit_seconds"
        )
    written = log.read_text(errors="replace")
    last = written.strip().splitlines()[-1:]
    if code < 0 and not last:
        told = f"signal {-code} ended it; the system does so when memory runs out"
    else:
        told = f"it ended with code {code}: {' '.join(last)}"
    error = TrainingFailed(f"the training's process died: {told}")
    error.add_note(written[-LOG_TAIL:])
    return error


def _main(folder: Path) -> None:
    """What the process does: train, and tell how far it is on what was its standard output."""
    # libraries print what they like
    heard = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    lock = threading.Lock()
    threading.Thread(target=_end_when_orphaned, daemon=True).start()

    def tell(**message: Any) -> None:
        with lock:
            heard.write(json.dumps(message) + "\n")

    told = ("", 0.0)

    def announce(step: str, share: float) -> None:
        nonlocal told
        now = time.monotonic()
        if step != told[0] or now - told[1] > PAUSE_SECONDS:
            told = (step, now)
            tell(step=step, share=share)

    order, bars = _read_order(folder)
    try:
        train(order, bars, folder, announce)
    except CLMError as error:
        tell(error=type(error).__name__, message=str(error))
    else:
        tell(done=True)


def _end_when_orphaned() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
