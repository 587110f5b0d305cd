"""Evidence of a version under shadow testing: the stored positions, continued by those recorded in shadow.

An INCONCLUSIVE version is judged anew on the record of its verdict and, after it, the positions recorded in
time since the registration. Bars without such a position are traded flat. The judgements are looks at a
growing record, so each needs the higher confidence of `GatePolicy.looked_at`.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from clm_core.decisions.checks.succession import SHADOW_LEAD
from clm_core.domain.evaluations import CheckStatus, Decision, RecordFacts, Verdict
from clm_core.domain.jobs import TrainingJob
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus
from clm_core.market.bars import Bars
from clm_core.market.panel import Panel
from clm_core.retraining.shadow_tracks import RecipeTrack, Stint, moment, recipe_key, recipe_track
from clm_core.retraining.stored_evidence import MarketRuns, OutOfSampleRuns
from clm_core.services import Services

YEAR_DAYS = 365.25


@dataclass(frozen=True, eq=False)
class ShadowEvidence:
    """Stored positions continued by positions recorded in shadow, with the bars of all positions."""

    bars: Bars | Panel
    runs: OutOfSampleRuns
    facts: RecordFacts
    growth: float
    """Longest record of all judgements in shadow over the shortest."""


def beside_lead(verdict: Verdict) -> tuple[Decision, tuple[str, ...]]:
    """Decision and reasons of a verdict, the lead over the champion in shadow aside."""
    missed = [check.name for check in verdict.checks if check.status is CheckStatus.MISSED]
    if missed == [SHADOW_LEAD]:
        return Decision.PASS, ()
    pairs = zip(missed, verdict.reasons, strict=False)
    reasons = tuple(reason for name, reason in pairs if name != SHADOW_LEAD)
    return verdict.decision, reasons or verdict.reasons


def continued_in_shadow(
    services: Services, version: ModelVersion, job: TrainingJob, recorded: Verdict, runs: OutOfSampleRuns
) -> ShadowEvidence | None:
    """Evidence to judge a version in shadow by; None for a version with another status, for one that lacks
    the lead over the champion alone, and before the first position recorded in time.

    Args:
        job: job of the version's training.
        recorded: verdict after the training.
        runs: positions behind the verdict.
    """
    if version.status is not ModelStatus.SHADOW or beside_lead(recorded)[0] is Decision.PASS:
        return None
    now = services.clock()
    symbols = job.symbols or (job.symbol,)
    markets = [services.market.bars(symbol, job.timeframe, closed_by=now) for symbol in symbols]
    stint = Stint(version, version.created_at)
    tracks = [recipe_track(services, [stint], bars) for bars in markets]
    ends = [int(track.bars.time[track.in_time][-1]) for track in tracks if track.in_time.any()]
    last = max((int(each.time[-1]) for each in runs.markets if len(each.time)), default=0)
    if not ends or max(ends) <= last:
        return None
    pairs = zip(tracks, runs.markets, strict=True)
    continued = tuple(_continued(track, stored, max(ends)) for track, stored in pairs)
    known = tuple(each[: int(np.searchsorted(each.time, max(ends), side="right"))] for each in markets)
    bars: Bars | Panel = Panel(job.symbol, known) if job.symbols else known[0]
    counted = sum(int(track.in_time[track.bars.time > last].sum()) for track in tracks) // len(tracks)
    facts = _facts(recorded, runs, last, counted)
    growth = _growth(services, version, continued, markets[0].periods_per_year)
    return ShadowEvidence(bars, replace(runs, markets=continued), facts, growth)


def _continued(track: RecipeTrack, stored: MarketRuns, until: int) -> MarketRuns:
    """Stored positions on the bars of today, then those recorded in time; 0 where none was."""
    if not len(stored.time):
        return stored
    bars = track.bars
    time = bars.time[(bars.time >= stored.time[0]) & (bars.time <= until)]
    positions = np.zeros((len(stored.positions), len(time)))
    before = time <= stored.time[-1]
    positions[:, before] = stored.held_at(time[before])
    rows = np.searchsorted(bars.time, time[~before])
    positions[:, ~before] = np.where(track.in_time[rows], track.positions[rows], 0.0)
    return MarketRuns(stored.symbol, time, positions)


def _facts(recorded: Verdict, runs: OutOfSampleRuns, last: int, counted: int) -> RecordFacts:
    facts = recorded.record
    if facts is None:
        begun = min(int(each.time[0]) for each in runs.markets if len(each.time))
        facts = RecordFacts(begun=moment(begun), walk_forward_until=moment(last))
    changes = {"forward_bars": facts.forward_bars + counted, "versions": facts.versions + 1}
    return facts.model_copy(update=changes)


def _growth(
    services: Services, version: ModelVersion, markets: tuple[MarketRuns, ...], periods_per_year: float
) -> float:
    """Bars at the end of the longest shadow over the bars at the start."""
    place = services.ledger.shadow_decisions.open_place(version.model_id, recipe_key(version))
    started = version.created_at if place is None else place.started_at
    axis: NDArray[np.int64] = np.unique(np.concatenate([each.time for each in markets]))
    begun = int(np.searchsorted(axis, int(started.timestamp() * 1e9)))
    if not begun:
        return float("nan")
    max_days = services.lifecycle(version.model_id, version.symbol).max_days
    return 1.0 + max_days * periods_per_year / YEAR_DAYS / begun
