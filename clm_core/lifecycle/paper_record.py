"""Paper record: the position of a version after every bar closed since the registration, recorded once.

A pass computes the positions of the new bars, and of `OVERLAP` recorded bars before them, from the last
`Model.bars_needed` bars. A whole check computes all positions anew from the start of the training and
compares the record: at the first pass of each UTC day, after a correction of the bars, after a
difference in the overlap without a correction, on request, and always for a model without `bars_needed`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property

import numpy as np
import pandas as pd

from clm_core.decisions.shadow import Correction, Mask, Rows, corrected_since, differing_rows
from clm_core.domain.errors import InvalidPositions, StoreCorrupt
from clm_core.domain.shadows import RecordCheck, ShadowRecord, empty_record
from clm_core.domain.versions import ModelVersion
from clm_core.market.bars import Bars, Floats
from clm_core.models.contract import Model
from clm_core.models.params import series_names
from clm_core.models.pooled import view_of
from clm_core.services import Services

OVERLAP = 10
"""Recorded bars before the first new bar whose positions are computed again and compared."""


@dataclass(frozen=True, eq=False)
class PaperTrack:
    """Recorded positions of a version, with the bars."""

    bars: Bars
    """Bars of the market closed since the registration."""
    record: ShadowRecord = field(default_factory=empty_record)
    new: int = 0
    """Number of positions recorded in the pass."""
    computed: int = 0
    """Number of bars given to the model in the pass."""
    explained: int = 0
    """Number of recorded positions that differ, or whose bar is gone, explained by corrections."""
    problem: str = ""
    """Sentence about differences without a correction; empty: none."""


@dataclass(frozen=True)
class PaperMarket:
    """Closed bars of a market with the corrections known before the bars were read."""

    bars: Bars
    corrections: int


@dataclass(frozen=True)
class _Paper:
    """Record of a version in a market, before the pass."""

    services: Services
    version: ModelVersion
    load: Callable[[], Model]
    market: PaperMarket
    now: datetime

    @property
    def member(self) -> str:
        """Symbol of a pool's member; empty for a version of one market."""
        symbol = self.market.bars.symbol
        return "" if symbol == self.version.symbol else symbol

    @cached_property
    def bars(self) -> Bars:
        """Bars closed since the registration."""
        bars = self.market.bars
        return bars[bars.row_closed_after(self.version.created_at) :]

    def recorded(self) -> ShadowRecord:
        first = self.bars.start.to_pydatetime()
        version = self.version
        return self.services.ledger.shadows.recorded(version.model_id, version.version, first, self.member)

    def add(self, time: Rows, positions: Floats) -> int:
        version = self.version
        # the pass of a replayed day stands for the passes after each of its bars
        bar = (
            None if self.services.replayed is None else timedelta(seconds=self.market.bars.timeframe.seconds)
        )
        return self.services.ledger.shadows.record(
            version.model_id, version.version, time, positions, self.now, self.member, bar
        )

    def newest_check(self) -> RecordCheck | None:
        return self.services.ledger.shadows.newest_check(
            self.version.model_id, self.version.version, self.member
        )


def paper_markets(services: Services, version: ModelVersion) -> tuple[PaperMarket, ...]:
    """Closed bars of the market, or of each member of a pool."""
    now = services.clock()
    symbols = services.ledger.job(version.training_job_id).symbols or (version.symbol,)
    # corrections first: one written in between is found by the next pass
    counts = [len(services.market.manifest(symbol, version.timeframe).revisions) for symbol in symbols]
    return tuple(
        PaperMarket(services.market.bars(symbol, version.timeframe, closed_by=now), count)
        for symbol, count in zip(symbols, counts, strict=True)
    )


def extend_track(
    services: Services,
    version: ModelVersion,
    load: Callable[[], Model],
    market: PaperMarket,
    whole: bool = False,
) -> PaperTrack:
    """Record the missing positions on the bars closed since the registration.

    Args:
        load: function to load the version's model, called only where positions are to be computed.
        whole: compute all positions anew and compare with the record.

    Raises:
        InvalidPositions: a position is missing or outside [-1, 1].
        StoreCorrupt: positions are on record for bars that are gone without a correction.
    """
    paper = _Paper(services, version, load, market, services.clock())
    if not len(paper.bars):
        return PaperTrack(paper.bars)
    check = paper.newest_check()
    track = None if whole or _is_due(check, market, paper.now) else _with_new_bars(paper)
    if track is None:
        return _checked_whole(paper)
    assert check is not None
    return replace(track, explained=track.explained + check.explained, problem=check.problem or "")


def _is_due(check: RecordCheck | None, market: PaperMarket, now: datetime) -> bool:
    if check is None or check.corrections != market.corrections:
        return True
    return check.checked_at.astimezone(UTC).date() < now.astimezone(UTC).date()


def _with_new_bars(paper: _Paper) -> PaperTrack | None:
    """The record with the positions of the missing bars; None where a whole check has to follow."""
    before = paper.recorded()
    missing = ~np.isin(paper.bars.time, before.time)
    if not missing.any():
        return _track(paper, new=0, computed=0)
    if paper.load().bars_needed is None:
        return None
    first = max(0, int(np.argmax(missing)) - OVERLAP)
    positions, computed = positions_from(
        paper.services, paper.version, paper.load(), paper.market.bars, first
    )
    compared = _held(before, paper.bars[first:])[0]
    differing = differing_rows(compared, positions[~missing[first:]])
    # a whole check has counted what the corrections explain
    if not _explained(paper, compared, differing).all():
        return None
    new = paper.add(paper.bars.time[first:][missing[first:]], positions[missing[first:]])
    return _track(paper, new, computed)


def _track(paper: _Paper, new: int, computed: int) -> PaperTrack:
    """The record as stored; corrections explain recorded positions whose bar is gone."""
    record, gone = _held(paper.recorded(), paper.bars)
    _require_corrected(gone, _corrections(paper.services, paper.bars))
    return PaperTrack(paper.bars, record, new, computed, len(gone.time))


def _checked_whole(paper: _Paper) -> PaperTrack:
    """The record with the missing positions, compared with the positions computed now."""
    positions, computed = positions_from(
        paper.services, paper.version, paper.load(), paper.market.bars, 0, whole=True
    )
    missing = ~np.isin(paper.bars.time, paper.recorded().time)
    new = paper.add(paper.bars.time[missing], positions[missing])
    track = _track(paper, new, computed)
    differing = differing_rows(track.record, positions)
    explained = _explained(paper, track.record, differing)
    unexplained = differing[~explained]
    problem = _difference(paper, track.record, positions, unexplained) if len(unexplained) else None
    check = RecordCheck(paper.now, paper.market.corrections, int(explained.sum()), problem)
    version = paper.version
    paper.services.ledger.shadows.save_check(version.model_id, version.version, paper.member, check)
    return replace(track, explained=track.explained + check.explained, problem=problem or "")


def _explained(paper: _Paper, record: ShadowRecord, rows: Rows) -> Mask:
    """True for rows of a record explained by corrections of the bars, shape of the rows."""
    corrections = _corrections(paper.services, paper.bars)
    return corrected_since(record.time[rows], record.recorded[rows], corrections)


def positions_from(
    services: Services, version: ModelVersion, model: Model, bars: Bars, row: int, *, whole: bool = False
) -> tuple[Floats, int]:
    """Positions computed now on the bars closed since the registration, from a row of theirs on.

    A whole computation begins with the first bar of the training, the same in every pass: an average may
    depend on the first bar for ever. Otherwise the model gets `bars_needed` bars up to the first row.

    Args:
        bars: all closed bars of the market.

    Returns:
        Positions, and the number of bars that the model was given.

    Raises:
        InvalidPositions: a position is missing or outside [-1, 1].
    """
    view = view_of(model, bars.symbol)
    known = services.market.with_series(bars, series_names(version.params))
    first = bars.row_closed_after(version.created_at) + row
    begin = known.row_after(view.trained_on.start - timedelta(microseconds=1))
    if not whole and view.bars_needed is not None:
        begin = max(begin, first + 1 - view.bars_needed)
    positions = np.concatenate([np.zeros(begin), view.positions(known[begin:])])[first:]
    if not (np.abs(positions) <= 1.0).all():
        raise InvalidPositions(
            f"{_label(version)} answers with positions that are missing or outside [-1, 1]: no position was "
            "recorded. Correct the model and train again, or `clm retire` the version."
        )
    return positions, len(known) - begin


def _corrections(services: Services, bars: Bars) -> list[Correction]:
    manifest = services.market.manifest(bars.symbol, bars.timeframe)
    return [
        Correction(_nanoseconds(snapshot.written_at), _nanoseconds(revision.first))
        for snapshot, revision in manifest.revisions
    ]


def _held(record: ShadowRecord, bars: Bars) -> tuple[ShadowRecord, ShadowRecord]:
    """Parts of a record with and without a bar, from the first of the bars on."""
    since = record.time >= bars.time[0]
    stored = np.isin(record.time, bars.time)
    return _rows(record, stored), _rows(record, since & ~stored)


def _rows(record: ShadowRecord, rows: Mask) -> ShadowRecord:
    return ShadowRecord(record.time[rows], record.position[rows], record.recorded[rows])


def _require_corrected(gone: ShadowRecord, corrections: Sequence[Correction]) -> None:
    """Raise for recorded positions whose bar is gone without a correction."""
    lost = gone.time[~corrected_since(gone.time, gone.recorded, corrections)]
    if len(lost):
        raise StoreCorrupt(
            f"positions were recorded after bars that are no longer stored, {len(lost)} of them, the first "
            f"that of {_moment(lost[0])}: restore the data folder from a backup"
        )


def _difference(paper: _Paper, record: ShadowRecord, positions: Floats, rows: Rows) -> str:
    first = rows[0]
    of_member = f" of {paper.member}" if paper.member else ""
    return (
        f"{_label(paper.version)}{of_member}: after {len(rows)} of {len(positions)} bars the position "
        "computed now differs from the recorded position, first after the bar of "
        f"{_moment(record.time[first])}: {positions[first]:g} instead of {record.position[first]:g}. No "
        "correction of bars since is on record: bars were put in front of the series, the model is not "
        "deterministic, or it needs more bars than `bars_needed` states. The record stays"
    )


def _label(version: ModelVersion) -> str:
    return f"{version.model_id}@{version.version}"


def _nanoseconds(moment: datetime) -> int:
    return int(pd.Timestamp(moment).value)


def _moment(nanoseconds: int) -> str:
    return f"{pd.Timestamp(nanoseconds, unit='ns'):%Y-%m-%d %H:%M} UTC"
