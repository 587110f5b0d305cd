"""Record of a recipe: one out-of-sample record that grows over the retrains of the recipe.

The record begins with the walk-forward of the first retrain. Every later bar belongs to the newest registered
version trained before the bar, promoted or not: the positions of the stored bundle, each bar once. No bar is
chosen, and a later retrain adds bars without another look at the old ones. The positions are kept with each
version. Only a corrected bar changes them: positions of the first walk-forward from the correction on are
computed anew, and the record says so.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clm_core.domain.errors import (
    CLMError,
    EvidenceChanged,
    EvidenceMissing,
    NotFound,
    RegistryUnavailable,
    UnknownSeries,
)
from clm_core.domain.evaluations import RecordFacts
from clm_core.domain.jobs import TrainingJob
from clm_core.domain.versions import ModelVersion
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.market.bars import FIELDS, Bars, Floats
from clm_core.market.panel import Panel, Times, members_of
from clm_core.models.contract import Model
from clm_core.models.params import series_names
from clm_core.models.pooled import view_of
from clm_core.retraining import pools
from clm_core.retraining.recipes import recipe_of
from clm_core.retraining.stored_evidence import MarketRuns, OutOfSampleRuns, runs_of, unpack
from clm_core.retraining.trained_again import recovered
from clm_core.retraining.training import TrainingResult
from clm_core.services import Services

MAX_VERSIONS = 100
"""Newest versions of a recipe among which the last judged one is looked for."""
FIRST_VERSIONS = 3
"""Newest versions read first: the version of the job itself, the one before, and one more."""


@dataclass(frozen=True, eq=False)
class RecipeRecord:
    """Out-of-sample positions of a recipe, with the bars of the positions and earlier bars."""

    bars: Bars | Panel
    runs: OutOfSampleRuns
    facts: RecordFacts


@dataclass(frozen=True)
class _Earlier:
    """Record of the recipe at the newest version judged by one."""

    version: ModelVersion
    job: TrainingJob
    runs: OutOfSampleRuns
    facts: RecordFacts


def extended(
    services: Services, job: TrainingJob, bars: Bars | Panel, trained: TrainingResult
) -> RecipeRecord:
    """The recipe's record, continued to the newest bar of a job; the walk-forward of the job for a recipe
    without a record.

    Args:
        bars: loaded bars of the job.
        trained: results of the job's training.

    Raises:
        RegistryUnavailable: MLflow does not answer.
        EvidenceMissing: the bundle of the newest version is lost, bars belong to it, and training again gives
            other bytes.
    """
    runs = runs_of(bars, trained)
    earlier = _newest(services, job, trained.plan)
    if earlier is None:
        begun = min(int(market.time[0]) for market in runs.markets if len(market.time))
        until = _moment(int(bars.time[-1]))
        return RecipeRecord(bars, runs, RecordFacts(begun=_moment(begun), walk_forward_until=until))
    whole = pools.whole_bars(services, job)
    corrected = _corrected_from(services, earlier, whole)
    forward, problem = _followed(services, earlier, whole)
    last = _nanoseconds(earlier.facts.walk_forward_until)
    each = zip(members_of(whole), earlier.runs.markets, runs.markets, forward, strict=True)
    markets = tuple(_continued(*market, last, corrected) for market in each)
    changes = {
        "forward_bars": int(len(whole.time) - np.searchsorted(whole.time, last, side="right")),
        "versions": earlier.facts.versions + 1,
        "side_by_side": max(services.ledger.recipes(job.symbol, job.timeframe), 1),
        "corrected_from": None if corrected is None else _moment(corrected),
        "problem": problem,
    }
    facts = earlier.facts.model_copy(update=changes)
    return RecipeRecord(whole, replace(runs, markets=markets), facts)


def facts_of(services: Services, job: TrainingJob, plan: WalkForwardPlan) -> RecordFacts | None:
    """Facts of the record before a job; None for a recipe without a record."""
    earlier = _newest(services, job, plan)
    return None if earlier is None else earlier.facts


def forward_runs(services: Services, version: ModelVersion) -> tuple[MarketRuns, ...]:
    """Forward bars of the record at a version's training, by market: the positions of earlier versions of the
    recipe, each bar once, up to the newest bar of the training. Empty for a version without.

    Raises:
        EvidenceChanged: the stored positions differ from their digest.
    """
    try:
        result, verdict = services.ledger.evaluation(version.model_id, version.version)
    except NotFound:
        return ()
    stored = services.ledger.stored_evidence(result.id)
    if stored is None or verdict.record is None or not verdict.record.forward_bars:
        return ()
    last = _nanoseconds(verdict.record.walk_forward_until)
    return tuple(market.after(last) for market in unpack(stored.content).markets)


def _newest(services: Services, job: TrainingJob, plan: WalkForwardPlan) -> _Earlier | None:
    """Newest version of the recipe with unchanged stored positions, registered before the job was
    created."""
    recipe = recipe_of(job, plan, services.settings.execution.rules)
    for version in _versions_of(services, job.model_id, recipe.digest):
        # the same answer whenever asked about the job
        if version.created_at >= job.created_at:
            continue
        # a retrain is the remedy of changed evidence: an older version with sound evidence goes first
        with contextlib.suppress(NotFound, EvidenceChanged):
            result, verdict = services.ledger.evaluation(version.model_id, version.version)
            stored = services.ledger.stored_evidence(result.id)
            if stored is not None and verdict.record is not None:
                earlier = services.ledger.job(version.training_job_id)
                return _Earlier(version, earlier, unpack(stored.content), verdict.record)
    return None


def _versions_of(services: Services, model_id: str, recipe_digest: str) -> Iterator[ModelVersion]:
    """Versions of a recipe, newest first; most are read once the first few do not suffice."""
    read = partial(services.ledger.versions, model_id=model_id, recipe_digest=recipe_digest)
    yield from read(limit=FIRST_VERSIONS)
    yield from read(limit=MAX_VERSIONS)[FIRST_VERSIONS:]


def _followed(
    services: Services, earlier: _Earlier, whole: Bars | Panel
) -> tuple[Sequence[Floats | None], str | None]:
    """Positions of the newest version on the bars after the record, by market; None and the reason where an
    intact bundle cannot be loaded here: the walk-forward then stands in. Without bars after the record no
    bundle is read.

    Raises:
        EvidenceMissing: the bundle is lost, and training again gives other bytes.
    """
    markets = earlier.runs.markets
    after = [_count_after(bars, market) for bars, market in zip(members_of(whole), markets, strict=True)]
    if not any(after):
        return [None] * len(markets), None
    version = earlier.version
    try:
        model, remark = _newest_model(services, version, max(after))
        ahead = [
            _after_record(services, version, model, bars, market)
            for bars, market in zip(members_of(whole), markets, strict=True)
        ]
    except (RegistryUnavailable, EvidenceMissing):
        raise
    except CLMError as error:
        return [None] * len(markets), f"{version.version} cannot be followed: {error}"
    return ahead, remark


def _newest_model(services: Services, version: ModelVersion, bars: int) -> tuple[Model, str | None]:
    """Model of the newest version, with a remark where the bundle is lost and was trained again.

    The bars after the record belong to the version, whatever the result. Another model in its place, or bars
    left out, would let a deleted file choose the record.

    Args:
        bars: number of bars after the record.

    Raises:
        RegistryUnavailable: MLflow does not answer.
        EvidenceMissing: the bundle is lost, and training again gives other bytes.
    """
    try:
        recovery = recovered(services, version)
    except EvidenceMissing as error:
        raise EvidenceMissing(_lost(version, bars, error)) from error
    return recovery.model, recovery.lost


def _lost(version: ModelVersion, bars: int, why: CLMError) -> str:
    name = f"{version.model_id} {version.version}"
    return (
        f"{why}. The {bars:,} bars since its training belong to it, and no other model may stand in: a "
        "deleted file must not choose the record. Put the files back from a backup, or run "
        f"`clm restore-version {name}`, and retrain; a changed recipe starts a record of its own"
    )


def _count_after(bars: Bars, market: MarketRuns) -> int:
    """Number of bars after the record of a market; 0 for a market without a record."""
    if not len(market.time):
        return 0
    return len(bars) - int(np.searchsorted(bars.time, market.time[-1], side="right"))


def _after_record(
    services: Services, version: ModelVersion, model: Model, bars: Bars, market: MarketRuns
) -> Floats:
    view = view_of(model, bars.symbol)
    known = services.market.with_series(bars, series_names(version.params))
    # the first bar must be the same in every pass: an average may depend on it for ever
    first = known.row_after(view.trained_on.start - timedelta(microseconds=1))
    begin = int(np.searchsorted(bars.time, market.time[-1], side="right")) if len(market.time) else len(bars)
    positions: Floats = view.positions(known[first:])
    return positions[max(0, begin - first) :]


def _continued(
    bars: Bars,
    old: MarketRuns,
    new: MarketRuns,
    ahead: Floats | None,
    until: int,
    corrected: int | None,
) -> MarketRuns:
    """Positions of a market from the first bar of its record to the newest bar.

    Args:
        bars: all bars of the market.
        old: record at the newest version.
        new: walk-forward of the job.
        ahead: positions of the newest version after its record.
        until: last bar of the first walk-forward, nanoseconds since 1970-01-01 UTC.
        corrected: first corrected bar, nanoseconds since 1970-01-01 UTC.
    """
    if not len(old.time):
        return new
    time = bars.time[int(np.searchsorted(bars.time, old.time[0])) :]
    seeds = min(len(old.positions), len(new.positions))
    positions = np.zeros((seeds, len(time)))
    walked = _among(time, new.time)
    positions[:, walked] = new.positions[:seeds, _among(new.time, time)]
    recorded = time <= old.time[-1]
    if corrected is not None:
        recorded &= ~(walked & (time >= corrected) & (time <= until))
    positions[:, recorded] = old.held_at(time[recorded])[:seeds]
    if ahead is not None:
        positions[:, time > old.time[-1]] = ahead
    return MarketRuns(bars.symbol, time, positions)


def _among(time: Times, others: Times) -> NDArray[np.bool_]:
    """True for the times that are among others, shape (n,); both ascending."""
    if not len(others):
        return np.zeros(len(time), np.bool_)
    places = np.minimum(np.searchsorted(others, time), len(others) - 1)
    return np.asarray(others[places] == time)


def _corrected_from(services: Services, earlier: _Earlier, whole: Bars | Panel) -> int | None:
    """First bar that differs from the bars of the newest version's training; None if all are equal, or if
    the earlier bars are stored no more."""
    try:
        before = members_of(pools.whole_bars(services, earlier.job))
    except UnknownSeries:
        return None
    differing = [_first_difference(old, new) for old, new in zip(before, members_of(whole), strict=True)]
    return min((each for each in differing if each is not None), default=None)


def _first_difference(old: Bars, new: Bars) -> int | None:
    """Open time of the first bar that is missing or different in the new bars, or was missing in the old."""
    start = max(int(old.time[0]), int(new.time[0]))
    ours = old[int(np.searchsorted(old.time, start)) :]
    stop = int(np.searchsorted(new.time, old.time[-1], side="right"))
    theirs = new[int(np.searchsorted(new.time, start)) : stop]
    count = min(len(ours), len(theirs))
    same = ours.time[:count] == theirs.time[:count]
    for name in FIELDS:
        same &= getattr(ours, name)[:count] == getattr(theirs, name)[:count]
    if not same.all():
        row = int(np.argmin(same))
        return min(int(ours.time[row]), int(theirs.time[row]))
    longer = ours if len(ours) > count else theirs
    return int(longer.time[count]) if len(longer) > count else None


def _nanoseconds(moment: datetime) -> int:
    return int(pd.Timestamp(moment).value)


def _moment(nanoseconds: int) -> datetime:
    moment: datetime = pd.Timestamp(nanoseconds, unit="ns", tz="UTC").to_pydatetime()
    return moment
