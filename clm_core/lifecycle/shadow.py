"""Shadow testing: records the positions of versions after each bar, at 0 % allocation.

A pass covers every production version, and the versions that passed the gate and await a decision, each from
the registration on. The decisions follow in `shadow_decisions`. A version with an error leaves the other
versions unaffected.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import ClassVar, TypeVar

import numpy as np
from pydantic import AwareDatetime, BaseModel, ConfigDict

from clm_core.backtest.pools import portfolio
from clm_core.backtest.results import Backtest
from clm_core.decisions.shadow import (
    TARGET_TRADES,
    ChampionComparison,
    ShadowPerformance,
    compare_results,
    count_late,
    measure,
    performance_of,
)
from clm_core.domain.errors import BundleCorrupt, CLMError, NotFound, RegistryUnavailable
from clm_core.domain.paper import LearningValue
from clm_core.domain.shadow_decisions import SINGLE_LOOK, ShadowDecision
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus
from clm_core.lifecycle.allocation import AllocationStep
from clm_core.lifecycle.learning import first_champion, learning_value
from clm_core.lifecycle.paper_record import PaperTrack, extend_track, paper_markets
from clm_core.market.bars import Bars, Floats
from clm_core.market.panel import Panel
from clm_core.market.timeframes import Timeframe
from clm_core.operations.passes import PassReport, Row, attempt, formatted, report_parts
from clm_core.services import Services

R = TypeVar("R")
SHADOWED = (ModelStatus.CANDIDATE, ModelStatus.SHADOW)
"""Statuses of the versions that await a decision."""
MAX_VERSIONS = 1000
"""Maximum number of versions of each status."""


class ShadowedSymbol(BaseModel):
    """A member of a pool under shadow testing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbol: str
    newest_bar: AwareDatetime | None
    """Open time of the last bar with a recorded position; None before the first bar has closed."""
    late: int
    figures: ShadowPerformance


class ShadowedVersion(BaseModel):
    """A version in production or under shadow testing, on the bars closed since the registration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_id: str
    version: str
    status: ModelStatus
    registered_at: AwareDatetime
    newest_bar: AwareDatetime | None
    """Open time of the last bar with a recorded position; None before the first bar has closed."""
    new: int
    """Number of positions recorded in the pass."""
    computed: int = 0
    """Number of bars given to the model in the pass; of a pool, over all members."""
    late: int
    """Number of all positions recorded more than a bar after the close of the bar."""
    explained: int = 0
    """Number of recorded positions that differ from the positions computed now, or whose bar is gone, because
    bars were corrected after the recording."""
    figures: ShadowPerformance
    against: ChampionComparison | None
    """None for the production version, without one, or without a bar common to both records."""
    by_symbol: tuple[ShadowedSymbol, ...] = ()
    """Members of a pool, whose portfolio the figures describe; empty for one market."""
    decision: ShadowDecision | None = None
    """Decision after the pass; None before, where the version could not be decided on, and in production."""


class ShadowReport(PassReport):
    """Positions recorded in one pass, and the performance of all positions so far.

    The problems include versions whose computed position differs from the recorded position, unless a
    correction of the bars since is on record.
    """

    versions: tuple[ShadowedVersion, ...]
    allocations: tuple[AllocationStep, ...] = ()
    """Running allocations after the pass, and those that ended."""
    learning: tuple[LearningValue, ...] = ()
    """Production minus the frozen first champion, of each followed model ever in production."""
    remarks: tuple[str, ...] = ()
    """Sentences about frozen champions whose bundle is lost."""
    page_columns: ClassVar = ("model", "version", "status", "bars", "Sharpe", "decision")

    @property
    def headline(self) -> str:
        if not self.versions and not self.problems:
            return (
                "No version is in production or awaits a decision: nothing to record. A version that passes "
                "the gate awaits one."
            )
        failed = f"; problems: {len(self.problems)}" if self.problems else ""
        waiting = sum(each.status in SHADOWED for each in self.versions)
        new = sum(each.new for each in self.versions)
        actions = Counter(str(each.decision.action) for each in self.versions if each.decision)
        counts = ", ".join(f"{count} {action}" for action, count in sorted(actions.items()))
        decided = f" Decisions: {counts}." if counts else ""
        return (
            f"Versions followed: {len(self.versions)}, of which {waiting} in shadow{failed}. "
            f"Positions recorded: {new:,}.{decided}"
        )

    def rows(self) -> list[Row]:
        return [
            {
                "model": each.model_id,
                "version": each.version,
                "status": str(each.status),
                "bars": f"{each.figures.bars:,}",
                "late": f"{each.late:,}",
                "trades": f"{each.figures.trades} of {TARGET_TRADES}",
                "return": formatted(each.figures.total_return, "+.1%"),
                "drawdown": formatted(each.figures.max_drawdown, ".1%"),
                "Sharpe": formatted(each.figures.sharpe_ratio, ".2f"),
                "champion's": _champion_sharpe(each.against),
                "lead": _lead(each.against),
                "decision": "-" if each.decision is None else str(each.decision.action),
            }
            for each in self.versions
        ]

    def summary_lines(self) -> list[str]:
        """Evidence for each version, then the problems."""
        lines = (f"{each.model_id} {each.version}: {'; '.join(_clauses(each))}." for each in self.versions)
        learned = (f"{each.model_id}: {each.sentence}." for each in self.learning)
        allocated = (each.sentence for each in self.allocations)
        return [*lines, *learned, *allocated, *self.remarks, *self.problems]


@dataclass(frozen=True)
class FollowedModel:
    """Versions of a model whose positions are recorded."""

    production: ModelVersion | None
    waiting: Sequence[ModelVersion]
    """Versions that await a decision, oldest first."""
    frozen: ModelVersion | None
    """First champion, followed for ever; None where in production, awaiting a decision, or never promoted."""


class _Collector:
    """Versions followed so far, and the problems by timeframe."""

    def __init__(self) -> None:
        self.versions: list[ShadowedVersion] = []
        self.learning: list[LearningValue] = []
        self.remarks: list[str] = []
        self.problems = defaultdict[str, list[str]](list)

    def attempt(self, version: ModelVersion, step: Callable[[], R]) -> R | None:
        """Result of a step; None if the step failed, with the problem recorded."""
        result, problems = attempt(_label(version), step)
        self.problems[version.timeframe] += problems
        return result


def run(
    services: Services,
    model_id: str | None = None,
    timeframe: Timeframe | None = None,
    whole: bool = False,
) -> ShadowReport:
    """Record the missing positions of one model, one timeframe or all, and measure the records.

    Args:
        whole: compute all positions since the registration anew and compare with the record.

    Raises:
        NotFound: the model does not exist.
    """
    models = followed_models(services, model_id, timeframe)
    collector = _Collector()
    for number, (name, model) in enumerate(sorted(models.items())):
        services.announce(f"Following {name}", number / len(models))
        _follow_model(services, name, model, whole, collector)
    if model_id is None:
        parts = Timeframe if timeframe is None else (timeframe,)
        by_part = {f"shadow-{each}": collector.problems[each] for each in parts}
        report_parts(services, "clm shadow", by_part)
    return ShadowReport(
        at=services.clock(),
        versions=tuple(collector.versions),
        learning=tuple(collector.learning),
        remarks=tuple(collector.remarks),
        problems=tuple(problem for problems in collector.problems.values() for problem in problems),
    )


def _champion_sharpe(comparison: ChampionComparison | None) -> str:
    return formatted(None if comparison is None else comparison.theirs.sharpe_ratio, ".2f")


def _lead(comparison: ChampionComparison | None) -> str:
    if comparison is None:
        return "-"
    return "too early" if comparison.lead is None else str(comparison.lead)


def _clauses(shadowed: ShadowedVersion) -> Iterator[str]:
    if shadowed.decision is not None:
        yield shadowed.decision.sentence
        tests = shadowed.decision.figures.single_look
        if tests is not None:
            yield tests.sentence
    if shadowed.newest_bar is None:
        yield f"no bar has closed since the registration at {shadowed.registered_at:%Y-%m-%d %H:%M} UTC"
        return
    counted = f"{shadowed.late:,} of {shadowed.figures.bars:,} recorded late"
    yield f"{counted}, newest bar {shadowed.newest_bar:%Y-%m-%d %H:%M} UTC"
    for each in shadowed.by_symbol:
        sharpe = formatted(each.figures.sharpe_ratio, ".2f")
        yield f"{each.symbol} Sharpe ratio {sharpe} on {each.figures.bars:,} bars"
    if shadowed.explained:
        yield f"{shadowed.explained:,} recorded positions differ, explained by bars corrected later"
    if shadowed.against is not None:
        yield from _comparison_clauses(shadowed.against)
    elif shadowed.status in SHADOWED:
        yield "no production version to compare with"


def _comparison_clauses(comparison: ChampionComparison) -> Iterator[str]:
    ours = comparison.ours
    theirs = comparison.theirs
    yield (
        f"on the {ours.bars:,} common bars Sharpe ratio {formatted(ours.sharpe_ratio, '.2f')}, champion "
        f"{comparison.champion} {formatted(theirs.sharpe_ratio, '.2f')}"
    )
    if comparison.lead is None:
        yield f"too early for a comparison, which needs {comparison.min_bars} bars"
        return
    if comparison.difference is not None:
        low, high = comparison.difference
        yield f"difference {low:.2f} to {high:.2f} (95 % interval, {SINGLE_LOOK})"
    yield f"return per bar: {comparison.lead}"


def shadowed_versions(
    services: Services, model_id: str | None, timeframe: Timeframe | None
) -> dict[str, list[ModelVersion]]:
    """Versions awaiting a decision by model, oldest first.

    Raises:
        NotFound: the model does not exist.
    """
    return _versions(services, SHADOWED, model_id, timeframe)


def followed_models(
    services: Services, model_id: str | None, timeframe: Timeframe | None
) -> dict[str, FollowedModel]:
    """Models with a version that awaits a decision or was ever in production, by model id.

    Raises:
        NotFound: the model does not exist.
    """
    waiting = shadowed_versions(services, model_id, timeframe)
    serving = _versions(services, (ModelStatus.PRODUCTION,), model_id, timeframe)
    frozen = _first_champions(services, model_id, timeframe)
    models = {}
    for name in waiting.keys() | serving.keys() | frozen.keys():
        production = next(iter(serving.get(name, ())), None)
        own = [*waiting.get(name, ()), *([] if production is None else [production])]
        first = frozen.get(name)
        is_extra = first is not None and all(first.version != each.version for each in own)
        models[name] = FollowedModel(production, waiting.get(name, ()), first if is_extra else None)
    return models


def _first_champions(
    services: Services, model_id: str | None, timeframe: Timeframe | None
) -> dict[str, ModelVersion]:
    """First version ever in production of each model, by model id."""
    promotions = services.ledger.promotions
    labels = {
        name: first_champion(promotions.committed(name))
        for name in promotions.models()
        if model_id in (None, name)
    }
    versions = [services.ledger.version(name, label) for name, label in labels.items() if label is not None]
    return {each.model_id: each for each in versions if timeframe in (None, each.timeframe)}


def _versions(
    services: Services, statuses: Sequence[ModelStatus], model_id: str | None, timeframe: Timeframe | None
) -> dict[str, list[ModelVersion]]:
    if model_id is not None and not services.ledger.versions(model_id=model_id, limit=1):
        raise NotFound(f"There is no model {model_id}. `clm models` lists the models.")
    by_model = defaultdict[str, list[ModelVersion]](list)
    for status in statuses:
        for version in services.ledger.versions(model_id=model_id, status=status, limit=MAX_VERSIONS):
            if timeframe is None or version.timeframe == timeframe:
                by_model[version.model_id].append(version)
    return {name: sorted(versions, key=lambda each: each.created_at) for name, versions in by_model.items()}


def _follow_model(
    services: Services, name: str, model: FollowedModel, whole: bool, collector: _Collector
) -> None:
    """Record the positions of all followed versions of a model, and measure the records."""
    champion = None
    if model.production is not None:
        champion = _follow(services, model.production, None, whole, collector)
    for version in model.waiting:
        _follow(services, version, champion, whole, collector)
    if model.frozen is not None:
        _follow_frozen(services, model.frozen, whole, collector)
    learned, problems = attempt(name, partial(_measure_learning, services, name))
    timeframe = (model.production or model.frozen or model.waiting[0]).timeframe
    collector.problems[timeframe] += problems
    collector.learning += [] if learned is None else [learned]


def _measure_learning(services: Services, name: str) -> LearningValue | None:
    """Value of continuous learning, stored for the pages."""
    value = learning_value(services, name)
    if value is not None:
        services.ledger.learning_values.record(value)
    return value


def _follow_frozen(services: Services, version: ModelVersion, whole: bool, collector: _Collector) -> None:
    """Follow the first champion; a lost bundle is a remark, since no decision depends on the version."""
    try:
        tracks = _extend_tracks(services, version, whole, collector)
    except (RegistryUnavailable, BundleCorrupt) as error:
        # an outage is no loss
        if collector.attempt(version, partial(_require_registry, services)) is None:
            return
        collector.remarks.append(
            f"{_label(version)}, the first champion, is followed no more: {error}. `clm restore-version "
            f"{version.model_id} {version.version}` names what is missing"
        )
        return
    except CLMError as error:
        collector.problems[version.timeframe].append(f"{_label(version)}: {error}")
        return
    measured = collector.attempt(version, partial(_measure, services, version, tracks, None))
    collector.versions += [] if measured is None else [measured]


def _require_registry(services: Services) -> bool:
    services.registry.require_reachable()
    return True


def _follow(
    services: Services,
    version: ModelVersion,
    champion: tuple[ModelVersion, Sequence[PaperTrack]] | None,
    whole: bool,
    collector: _Collector,
) -> tuple[ModelVersion, Sequence[PaperTrack]] | None:
    """The version with its tracks since the registration; None if the positions could not be recorded."""
    tracks = collector.attempt(version, partial(_extend_tracks, services, version, whole, collector))
    if tracks is None:
        return None
    measured = collector.attempt(version, partial(_measure, services, version, tracks, champion))
    collector.versions += [] if measured is None else [measured]
    return version, tracks


def _extend_tracks(
    services: Services, version: ModelVersion, whole: bool, collector: _Collector
) -> tuple[PaperTrack, ...]:
    """A track for the market, or for each member of a pool."""
    load = cache(partial(services.registry.load, version.model_path, version.bundle_digest))
    tracks = tuple(
        extend_track(services, version, load, market, whole) for market in paper_markets(services, version)
    )
    collector.problems[version.timeframe] += [track.problem for track in tracks if track.problem]
    return tracks


def _measure(
    services: Services,
    version: ModelVersion,
    tracks: Sequence[PaperTrack],
    champion: tuple[ModelVersion, Sequence[PaperTrack]] | None,
) -> ShadowedVersion:
    """Figures of a version on a market, or of the portfolio of a pool's members."""
    newest = [track.bars.end.to_pydatetime() for track in tracks if len(track.bars)]
    is_pool = len(tracks) > 1
    return ShadowedVersion(
        model_id=version.model_id,
        version=version.version,
        status=version.status,
        registered_at=version.created_at,
        newest_bar=max(newest, default=None),
        new=sum(track.new for track in tracks),
        computed=sum(track.computed for track in tracks),
        late=sum(count_late(track.record, track.bars.timeframe) for track in tracks),
        explained=sum(track.explained for track in tracks),
        figures=(_pool_figures if is_pool else _figures)(services, version, tracks),
        against=None if champion is None else _compare(services, version, tracks, *champion),
        by_symbol=tuple(_member(services, version, track) for track in tracks) if is_pool else (),
    )


def _figures(services: Services, version: ModelVersion, tracks: Sequence[PaperTrack]) -> ShadowPerformance:
    [track] = tracks
    bars = track.bars
    market = services.version_terms(version, bars.calendar, bars.symbol)
    return measure(bars, track.record.position, market)


def _member(services: Services, version: ModelVersion, track: PaperTrack) -> ShadowedSymbol:
    bars = track.bars
    return ShadowedSymbol(
        symbol=bars.symbol,
        newest_bar=bars.end.to_pydatetime() if len(bars) else None,
        late=count_late(track.record, bars.timeframe),
        figures=_figures(services, version, [track]),
    )


def _pool_figures(
    services: Services, version: ModelVersion, tracks: Sequence[PaperTrack]
) -> ShadowPerformance:
    traded = [_last_rows(track, len(track.bars)) for track in tracks]
    axis = _axis(version, traded)
    if axis is None:
        return ShadowPerformance()
    return performance_of(_portfolio(services, version, axis, traded), axis.periods_per_year)


Traded = tuple[Bars, Floats]
"""Bars of a member with the recorded positions."""


def _last_rows(track: PaperTrack, count: int) -> Traded:
    first = len(track.bars) - count
    return track.bars[first:], track.record.position[first:]


def _axis(version: ModelVersion, traded: Sequence[Traded]) -> Bars | None:
    """Bars of the pool's common axis; None without a bar of any member."""
    members = tuple(bars for bars, _ in traded if len(bars))
    return Panel(version.symbol, members).index_bars() if members else None


def _portfolio(services: Services, version: ModelVersion, axis: Bars, traded: Sequence[Traded]) -> Backtest:
    results = [
        (bars, services.version_terms(version, bars.calendar, bars.symbol).backtest(bars, positions))
        for bars, positions in traded
        if len(bars)
    ]
    return portfolio(axis, results, 1.0, members=len(traded))


def _compare(
    services: Services,
    version: ModelVersion,
    ours: Sequence[PaperTrack],
    champion: ModelVersion,
    theirs: Sequence[PaperTrack],
) -> ChampionComparison | None:
    """Comparison on the common bars; both tracks of a market end with the same bar.

    None without a common bar, or for a pool of other members.
    """
    if [track.bars.symbol for track in ours] != [track.bars.symbol for track in theirs]:
        return None
    common = [min(len(one.bars), len(other.bars)) for one, other in zip(ours, theirs, strict=True)]
    if not any(common):
        return None
    rng = np.random.default_rng(version.seed)
    pairs = [
        [_last_rows(track, count) for track, count in zip(tracks, common, strict=True)]
        for tracks in (ours, theirs)
    ]
    axis = _axis(version, pairs[0])
    assert axis is not None
    if len(ours) > 1:
        results = [
            _portfolio(services, each, axis, traded)
            for each, traded in zip((version, champion), pairs, strict=True)
        ]
    else:
        [(bars, mine)], [(_, other)] = pairs
        results = [
            services.version_terms(each, bars.calendar).backtest(bars, positions)
            for each, positions in ((version, mine), (champion, other))
        ]
        axis = bars
    return compare_results(champion.version, results[0], results[1], axis.periods_per_year, rng)


def _label(version: ModelVersion) -> str:
    return f"{version.model_id}@{version.version}"
