"""Fills: reports of traders with their refusals, and figures beside the paper record of production."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from clm_core.backtest.realised import BarFills, RealisedAccount, realised_account
from clm_core.backtest.terms import MarketTerms
from clm_core.domain.actors import Actor
from clm_core.domain.errors import BarNotStored, FillRefused, NotFound
from clm_core.domain.faults import Fault, crash_at
from clm_core.domain.fills import (
    Fill,
    FillPage,
    FillQuery,
    FillReceipt,
    ListedFill,
    MarketFills,
    RecordedFill,
)
from clm_core.domain.spellings import normalise_symbol
from clm_core.domain.versions import ModelVersion
from clm_core.evidence.slippage import slippage_bps
from clm_core.ledger.executions import version_execution
from clm_core.market.bars import Bars, Floats
from clm_core.retraining.measured_costs import measured_costs, rows_of
from clm_core.retraining.shadow_tracks import moment, recipe_track, stint_of
from clm_core.services import Services

PRICE_TOLERANCE = 0.005
"""Distance of a price below the low or above the high of its bar that is accepted, as a fraction: another
venue than the source of the bars."""
CLOCK_TOLERANCE = timedelta(minutes=1)
"""Lead of a sender's clock that is accepted."""


def report_fills(services: Services, fills: Sequence[Fill], actor: Actor) -> FillReceipt:
    """Record the fills of a report, all or none.

    Raises:
        NotFound: a version does not exist.
        FillRefused: a fill cannot be true.
        BarNotStored: the bar of a fill is not stored yet.
        AlreadyExists: a fill is recorded with the same id and other contents.
    """
    models = {each.model_id for each in fills}
    ids = {each.id for each in fills}
    known = {(model, id) for model in models for id in services.ledger.fills.known(model, ids)}
    examination = _Examination(services, actor, services.clock(), known)
    recorded = [examination.examined(number, each) for number, each in enumerate(fills, start=1)]
    new = services.ledger.fills.record(recorded, services.settings.fault)
    crash_at(Fault.FILLS_RECORDED, services.settings.fault)
    return FillReceipt(new=new, known=len(recorded) - new)


@dataclass(frozen=True)
class _Serving:
    """A time in which a version was traded."""

    since: datetime
    until: datetime | None


@dataclass(frozen=True)
class _Examination:
    """A report under examination, with what its fills have in common."""

    services: Services
    actor: Actor
    now: datetime
    known: set[tuple[str, str]]
    """Model and id of fills recorded before."""
    _versions: dict[tuple[str, str], ModelVersion] = field(default_factory=dict)
    _servings: dict[tuple[str, str], list[_Serving]] = field(default_factory=dict)
    _bars: dict[tuple[str, str], Bars] = field(default_factory=dict)

    def examined(self, number: int, fill: Fill) -> RecordedFill:
        """The fill as recorded, in its market."""
        named = f"Fill {number} ({fill.id})"
        version = self._version(named, fill)
        symbol = self._symbol(named, fill, version)
        stated = fill.model_dump() | {"symbol": symbol}
        recorded = RecordedFill(**stated, reported_by=self.actor.name, at=self.now)
        # a known fill is compared alone: bars and versions may have changed since its report
        if (fill.model_id, fill.id) not in self.known:
            self._require_possible(named, recorded, version)
        return recorded

    def _version(self, named: str, fill: Fill) -> ModelVersion:
        key = fill.model_id, fill.version
        if key not in self._versions:
            try:
                self._versions[key] = self.services.ledger.version(*key)
            except NotFound as error:
                raise NotFound(f"{named}: {error}") from error
        return self._versions[key]

    def _symbol(self, named: str, fill: Fill, version: ModelVersion) -> str:
        members = self.services.ledger.job(version.training_job_id).symbols or (version.symbol,)
        if fill.symbol is None and len(members) > 1:
            raise FillRefused(
                f"{named}: {version.model_id} is a pool: name the `symbol`, {_either(members)}."
            )
        symbol = members[0] if fill.symbol is None else normalise_symbol(fill.symbol)
        if symbol not in members:
            raise FillRefused(
                f"{named}: {symbol} is no market of {version.model_id}: name the `symbol`, "
                f"{_either(members)}."
            )
        return symbol

    def _require_possible(self, named: str, fill: RecordedFill, version: ModelVersion) -> None:
        if fill.time > self.now + CLOCK_TOLERANCE:
            raise FillRefused(
                f"{named}: its `time`, {_utc(fill.time)}, is in the future; it is {_utc(self.now)}: send "
                "times with their zone, and set the clock of the sender."
            )
        begun = [each for each in self._servings_of(version) if each.since <= fill.time]
        if not begun:
            raise FillRefused(f"{named}: {self._too_early(fill, version)}")
        bars = self._bars_of(fill.symbol, version.timeframe)
        [row] = rows_of([fill], bars).tolist()
        if row < 0:
            raise self._without_bar(named, fill, bars)
        # one bar that opens after the end is left for closing the position
        if not any(each.until is None or row <= bars.row_after(each.until) for each in begun):
            ended = max(each.until for each in begun if each.until is not None)
            raise FillRefused(
                f"{named}: {_label(fill)} was traded until {_utc(ended)}, and the fill of {_utc(fill.time)} "
                "lies after the bar that followed: name the `version` whose position was traded."
            )
        low = float(bars.low[row])
        high = float(bars.high[row])
        opened = moment(int(bars.time[row]))
        if not low * (1.0 - PRICE_TOLERANCE) <= fill.price <= high * (1.0 + PRICE_TOLERANCE):
            raise FillRefused(
                f"{named}: its `price`, {fill.price:g}, is more than {PRICE_TOLERANCE:.1%} outside the bar "
                f"of {_utc(opened)}, {low:g} to {high:g} on {fill.symbol}: send the price "
                "in the currency of the bars, and the time of the trade."
            )

    def _too_early(self, fill: RecordedFill, version: ModelVersion) -> str:
        servings = self._servings_of(version)
        if not servings:
            return f"{_label(fill)} was never in production or in an allocation: name the version traded."
        first = min(each.since for each in servings)
        return (
            f"its `time`, {_utc(fill.time)}, is before the promotion of {_label(fill)} at {_utc(first)}: "
            "name the version that was in production then."
        )

    def _without_bar(self, named: str, fill: RecordedFill, bars: Bars) -> FillRefused:
        step = timedelta(seconds=bars.timeframe.seconds)
        if not len(bars) or fill.time >= bars.end.to_pydatetime() + step:
            return BarNotStored(
                f"{named}: the bar of {_utc(fill.time)} on {fill.symbol} has not closed, or is not stored "
                "yet: send the same report again after the close and `clm data update`."
            )
        return FillRefused(
            f"{named}: {fill.symbol} has no bar at {_utc(fill.time)}, and bars after that time: correct the "
            "`time`, or fill the gap with `clm data import`."
        )

    def _servings_of(self, version: ModelVersion) -> list[_Serving]:
        key = version.model_id, version.version
        if key not in self._servings:
            self._servings[key] = _servings(self.services, version)
        return self._servings[key]

    def _bars_of(self, symbol: str, timeframe: str) -> Bars:
        key = symbol, timeframe
        if key not in self._bars:
            self._bars[key] = self.services.market.bars(symbol, timeframe, closed_by=self.now)
        return self._bars[key]


def _servings(services: Services, version: ModelVersion) -> list[_Serving]:
    """Times of a version in production, and as an arm of an allocation."""
    history = services.ledger.promotions.committed(version.model_id)
    ends = [*(change.at for change in history[1:]), None]
    in_production = [
        _Serving(change.at, end)
        for change, end in zip(history, ends, strict=False)
        if change.to_version == version.version
    ]
    tenures = services.ledger.allocations.tenures(version.model_id, version.version)
    return [*in_production, *(_Serving(since, until) for since, until in tenures)]


def fills_of(services: Services, model_id: str, query: FillQuery) -> FillPage:
    """Page of the fills of a model with the slippage of each, and the figures of each market.

    Raises:
        NotFound: the model does not exist.
        InvalidCursor: the cursor is malformed, or belongs to another list.
        InvalidSymbol: the symbol of the query is malformed.
    """
    if not services.ledger.versions(model_id=model_id, limit=1):
        raise NotFound(f"There is no model {model_id}: `clm models` lists the models.")
    page = services.ledger.fills.find(model_id, query)
    return FillPage(
        items=_listed(services, page.items),
        next=page.next,
        model_id=model_id,
        markets=fill_figures(services, model_id),
    )


def _listed(services: Services, fills: Sequence[RecordedFill]) -> tuple[ListedFill, ...]:
    slippage: list[float | None] = [None] * len(fills)
    for symbol in {each.symbol for each in fills}:
        places = [place for place, each in enumerate(fills) if each.symbol == symbol]
        bars = _market(services, fills[places[0]])
        for place, row in zip(places, rows_of([fills[place] for place in places], bars), strict=True):
            fill = fills[place]
            if row >= 0 and not fill.resting:
                prices = np.array([fill.price]), bars.open[row : row + 1]
                slippage[place] = float(slippage_bps(np.array([fill.change]), *prices)[0])
    pairs = zip(fills, slippage, strict=True)
    return tuple(ListedFill(**each.model_dump(), slippage_bps=bps) for each, bps in pairs)


def fill_figures(services: Services, model_id: str) -> tuple[MarketFills, ...]:
    """Figures of each market of a model with fills, by symbol; empty without a fill."""
    fills = sorted(services.ledger.fills.of_model(model_id), key=lambda each: each.symbol)
    groups = groupby(fills, key=lambda each: each.symbol)
    return tuple(_figures(services, list(group)) for _, group in groups)


def _market(services: Services, fill: RecordedFill) -> Bars:
    version = services.ledger.version(fill.model_id, fill.version)
    return services.market.bars(fill.symbol, version.timeframe, closed_by=services.clock())


def _figures(services: Services, fills: Sequence[RecordedFill]) -> MarketFills:
    """Figures of a market.

    Args:
        fills: fills of a model in the market, oldest first; at least one.
    """
    bars = _market(services, fills[0])
    figures = MarketFills(
        symbol=bars.symbol,
        fills=len(fills),
        since=fills[0].time,
        newest=fills[-1].time,
        until=None,
        turnover=None,
        paper_turnover=None,
        realised_return=None,
        paper_return=None,
        position=None,
        paper_position=None,
        modelled=services.home_terms(bars.symbol, bars.calendar).terms.costs,
        measured=measured_costs(services, fills[0].model_id, bars),
    )
    rows = rows_of(fills, bars)
    # a backtest closes its position in the last bar, which the fills do not
    counted = (rows >= 0) & (rows < len(bars) - 1)
    if not counted.any():
        return figures
    traded = [each for each, counts in zip(fills, counted, strict=True) if counts]
    return figures.model_copy(update=_beside_paper(services, traded, rows[counted], bars))


def _beside_paper(
    services: Services, fills: Sequence[RecordedFill], rows: NDArray[np.int64], bars: Bars
) -> dict[str, object]:
    """Account of the fills and the paper record of production, from the bar before the first fill on."""
    start = max(int(rows[0]) - 1, 0)
    part = bars[start:]
    newest = services.ledger.version(fills[-1].model_id, fills[-1].version)
    rules = version_execution(services.ledger, newest, services.settings.execution.rules)
    market = services.home_terms(bars.symbol, bars.calendar).under(rules)
    stints = [stint_of(services, change) for change in services.ledger.promotions.committed(newest.model_id)]
    paper = market.backtest(part, recipe_track(services, stints, part).positions)
    realised = _account(market, fills, rows - start, part)
    return {
        "until": moment(int(part.time[-2])),
        "turnover": sum(abs(each.change) for each in fills),
        "paper_turnover": float(paper.turnover[:-1].sum()),
        "realised_return": float(realised.equity[-2] - 1.0),
        "paper_return": float(np.prod(1.0 + paper.returns[:-1]) - 1.0),
        "position": float(realised.exposure[-2]),
        "paper_position": float(paper.exposure[-2]),
    }


def _account(
    market: MarketTerms, fills: Sequence[RecordedFill], rows: NDArray[np.int64], bars: Bars
) -> RealisedAccount:
    """Account of fills on rows of bars, with modelled fees where none were reported."""
    modelled = market.terms.costs.fee_bps
    fees = np.array([modelled if each.fee_bps is None else each.fee_bps for each in fills])
    change, price = (np.array([getattr(each, name) for each in fills]) for name in ("change", "price"))
    return realised_account(bars, BarFills(rows, change, price, fees / 10_000), market.holding(bars))


@dataclass(frozen=True, eq=False)
class RealisedBars:
    """Bars of a market with a fill, arrays of shape (n_bars,), oldest first."""

    time: NDArray[np.int64]
    """Open times, nanoseconds since 1970-01-01 UTC."""
    returns: Floats
    """Returns of the account of all fills over each bar, fractions; NaN after a ruin."""
    versions: tuple[str, ...]
    """Versions of the last fill on each bar."""


def realised_bars(services: Services, version: ModelVersion) -> RealisedBars:
    """Bars with a fill of a model, in the market of a version; none for a pool, traded as a portfolio."""
    pooled = bool(services.ledger.job(version.training_job_id).symbols)
    fills = [] if pooled else services.ledger.fills.of_model(version.model_id)
    bars = services.market.bars(version.symbol, version.timeframe, closed_by=services.clock())
    rows = rows_of(fills, bars)
    kept = [each for each, row in zip(fills, rows, strict=True) if row >= 0]
    rows = rows[rows >= 0]
    if not kept:
        return RealisedBars(np.zeros(0, dtype=np.int64), np.zeros(0), ())
    start = max(int(rows[0]) - 1, 0)
    part = bars[start:]
    equity = _account(services.home_terms(bars.symbol, bars.calendar), kept, rows - start, part).equity
    before = np.concatenate([[1.0], equity[:-1]])
    returns = np.divide(equity, before, out=np.full(len(equity), np.nan), where=before > 0.0) - 1.0
    last = {int(row): each.version for row, each in zip(rows, kept, strict=True)}
    on_bars = np.array(list(last), dtype=np.int64)
    return RealisedBars(bars.time[on_bars], returns[on_bars - start], tuple(last.values()))


def _either(members: Sequence[str]) -> str:
    return " or ".join(members)


def _label(fill: RecordedFill) -> str:
    return f"{fill.model_id}@{fill.version}"


def _utc(time: datetime) -> str:
    return f"{moment(int(time.timestamp()) * 10**9):%Y-%m-%d %H:%M:%S} UTC"
