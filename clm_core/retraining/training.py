"""Training in a folder, which holds input and results as JSON, numpy arrays and a bundle.

`training_places` runs this module as a process on the machine of the run, or in a pod:

    python -P -m clm_core.retraining.training FOLDER

input      spec.json  bars.npz  features.json  members/ (bundles of an ensemble's members)
results    bundle/  out_of_sample.npz  trained.json (written last)
messages   see `training_messages`

`results_key` names the results by everything they depend on, so that the next retrain can take over the
training of a failed job.
"""

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from clm_core.backtest import pools, return_forecasts, sentinel
from clm_core.backtest.walk_forward import (
    NO_ANSWERS,
    AnswerStore,
    FoldResult,
    OutOfSample,
    final_rows,
    fit_anew,
    fold_result,
    fold_rows,
    walk_forward,
)
from clm_core.domain.costs import MarketCosts
from clm_core.domain.errors import BundleCorrupt, CLMError, NotEnoughBars
from clm_core.domain.progress import Announce
from clm_core.domain.recipes import regime_of
from clm_core.domain.vocabulary import ModelType
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.market.bars import FIELDS, Bars, Floats
from clm_core.market.panel import Panel, members_of
from clm_core.market.regimes import STATES
from clm_core.market.series import PREFIX
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.models import catalog
from clm_core.models.bundle import installed_libraries, save_bundle, verify_bundle
from clm_core.models.contract import Model, Progress, Recipe
from clm_core.models.ensemble import with_members
from clm_core.models.own import FeaturesInUse
from clm_core.models.params import feature_names, own_origins
from clm_core.models.pooled import PooledModel, fit_pool
from clm_core.models.sizing import following_folds
from clm_core.models.trees.xgboost import import_without_sklearn
from clm_core.platform.garbage_collection import collect_garbage_rarely
from clm_core.platform.private_files import keep_files_private
from clm_core.retraining.code_version import code_digest
from clm_core.retraining.fold_cache import FoldCache
from clm_core.retraining.training_messages import MESSAGES, MessageWriter, end_without_caller

SPEC = "spec.json"
BARS = "bars.npz"
POOL = "pool.json"
"""File of a pool's training with the name and the number of the members."""
REGIMES = ("regime", "regime_fits")
"""Arrays with the regimes among those of the bars."""
FEATURES = "features.json"
BUNDLE = "bundle"
OUT_OF_SAMPLE = "out_of_sample.npz"
ARRAYS = ("positions", "forecast")
RESULTS = "trained.json"
MEMBERS = "members"
"""Folder for the bundles of an ensemble's members, filled before the training."""
MIN_REGIME_SHARE = 0.05
"""Share of the bars that a regime trained towards needs: weighing four times, a twentieth of the bars has a
sixth of the weight."""


class TrainingSpec(BaseModel):
    """Specification of a training; the bars are passed separately."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_type: ModelType
    plugin: str | None = None
    params: dict[str, Any]
    costs: MarketCosts
    seed: int
    seeds: int
    """Number of walk-forward runs, with consecutive seeds from `seed`."""
    plan: WalkForwardPlan

    def recipe(self) -> Recipe:
        return catalog.recipe(self.model_type, self.params, self.costs, self.plugin)


@dataclass(frozen=True)
class TrainingResult:
    """A model fitted on the newest training span, and out-of-sample results of the recipe by walk-forward."""

    bundle: Path
    bundle_digest: str
    params: dict[str, Any]
    train_metrics: dict[str, float]
    learning_curve: tuple[float, ...]
    importances: dict[str, float]
    plan: WalkForwardPlan
    """Plan of the walk-forward, with the days and the grid of the request."""
    out_of_sample: tuple[OutOfSample, ...]
    """Walk-forward results, one item per seed; of a pool, the mean position on the common axis."""
    by_member: tuple[tuple[OutOfSample, ...], ...] = ()
    """Walk-forward results of each member of a pool, one item per seed; empty for one market."""


def results_key(spec: TrainingSpec, data_hash: str) -> str:
    """SHA-256 over spec, data, code and libraries, hexadecimal: equal keys mean equal results."""
    inputs = {"spec": spec.model_dump(mode="json"), "data": data_hash, **_code_facts(spec.recipe())}
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _code_facts(recipe: Recipe) -> dict[str, Any]:
    """Code and libraries that a fit depends on."""
    return {
        "code": code_digest(),
        "libraries": installed_libraries(recipe),
        "plugins": catalog.plugin_code(recipe),
        "features": {origin.name: origin.digest for origin in own_origins(recipe.describe())},
    }


def train(
    spec: TrainingSpec,
    bars: Bars | Panel,
    folder: Path,
    announce: Announce,
    cache: FoldCache | None = None,
) -> None:
    """Walk forward with every seed, fit the final model, test for leaks and write the results.

    Args:
        cache: models of folds fitted by earlier trainings; None fits every fold.

    Raises:
        LookAhead: a feature or the model uses future bars; the message names the culprit.
    """
    recipe = spec.recipe()
    regime = regime_of(spec.params, spec.plugin)
    if regime is not None and isinstance(bars, Bars):
        require_regime(bars, regime, spec.plan)
    # seconds, and refused before hours of training
    longest = max(bars, key=len) if isinstance(bars, Panel) else bars
    sentinel.examine_own_features(feature_names(recipe.describe()), longest, spec.seed)
    count = len(fold_rows(bars.time, spec.plan))
    share = count / (count + 2)
    runs = [_walk(spec, recipe, bars, number, share, announce, cache) for number in range(spec.seeds)]
    if cache is not None:
        cache.trim()
    fold_metrics = [fold.train_metrics for run in runs for fold in run[0].folds]
    final_recipe = following_folds(with_members(recipe, folder / MEMBERS), fold_metrics)

    def report_fit(done: float) -> None:
        announce("Final fit", share + done * (1 - share) / 2)

    newest = final_bars(bars, spec.plan)
    model = fit(final_recipe, newest, spec.seed, report_fit)
    announce("Looking for leaks", (1 + share) / 2)
    # the fit of the version, with members of an ensemble that are fitted on the shuffled bars as well
    tested_recipe = following_folds(recipe, fold_metrics)
    if isinstance(model, PooledModel):
        assert isinstance(bars, Panel)
        pools.examine(catalog.pooling(tested_recipe), model, bars, spec.seed)
    else:
        assert isinstance(bars, Bars)
        sentinel.examine(tested_recipe, model, bars, spec.seed)
    digest = save_bundle(model, recipe, folder / BUNDLE, newest)
    arrays = {
        _array(name, number, member, len(run)): values
        for number, run in enumerate(runs)
        for member, of_member in enumerate(run)
        for name, values in _arrays_of(of_member).items()
    }
    np.savez(folder / OUT_OF_SAMPLE, allow_pickle=False, **arrays)
    results = {
        "bundle_digest": digest,
        "params": recipe.describe(),
        "train_metrics": model.train_metrics,
        "learning_curve": model.learning_curve,
        "importances": model.importances(),
        "plan": spec.plan.model_dump(mode="json"),
        "folds": [[_fold_json(fold) for fold in run[0].folds] for run in runs],
    }
    unfinished = folder / f"{RESULTS}.part"
    unfinished.write_text(json.dumps(results, default=float))
    unfinished.replace(folder / RESULTS)


def require_regime(bars: Bars, regime: str, plan: WalkForwardPlan) -> None:
    """Refuse a training towards a regime that the training bars hardly know.

    The registered model needs the regime in a twentieth of its bars, and so does half of the folds. A fold
    with fewer is fitted on what there is: the walk-forward judges the recipe at every date.

    Args:
        bars: bars of the training with regimes.

    Raises:
        NotEnoughBars: the bars of the regime are too few.
    """
    assert bars.regime is not None
    within = np.equal(bars.regime, STATES.index(regime))
    market = f"{bars.symbol} {bars.timeframe}"
    needed = f"{MIN_REGIME_SHARE:.0%}"
    remedy = "Train without regime, towards another regime, or on more days of bars"
    newest = within[final_rows(bars.time, plan)]
    if not newest.mean() >= MIN_REGIME_SHARE:
        raise NotEnoughBars(
            f"{market}: {np.count_nonzero(newest):,} of the {len(newest):,} newest training bars are "
            f"{regime}, and a training towards a regime needs {needed} of them. {remedy}"
        )
    shares = [within[train].mean() for train, _ in fold_rows(bars.time, plan)]
    enough = sum(share >= MIN_REGIME_SHARE for share in shares)
    if not enough * 2 >= len(shares):
        raise NotEnoughBars(
            f"{market}: {enough} of the {len(shares)} folds have {needed} {regime} bars to train on, and "
            f"half of the folds must: the walk-forward would prove nothing about the regime. {remedy}"
        )


def read(folder: Path, bars: Bars | Panel) -> TrainingResult:
    """Read the results of a training on the bars."""
    results = json.loads((folder / RESULTS).read_text())
    members = members_of(bars)
    axis = bars.index_bars() if isinstance(bars, Panel) else bars
    with np.load(folder / OUT_OF_SAMPLE, allow_pickle=False) as arrays:
        runs = tuple(
            tuple(
                _read_walk(
                    axis,
                    member_bars,
                    folds,
                    {
                        name: arrays[_array(name, number, member, len(members))]
                        for name in (*ARRAYS, *return_forecasts.NAMES)
                        if _array(name, number, member, len(members)) in arrays
                    },
                )
                for member, member_bars in enumerate(members)
            )
            for number, folds in enumerate(results["folds"])
        )
    return TrainingResult(
        bundle=folder / BUNDLE,
        bundle_digest=results["bundle_digest"],
        params=results["params"],
        train_metrics=results["train_metrics"],
        learning_curve=tuple(results["learning_curve"]),
        importances=results["importances"],
        plan=WalkForwardPlan.model_validate(results["plan"]),
        out_of_sample=tuple(pools.on_axis(bars, run) if isinstance(bars, Panel) else run[0] for run in runs),
        by_member=runs if isinstance(bars, Panel) else (),
    )


def clear_results(folder: Path) -> None:
    """Delete the results and messages of an earlier try; the input stays."""
    for name in (RESULTS, OUT_OF_SAMPLE, MESSAGES):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / BUNDLE, ignore_errors=True)


def is_complete(folder: Path) -> bool:
    """True if the folder holds all results of a training, with the bundle unchanged since saving."""
    if not (folder / RESULTS).exists():
        return False
    with contextlib.suppress(BundleCorrupt):
        verify_bundle(folder / BUNDLE, json.loads((folder / RESULTS).read_text())["bundle_digest"])
        return True
    return False


def _walk(
    spec: TrainingSpec,
    recipe: Recipe,
    bars: Bars | Panel,
    number: int,
    share: float,
    announce: Announce,
    cache: FoldCache | None,
) -> tuple[OutOfSample, ...]:
    """Results of each member of a pool; of one series, a single result."""

    def report(done: float) -> None:
        announce("Walk-forward", (number + done) / spec.seeds * share)

    seed = spec.seed + number
    fit_once = fit_anew
    store: AnswerStore = NO_ANSWERS
    # folds of a plan in equal folds move with the bars, and none would be found again
    if cache is not None and spec.plan.on_dates:
        facts = spec.model_dump(mode="json", exclude={"plan", "seeds", "seed"}) | {"seed": seed}
        facts |= _code_facts(recipe)
        fit_once = cache.fit_once(facts, recipe)
        store = cache.answers(facts)
    if isinstance(bars, Panel):
        pooling = catalog.pooling(recipe)
        return pools.walk_forward(pooling, bars, spec.plan, seed, report, fit_once=fit_once)
    run = walk_forward(recipe, bars, spec.plan, seed, report, fit_once=fit_once, store=store)
    return (run,)


def final_bars(bars: Bars | Panel, plan: WalkForwardPlan) -> Bars | Panel:
    """Training bars of the registered model: the newest training span of the plan."""
    return pools.final_panel(bars, plan) if isinstance(bars, Panel) else bars[final_rows(bars.time, plan)]


def fit(recipe: Recipe, bars: Bars | Panel, seed: int, progress: Progress) -> Model:
    """Model of one market, or pooled model of a panel."""
    if isinstance(bars, Panel):
        return fit_pool(catalog.pooling(recipe), bars, seed, progress)
    return recipe.fit(bars, seed, progress)


def _array(name: str, seed: int, member: int, members: int) -> str:
    """Name of an array of results; those of one market carry no number of a member."""
    return f"{name}{seed}" if members == 1 else f"{name}{seed}-{member}"


def _arrays_of(run: OutOfSample) -> dict[str, Floats]:
    """Arrays of a walk-forward by name; those of `ReturnForecasts` for a kind with forecasts of returns
    only."""
    return {name: getattr(run, name) for name in ARRAYS} | return_forecasts.to_arrays(run.returns)


def _fold_json(fold: FoldResult) -> dict[str, Any]:
    rows = {name: [rows.start, rows.stop] for name, rows in (("train", fold.train), ("test", fold.test))}
    return rows | {"train_metrics": fold.train_metrics, "importances": fold.importances}


def _read_walk(
    axis: Bars, bars: Bars, folds: Sequence[Mapping[str, Any]], arrays: Mapping[str, Floats]
) -> OutOfSample:
    """
    Args:
        axis: bars whose rows the folds count: the bars themselves, or those of a pool.
        arrays: arrays by name, see `_arrays_of`.
    """
    for array in arrays.values():
        array.setflags(write=False)
    results = tuple(
        fold_result(
            axis, slice(*fold["train"]), slice(*fold["test"]), fold["train_metrics"], fold["importances"]
        )
        for fold in folds
    )
    first = int(np.searchsorted(bars.time, axis.time[results[0].test.start]))
    returns = return_forecasts.from_arrays(arrays)
    rows = slice(first, len(bars))
    return OutOfSample(arrays["positions"], arrays["forecast"], rows, results, returns)


def write_input(spec: TrainingSpec, bars: Bars | Panel, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SPEC).write_text(spec.model_dump_json())
    (folder / FEATURES).write_text(FeaturesInUse.of(spec.recipe().describe()).model_dump_json())
    if isinstance(bars, Panel):
        (folder / POOL).write_text(json.dumps({"name": bars.name, "members": len(bars)}))
        for number, member in enumerate(bars):
            _write_bars(member, folder / _member_file(number))
    else:
        _write_bars(bars, folder / BARS)


def read_input(folder: Path) -> tuple[TrainingSpec, Bars | Panel]:
    spec = TrainingSpec.model_validate_json((folder / SPEC).read_bytes())
    if not (folder / POOL).exists():
        return spec, _read_bars(folder / BARS)
    pool = json.loads((folder / POOL).read_text())
    members = (_read_bars(folder / _member_file(number)) for number in range(pool["members"]))
    return spec, Panel(pool["name"], tuple(members))


def _member_file(number: int) -> str:
    return f"bars-{number}.npz"


def _write_bars(bars: Bars, path: Path) -> None:
    np.savez(
        path,
        allow_pickle=False,
        symbol=bars.symbol,
        timeframe=bars.timeframe.value,
        calendar=bars.calendar.value,
        gap_rules=bars.gap_rules,
        **{name: getattr(bars, name) for name in ("time", *FIELDS)},
        **{f"{PREFIX}{name}": values for name, values in bars.series.items()},
        **{name: getattr(bars, name) for name in REGIMES if getattr(bars, name) is not None},
    )


def _read_bars(path: Path) -> Bars:
    with np.load(path, allow_pickle=False) as kept:
        series = str(kept["symbol"]), Timeframe(str(kept["timeframe"])), Calendar(str(kept["calendar"]))
        columns = {name: kept[name] for name in ("time", *FIELDS)}
        own = {name.removeprefix(PREFIX): kept[name] for name in kept.files if name.startswith(PREFIX)}
        regime, fits = (kept[name] if name in kept.files else None for name in REGIMES)
        rules = int(kept["gap_rules"])
        return Bars(*series, **columns, gap_rules=rules, series=own, regime=regime, regime_fits=fits)


def _main(folder: Path, cache: FoldCache | None, silence_seconds: float | None) -> None:
    """Train in the folder, and write progress, the error or the end as messages.

    Args:
        silence_seconds: time without a sign of life of the caller after which the process ends; None ends
            the process when its standard input closes, as happens at the death of the parent.
    """
    if not (folder / SPEC).exists():
        sys.exit(f"{folder} has no {SPEC}: the folder of the training is not on the volume of this process")
    messages = MessageWriter(folder)
    if silence_seconds is None:
        watch = threading.Thread(target=_end_when_orphaned, daemon=True)
    else:
        watch = threading.Thread(target=end_without_caller, args=(messages, silence_seconds), daemon=True)
    watch.start()
    spec, bars = read_input(folder)
    features = FeaturesInUse.model_validate_json((folder / FEATURES).read_bytes())
    if spec.model_type is ModelType.XGBOOST and not own_origins(spec.recipe().describe()):
        import_without_sklearn()
    try:
        with features.in_force():
            train(spec, bars, folder, messages.announcer(), cache)
    except CLMError as error:
        messages.send(error=type(error).__name__, message=str(error))
    else:
        messages.send(done=True)


def _end_when_orphaned() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=_main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", nargs=2, metavar=("FOLDER", "MIB"))
    parser.add_argument("--caller-silence", type=float, metavar="SECONDS")
    return parser.parse_args()


if __name__ == "__main__":
    collect_garbage_rarely()
    keep_files_private()
    given = _arguments()
    folds = FoldCache(Path(given.cache[0]), int(given.cache[1])) if given.cache else None
    _main(given.folder, folds, given.caller_silence)
