"""What might serve is followed at 0 % allocation: what it wants is written down after each bar, before
anybody knows what the next one brings.

Followed are the versions that passed their gate and wait, and beside them the one that serves the same
model. Nothing is judged and nothing promoted here. A version that cannot be followed keeps none of the
others from it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

import numpy as np
import pandas as pd
from pydantic import AwareDatetime, BaseModel, ConfigDict

from clm_core.decisions.shadow import (
    FEWEST_BARS,
    WANTED_TRADES,
    Against,
    Figures,
    Rows,
    compare,
    count_late,
    differing_rows,
    measure,
)
from clm_core.domain.errors import InvalidPositions, NotFound, StoreCorrupt
from clm_core.domain.shadows import EMPTY, ShadowRecord
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus
from clm_core.market.bars import Bars, Floats
from clm_core.market.timeframes import Timeframe
from clm_core.operations.attempts import attempt, report_problems
from clm_core.operations.pages import Row, formatted, page
from clm_core.services import Services

R = TypeVar("R")
WAITING = (ModelStatus.CANDIDATE, ModelStatus.SHADOW)
MOST_VERSIONS = 1000
"""Of either status."""


class Shadowed(BaseModel):
    """One version that waits, on the bars that closed after it was registered."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_id: str
    version: str
    status: ModelStatus
    registered_at: AwareDatetime
    newest_bar: AwareDatetime | None
    """Open time of the last bar after which its position is written down; None: none has closed yet."""
    new: int
    """Positions that this pass wrote down."""
    late: int
    """Of all, written down more than a bar after their own had closed."""
    figures: Figures
    against: Against | None
    """None: nothing serves, or there is no bar that both were followed on."""


class ShadowReport(BaseModel):
    """What one pass wrote down, and what came of everything so far."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: AwareDatetime
    versions: tuple[Shadowed, ...]
    problems: tuple[str, ...]
    """What could not be followed, or wants something else now than was written down."""

    @property
    def headline(self) -> str:
        if not self.versions and not self.problems:
            return "No version waits: there is nothing to follow. What passes its gate becomes a candidate."
        failed = f"; problems: {len(self.problems)}" if self.problems else ""
        new = sum(each.new for each in self.versions)
        return f"Versions followed: {len(self.versions)}{failed}. Positions written down: {new:,}."


@dataclass(frozen=True, eq=False)
class _Followed:
    """What a version wanted after each of these bars, as it was written down."""

    bars: Bars
    written: ShadowRecord
    new: int
    """Positions that this pass wrote down."""


class _Pass:
    """What was seen so far, and what went wrong, by timeframe."""

    def __init__(self) -> None:
        self.seen: list[Shadowed] = []
        self.problems = defaultdict[str, list[str]](list)

    def attempt(self, version: ModelVersion, step: Callable[[], R]) -> R | None:
        done, told = attempt(_named(version), step)
        self.problems[version.timeframe] += told
        return done


def run(services: Services, model_id: str | None = None, timeframe: Timeframe | None = None) -> ShadowReport:
    """Write down what is due, of one model, one timeframe or all, and measure what came of it.

    Raises:
        NotFound: there is no such model.
    """
    models, now = _waiting(services, model_id, timeframe), _Pass()
    for number, (name, versions) in enumerate(sorted(models.items())):
        services.announce(f"Following {name}", number / len(models))
        _follow(services, versions, now)
    if model_id is None:
        for each in Timeframe if timeframe is None else (timeframe,):
            report_problems(services, f"shadow-{each}", "clm shadow", now.problems[each])
    told = tuple(problem for problems in now.problems.values() for problem in problems)
    return ShadowReport(at=services.clock(), versions=tuple(now.seen), problems=told)


def rows(report: ShadowReport) -> list[Row]:
    """A row a version, for people."""
    return [
        {
            "model": each.model_id,
            "version": each.version,
            "bars": f"{each.figures.bars:,}",
            "late": f"{each.late:,}",
            "trades": f"{each.figures.trades} of {WANTED_TRADES}",
            "return": formatted(each.figures.total_return, "+.1%"),
            "drawdown": formatted(each.figures.max_drawdown, ".1%"),
            "Sharpe": formatted(each.figures.sharpe_ratio, ".2f"),
            "champion's": _sharpe_of_champion(each.against),
            "lead": _lead(each.against),
        }
        for each in report.versions
    ]


def summary_lines(report: ShadowReport) -> list[str]:
    """What the figures of each version are worth, then what went wrong."""
    sentences = (f"{each.model_id} {each.version}: {'; '.join(_parts(each))}." for each in report.versions)
    return [*sentences, *report.problems]


def summary_page(report: ShadowReport) -> str:
    """Markdown for a run's page."""
    return page(rows(report), summary_lines(report))


def _sharpe_of_champion(against: Against | None) -> str:
    return formatted(None if against is None else against.theirs.sharpe_ratio, ".2f")


def _lead(against: Against | None) -> str:
    if against is None:
        return "-"
    return "too early" if against.lead is None else str(against.lead)


def _parts(shadowed: Shadowed) -> Iterator[str]:
    if shadowed.newest_bar is None:
        yield f"no bar has closed since it was registered at {shadowed.registered_at:%Y-%m-%d %H:%M} UTC"
        return
    counted = f"{shadowed.late:,} of {shadowed.figures.bars:,} recorded late"
    yield f"{counted}, newest bar {shadowed.newest_bar:%Y-%m-%d %H:%M} UTC"
    if shadowed.against is None:
        yield "there is none that serves to compare it with"
    else:
        yield from _beside(shadowed.against)


def _beside(against: Against) -> Iterator[str]:
    ours, theirs = against.ours, against.theirs
    yield (
        f"on the {ours.bars:,} bars of both Sharpe ratio {formatted(ours.sharpe_ratio, '.2f')}, champion "
        f"{against.champion} {formatted(theirs.sharpe_ratio, '.2f')}"
    )
    if against.lead is None:
        yield f"too early to say more, {FEWEST_BARS} are needed"
        return
    if against.difference is not None:
        low, high = against.difference
        yield f"difference {low:.2f} to {high:.2f} (95 % interval)"
    yield f"return a bar: {against.lead}"


def _waiting(
    services: Services, model_id: str | None, timeframe: Timeframe | None
) -> dict[str, list[ModelVersion]]:
    """By model; oldest version first."""
    if model_id is not None and not services.ledger.versions(model_id=model_id, limit=1):
        raise NotFound(f"There is no model {model_id}. `clm models` lists them.")
    found = defaultdict[str, list[ModelVersion]](list)
    for status in WAITING:
        for version in services.ledger.versions(model_id=model_id, status=status, limit=MOST_VERSIONS):
            if timeframe is None or version.timeframe == timeframe:
                found[version.model_id].append(version)
    return {name: sorted(versions, key=lambda each: each.created_at) for name, versions in found.items()}


def _follow(services: Services, versions: Sequence[ModelVersion], now: _Pass) -> None:
    """All of a model's versions that wait, and the one that serves from when on there is one to compare."""
    oldest = versions[0]
    bars = now.attempt(oldest, partial(_closed, services, oldest))
    if bars is None:
        return
    champion = None
    for serving in services.ledger.versions(model_id=oldest.model_id, status=ModelStatus.PRODUCTION):
        since = max(oldest.created_at, serving.created_at)
        followed = now.attempt(serving, partial(_write_down, services, serving, bars, since, now))
        champion = None if followed is None else (serving, followed)
    for version in versions:
        since = version.created_at
        followed = now.attempt(version, partial(_write_down, services, version, bars, since, now))
        if followed is not None:
            seen = now.attempt(version, partial(_shadowed, services, version, followed, champion))
            now.seen += [] if seen is None else [seen]


def _closed(services: Services, version: ModelVersion) -> Bars:
    return services.market.bars(version.symbol, version.timeframe, closed_by=services.clock())


def _write_down(
    services: Services, version: ModelVersion, bars: Bars, since: datetime, now: _Pass
) -> _Followed:
    """What is missing of the bars that closed after a moment; what is there already is compared."""
    bars_since = bars[bars.row_closed_after(since) :]
    if not len(bars_since):
        return _Followed(bars_since, EMPTY, 0)
    positions = _positions(services, version, bars)[-len(bars_since) :]
    written, new = _record(services, version, bars_since, positions)
    differing = differing_rows(written, positions)
    if len(differing):
        now.problems[version.timeframe].append(_told(version, written, positions, differing))
    return _Followed(bars_since, written, new)


def _record(
    services: Services, version: ModelVersion, bars: Bars, positions: Floats
) -> tuple[ShadowRecord, int]:
    """All that is written down by now, and how much of it this pass did."""
    store, first = services.ledger.shadows, bars.start.to_pydatetime()
    before = store.written(version.model_id, version.version, first)
    missing = ~np.isin(bars.time, before.time)
    due_now, at = (bars.time[missing], positions[missing]), services.clock()
    new = store.write_down(version.model_id, version.version, *due_now, at)
    written = store.written(version.model_id, version.version, first)
    _require_stored(written, bars)
    return written, new


def _positions(services: Services, version: ModelVersion, bars: Bars) -> Floats:
    """As computed now, on the bars since its training began: averages remember their first bar for ever, so
    that has to be the same one each time.

    Raises:
        InvalidPositions: not one in [-1, 1] after every bar.
    """
    model = services.registry.load(version.model_path, version.bundle_digest)
    first = bars.row_after(model.trained_on.start - timedelta(microseconds=1))
    positions = model.positions(bars[first:])
    if not (np.abs(positions) <= 1.0).all():
        raise InvalidPositions(
            f"{_named(version)} wants positions that are not in [-1, 1], or none: nothing of it was written "
            "down. Mend what it comes from and train it again, or `clm retire` it."
        )
    return np.concatenate([np.zeros(first), positions])


def _require_stored(written: ShadowRecord, bars: Bars) -> None:
    gone = written.time[~np.isin(written.time, bars.time)]
    if len(gone):
        raise StoreCorrupt(
            f"positions were written down after bars that are no longer stored, {len(gone)} of them, the "
            f"first that of {_moment(gone[0])}: restore the data folder from a backup"
        )


def _told(version: ModelVersion, written: ShadowRecord, positions: Floats, rows: Rows) -> str:
    first = rows[0]
    return (
        f"{_named(version)}: after {len(rows)} of {len(positions)} bars another position is wanted now than "
        f"was written down, first after that of {_moment(written.time[first])}: {positions[first]:g} instead "
        f"of {written.position[first]:g}. Bars before it were added since, or the model does not answer the "
        "same twice. What was written down stays"
    )


def _shadowed(
    services: Services,
    version: ModelVersion,
    followed: _Followed,
    champion: tuple[ModelVersion, _Followed] | None,
) -> Shadowed:
    settings, bars, written = services.settings, followed.bars, followed.written
    return Shadowed(
        model_id=version.model_id,
        version=version.version,
        status=version.status,
        registered_at=version.created_at,
        newest_bar=bars.end.to_pydatetime() if len(bars) else None,
        new=followed.new,
        late=count_late(written, bars.timeframe),
        figures=measure(bars, written.position, settings.costs, settings.execution),
        against=None if champion is None else _against(services, version, followed, *champion),
    )


def _against(
    services: Services, version: ModelVersion, ours: _Followed, champion: ModelVersion, theirs: _Followed
) -> Against | None:
    """On the bars that both were followed on; both end with the same one."""
    common = min(len(ours.bars), len(theirs.bars))
    if not common:
        return None
    return compare(
        champion.version,
        ours.bars[-common:],
        ours.written.position[-common:],
        theirs.written.position[-common:],
        services.settings.costs,
        services.settings.execution,
        np.random.default_rng(version.seed),
    )


def _named(version: ModelVersion) -> str:
    return f"{version.model_id}@{version.version}"


def _moment(nanoseconds: int) -> str:
    return f"{pd.Timestamp(nanoseconds, unit='ns'):%Y-%m-%d %H:%M} UTC"
