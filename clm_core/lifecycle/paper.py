"""Paper record of a version: position, net return, cost and lateness of each recorded bar.

Positions are recorded; returns and costs are computed from them when asked for, on the stored bars, under the
home's terms of the market with the execution of the version, as the decisions compute them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clm_core.backtest.bar_costs import costs_by_bar
from clm_core.domain.errors import InvalidCursor, NotFound
from clm_core.domain.paper import PaperBar, PaperQuery, PaperRecord
from clm_core.domain.spellings import normalise_symbol
from clm_core.domain.terms import cost_sentence
from clm_core.domain.versions import ModelVersion
from clm_core.ledger.executions import version_execution
from clm_core.market.bars import Bars, Floats
from clm_core.market.panel import union
from clm_core.retraining.shadow_tracks import Stint, markets_since, recipe_track
from clm_core.services import Services

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _PaperRows:
    """Bars of a record, arrays of shape (n_bars,)."""

    time: NDArray[np.int64]
    position: Floats
    net_return: Floats
    cost: Floats
    late: Mask
    evidence: Mask
    recorded: Mask
    """True for bars with a recorded position."""


def paper_record(services: Services, version: ModelVersion, query: PaperQuery) -> PaperRecord:
    """Page of the bars recorded since the registration.

    Raises:
        NotFound: the symbol is no market of the version.
        InvalidCursor: the cursor is malformed, or belongs to another list.
    """
    symbols = services.ledger.job(version.training_job_id).symbols or (version.symbol,)
    symbol = None if query.symbol is None else normalise_symbol(query.symbol)
    if symbol is not None and symbol not in symbols:
        raise NotFound(
            f"{version.model_id} {version.version} has no market {symbol}; its markets: {', '.join(symbols)}."
        )
    markets = markets_since(services, version, version.created_at)
    chosen = [bars for bars in markets if symbol in (None, bars.symbol)]
    rows = _portfolio([_rows_of(services, version, bars) for bars in chosen])
    items, following = _page(rows, query)
    terms = services.home_terms(chosen[0].symbol, chosen[0].calendar).terms
    return PaperRecord(
        items=items,
        next=following,
        model_id=version.model_id,
        version=version.version,
        symbol=symbol or version.symbol,
        costs=cost_sentence(terms),
        bars=int(rows.recorded.sum()),
        late=int(rows.late.sum()),
    )


def _rows_of(services: Services, version: ModelVersion, bars: Bars) -> _PaperRows:
    track = recipe_track(services, [Stint(version, version.created_at)], bars)
    if not len(bars):
        empty = np.empty(0)
        return _PaperRows(bars.time, empty, empty, empty, track.in_time, track.in_time, track.recorded)
    rules = version_execution(services.ledger, version, services.settings.execution.rules)
    terms = services.home_terms(bars.symbol, bars.calendar).under(rules)
    result = terms.backtest(bars, track.positions)
    return _PaperRows(
        bars.time,
        track.positions,
        result.returns,
        costs_by_bar(bars, result, terms),
        track.recorded & ~track.in_time,
        track.earned,
        track.recorded,
    )


def _portfolio(members: Sequence[_PaperRows]) -> _PaperRows:
    """Means over the members on the common axis; late, or no evidence, where any member's row is."""
    if len(members) == 1:
        return members[0]
    time = union(each.time for each in members)
    position, net_return, cost = (np.zeros(len(time)) for _ in range(3))
    late, recorded = (np.zeros(len(time), dtype=np.bool_) for _ in range(2))
    evidence = np.ones(len(time), dtype=np.bool_)
    for each in members:
        rows = np.searchsorted(time, each.time)
        position[rows] += each.position / len(members)
        net_return[rows] += each.net_return / len(members)
        cost[rows] += each.cost / len(members)
        late[rows] |= each.late
        recorded[rows] |= each.recorded
        evidence[rows] &= each.evidence
    return _PaperRows(time, position, net_return, cost, late, evidence, recorded)


def _page(rows: _PaperRows, query: PaperQuery) -> tuple[tuple[PaperBar, ...], str | None]:
    """Bars of a page, and the cursor of the following page."""
    shown = rows.recorded.copy()
    if query.since is not None:
        shown &= rows.time >= _nanoseconds(query.since)
    if query.until is not None:
        shown &= rows.time < _nanoseconds(query.until)
    if query.after is not None:
        last = _last_of(query, query.after)
        shown &= (rows.time < last) if query.descending else (rows.time > last)
    matches = np.flatnonzero(shown)
    ordered = matches[::-1] if query.descending else matches
    page = ordered[: query.limit]
    more = len(ordered) > len(page)
    return tuple(_bar(rows, row) for row in page), _cursor(query, int(rows.time[page[-1]])) if more else None


def _bar(rows: _PaperRows, row: int) -> PaperBar:
    return PaperBar(
        time=pd.Timestamp(int(rows.time[row]), unit="ns", tz="UTC").to_pydatetime(),
        position=float(rows.position[row]),
        net_return=float(rows.net_return[row]),
        cost=float(rows.cost[row]),
        late=bool(rows.late[row]),
        evidence=bool(rows.evidence[row]),
    )


def _cursor(query: PaperQuery, time: int) -> str:
    return f"{query.fingerprint}-{time}"


def _last_of(query: PaperQuery, cursor: str) -> int:
    """Open time of the last bar of the preceding page.

    Raises:
        InvalidCursor: the cursor is malformed, or belongs to another list.
    """
    fingerprint, _, time = cursor.partition("-")
    if fingerprint != query.fingerprint or not time.isdecimal():
        raise InvalidCursor(
            f"{cursor!r} is no cursor of this list: use the cursor of the preceding page with the same "
            "filters, or begin without a cursor."
        )
    return int(time)


def _nanoseconds(moment: datetime) -> int:
    return int(pd.Timestamp(moment).value)
