"""Watch over the production versions: staleness, drift and performance on bars newer than the training.

The watch requests retrains and the intake decides; the report holds both. A model that cannot be checked
leaves the other models unaffected.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import ClassVar

import numpy as np
from pydantic import AwareDatetime, BaseModel, ConfigDict

from clm_core.backtest.metrics import summarise
from clm_core.backtest.pools import portfolio
from clm_core.backtest.results import Backtest
from clm_core.backtest.terms import MarketTerms
from clm_core.decisions import health, staleness
from clm_core.decisions.health import Alarm, DriftFindings, HealthFinding, Performance, alarm_of, judge
from clm_core.decisions.protection import ProtectionAction, ProtectionTrigger
from clm_core.decisions.repeated_recipe import RepeatedRecipe
from clm_core.decisions.staleness import DueRetrain, Freshness
from clm_core.domain.actors import WATCH
from clm_core.domain.alerts import AlertKind
from clm_core.domain.events import MarketRegimeChanged
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.kinds import Kind
from clm_core.domain.measures import finite_or_none
from clm_core.domain.promotions import Succession
from clm_core.domain.triggers import Answer, Observation, TriggerRequest
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus, TriggerReason
from clm_core.evidence.forecast_errors import ErrorDrift, error_drift, error_drift_of_members
from clm_core.evidence.sequential import daily_returns, days_before, days_per_year
from clm_core.evidence.tail_risk import reference_of, standardised, tail_test
from clm_core.ledger.triggers import RetrainsSince
from clm_core.lifecycle import variants
from clm_core.lifecycle.drift_watch import (
    errors_since,
    feature_drift,
    positions_from,
    prediction_drift,
    record_drift,
    usage_drift,
)
from clm_core.lifecycle.pool_members import PoolMember, pool_members, portfolio_on
from clm_core.lifecycle.protection import (
    ProtectedVersion,
    RecipeInProduction,
    ServingRecord,
    promoted_at,
    protect_version,
    refreshed_since,
)
from clm_core.lifecycle.recipe_in_production import ServedMarket, ServedRows, held_since
from clm_core.lifecycle.standing import standing_of
from clm_core.market.bars import Bars, Floats
from clm_core.market.drift import Drift
from clm_core.market.newest_bars import NewestBar
from clm_core.market.panel import Panel
from clm_core.market.regimes import regimes
from clm_core.models.params import series_names
from clm_core.models.pooled import PooledModel
from clm_core.operations.data_age import report_stale_markets
from clm_core.operations.passes import PassReport, Row, formatted, report_problems, run_each
from clm_core.platform.tracing import traced
from clm_core.retraining.judging import out_of_sample_returns
from clm_core.retraining.recipe_record import forward_runs
from clm_core.retraining.stored_evidence import MarketRuns
from clm_core.services import Services
from clm_core.triggers import intake
from clm_core.triggers.repeated_recipes import recipe_of_job, recipe_to_repeat, repeated_job

MAX_MODELS = 1000
TAKEN_OUT = (ProtectionAction.ROLL_BACK, ProtectionAction.HALT)
"""Actions of the protection that take a version out of production."""


class WatchedSymbol(BaseModel):
    """A member of a pool, measured on the newest bars of the market."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbol: str
    newest_bar: AwareDatetime
    """Open time of the market's last bar."""
    performance: Performance
    drift: Drift | None
    """Drift of the features on the newest bars; None with too few bars, in the training or since."""
    prediction_drift: Drift | None = None
    error_drift: ErrorDrift | None = None
    """Changes of the errors of the forecasts since the training, with a bounded share of false changes among
    the members; None for a model without forecasts and too few outcomes."""


class WatchedRegime(BaseModel):
    """Regime of a market at the close of the newest bar."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    since: AwareDatetime
    """End of the first day of the regime."""
    at_training: str | None
    """Regime at the end of the training; None where unknown."""

    @property
    def has_changed(self) -> bool:
        """True for another regime than at the end of the training."""
        return self.at_training not in (None, self.name)


class WatchedVersion(BaseModel):
    """A production version, measured on the newest bars of the market."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_id: str
    version: str
    trained_at: AwareDatetime
    age_days: float
    newest_bar: AwareDatetime
    """Open time of the market's last bar."""
    new_bars: int
    """Number of bars after the last bar of the training."""
    missing_bars: int = 0
    """Bars required by the market's calendar after the newest bar, up to now; of a pool, the most."""
    is_stale: bool = False
    """True for missing newest bars: the version answers to an old market."""
    performance: Performance
    finding: HealthFinding
    because: str
    """Finding in words."""
    regime: WatchedRegime | None = None
    """Regime of the market; None for a pool, and before the first fit of the regimes."""
    drift: Drift | None
    """Drift of the features on the newest bars; None with too few bars, in the training or since. Of a pool,
    that of the median member."""
    prediction_drift: Drift | None = None
    """Drift of the positions against those of the walk-forward; None where not measurable. Of a pool, that of
    the median member."""
    usage_drift: Drift | None = None
    """Drift of the SHAP values, once a day; None at the later watches of a day, for a pool and for kinds
    without trees."""
    error_drift: ErrorDrift | None = None
    """Changes of the errors of the forecasts since the training; None for a pool, which has those of its
    members, a model without forecasts and too few outcomes."""
    discoveries: tuple[str, ...] = ()
    """Features (and `prediction`) that have drifted, with a share of false discoveries of at most 5 % over
    features and 30 days."""
    asked: tuple[Answer, ...]
    """Answers of the intake to the requested retrains."""
    unknown_series: tuple[str, ...] = ()
    """Own series without a known value at the newest bar, where the version takes no position."""
    proposed: int = 0
    """Number of variants proposed by this watch, to be measured by the flow `candidates`."""
    protection: ProtectedVersion | None = None
    """Protection on the bars since the promotion; None before it was asked."""
    by_symbol: tuple[WatchedSymbol, ...] = ()
    """Members of a pool, whose portfolio is judged; empty for one market."""


class WatchReport(PassReport):
    """Production versions checked in one pass, and the retrains requested."""

    models: tuple[WatchedVersion, ...]
    page_columns: ClassVar = ("model", "version", "Sharpe since", "finding", "newest bar (UTC)")

    @property
    def headline(self) -> str:
        if not self.models and not self.problems:
            return "No model is in production: nothing to watch. `clm promote` puts a version in production."
        replies = Counter(answer.reply for each in self.models for answer in each.asked)
        requested = ", ".join(f"{count} {reply}" for reply, count in replies.items())
        failed = f"; {len(self.problems)} could not be checked" if self.problems else ""
        return f"Models watched: {len(self.models)}{failed}. Retrains requested: {requested or 'none'}."

    def rows(self) -> list[Row]:
        return [
            {
                "model": each.model_id,
                "version": each.version,
                "age": f"{each.age_days:.1f} d",
                "new bars": f"{each.new_bars:,}",
                "trades": str(each.performance.trades),
                "Sharpe since": formatted(each.performance.sharpe_ratio, ".2f"),
                "drawdown": formatted(each.performance.max_drawdown, ".1%"),
                "drift": formatted(None if each.drift is None else each.drift.score, ".2f"),
                "finding": each.finding.replace("_", " "),
                "protection": "-" if each.protection is None else each.protection.word,
                "newest bar (UTC)": f"{each.newest_bar:%Y-%m-%d %H:%M}{' STALE' if each.is_stale else ''}",
            }
            for each in self.models
        ]

    def summary_lines(self) -> list[str]:
        """Findings and requests of each model, then the problems."""
        return [*(f"{each.model_id}: {'. '.join(_sentences(each))}." for each in self.models), *self.problems]


@traced("watch")
def run(services: Services) -> WatchReport:
    """Check every production version in turn."""
    serving = services.ledger.versions(status=ModelStatus.PRODUCTION, limit=MAX_MODELS)
    models, problems = run_each(_steps(services, serving))
    _end_alerts_of_others(services, serving)
    markets = report_stale_markets(services)
    problems += [] if markets.problem is None else [markets.problem]
    problems += unknown_series_problems(models)
    report_problems(services, "watch", "clm watch", problems)
    return WatchReport(at=services.clock(), models=tuple(models), problems=tuple(problems))


def unknown_series_problems(models: Sequence[WatchedVersion]) -> list[str]:
    """Sentence for each own series that stopped: its version takes no position any more."""
    return [
        f"{each.model_id}@{each.version}: the series {name} has no known value at the bar of "
        f"{each.newest_bar:%Y-%m-%d %H:%M} UTC, so the version takes no position: "
        f"`clm data import --as series {name} FILE` adds newer values"
        for each in models
        for name in each.unknown_series
    ]


def _steps(
    services: Services, versions: Sequence[ModelVersion]
) -> Iterator[tuple[str, Callable[[], WatchedVersion]]]:
    for number, version in enumerate(sorted(versions, key=lambda each: each.model_id)):
        services.announce(f"Watching {version.model_id}", number / len(versions))
        yield f"{version.model_id}@{version.version}", partial(_watch, services, version)


def _sentences(watched: WatchedVersion) -> Iterator[str]:
    yield watched.because
    if watched.is_stale:
        yield (
            f"STALE: {watched.missing_bars:,} bars are missing since {watched.newest_bar:%Y-%m-%d %H:%M} UTC"
        )
    if watched.protection is not None:
        yield watched.protection.sentence
    for each in watched.by_symbol:
        sharpe = formatted(each.performance.sharpe_ratio, ".2f")
        drifted = formatted(None if each.drift is None else each.drift.score, ".2f")
        yield f"{each.symbol}: Sharpe ratio {sharpe} on {each.performance.bars:,} bars, drift {drifted}"
    if watched.drift is not None and watched.drift.features:
        yield (
            f"drift {watched.drift.score:.2f}: {', '.join(watched.drift.features)} lie further from the "
            f"training than each of the {watched.drift.stretches} stretches of the training"
        )
    yield from _drift_sentences(watched)
    if watched.regime is not None and watched.regime.has_changed:
        yield (
            f"the market is {watched.regime.name} since {watched.regime.since:%Y-%m-%d}, and was "
            f"{watched.regime.at_training} at the end of the training"
        )
    if watched.proposed:
        yield f"{watched.proposed} variants are proposed, to be measured beside the version's own parameters"
    for answer in watched.asked:
        yield f"{answer.request.training.trigger_reason} was {answer.sentence}"


def _drift_sentences(watched: WatchedVersion) -> Iterator[str]:
    if watched.prediction_drift is not None and watched.prediction_drift.score > 1:
        yield (
            f"prediction drift {watched.prediction_drift.score:.2f}: the positions lie further from those of "
            "the walk-forward than each of its stretches"
        )
    yield from _error_sentences("", watched.error_drift)
    for each in watched.by_symbol:
        yield from _error_sentences(f"{each.symbol}: ", each.error_drift)
    if watched.discoveries:
        yield f"drifted, at most 5 % of them falsely: {', '.join(watched.discoveries)}"


def _error_sentences(of: str, errors: ErrorDrift | None) -> Iterator[str]:
    if errors is not None and errors.changed_at is not None and errors.mean_since is not None:
        yield (
            f"{of}the errors of the forecasts changed by outcome {errors.changed_at} of "
            f"{errors.observations}: rise less forecast {errors.mean_since:+.2f}, before "
            f"{errors.mean_before:+.2f}"
        )


def _watch(services: Services, version: ModelVersion) -> WatchedVersion:
    history = services.ledger.promotions.committed(version.model_id)
    refreshed = refreshed_since(services, version, history)
    measured, record = _measure_version(services, version, promoted_at(history, version), refreshed)
    discovered = record_drift(services, version, _named_drifts(measured))
    protected = protect_version(services, version, record, history, refreshed)
    measured = measured.model_copy(update={"protection": protected, "discoveries": discovered})
    sentences = tuple(_sentences(measured))
    services.ledger.standings.record(standing_of(services, version, record, protected, sentences))
    _announce_regime(services, version, measured)
    answers = tuple(_request_retrains(services, version, measured))
    measured = measured.model_copy(update={"asked": answers})
    _report_degraded(services, measured)
    _report_drifted(services, measured)
    return measured.model_copy(update={"proposed": _propose_variants(services, version, measured)})


def _propose_variants(services: Services, version: ModelVersion, measured: WatchedVersion) -> int:
    """Number of new variants; none for a version that the protection took out of production."""
    protection = measured.protection
    if protection is not None and protection.action in TAKEN_OUT:
        return 0
    proposed = variants.propose(services, version, measured.finding, measured.because)
    return 0 if proposed is None else len(proposed.candidates) - 1


def _named_drifts(measured: WatchedVersion) -> list[tuple[str, Drift | None]]:
    """Drifts of features and predictions, with the prefix of their names."""
    if not measured.by_symbol:
        return [("", each) for each in (measured.drift, measured.prediction_drift, measured.usage_drift)]
    return [
        (f"{each.symbol}/", drifted)
        for each in measured.by_symbol
        for drifted in (each.drift, each.prediction_drift)
    ]


def _report_degraded(services: Services, measured: WatchedVersion) -> None:
    message = (
        f"{measured.model_id}@{measured.version}: {measured.because}. A retrain is requested, and the "
        "protection decides whether the version stays: `clm watch` has the figures."
    )
    lasting = message if measured.finding is HealthFinding.DEGRADED else None
    services.alerts.settle(AlertKind.DEGRADED, measured.model_id, lasting, services.clock())


def _report_drifted(services: Services, measured: WatchedVersion) -> None:
    """Alert about drift for which a retrain is requested, once, until none is."""
    drifted = next(
        (
            answer.request.observed.drifted
            for answer in measured.asked
            if answer.request.training.trigger_reason is TriggerReason.DRIFT_DETECTED
        ),
        (),
    )
    message = (
        f"{measured.model_id}@{measured.version} has drifted: {', '.join(drifted)}. A retrain is requested; "
        f"`clm drift {measured.model_id}` has the history."
    )
    lasting = message if drifted else None
    services.alerts.settle(AlertKind.DRIFTED, measured.model_id, lasting, services.clock())


def _end_alerts_of_others(services: Services, serving: Sequence[ModelVersion]) -> None:
    """End the conditions of models without a production version, which the watch measures no more."""
    names = {each.model_id for each in serving}
    for kind in (AlertKind.DEGRADED, AlertKind.DRIFTED):
        for alert in services.alerts.lasting(kind):
            if alert.subject not in names:
                services.alerts.end(kind, alert.subject, services.clock())


def _measure_version(
    services: Services, version: ModelVersion, promoted: datetime, refreshed: Succession | None = None
) -> tuple[WatchedVersion, ServingRecord]:
    """The measured version, before any request, and its record since the promotion.

    Args:
        refreshed: versions of the recipe before, each replaced by a refresh, if any.
    """
    model = services.registry.load(version.model_path, version.bundle_digest)
    if isinstance(model, PooledModel):
        return _measure_pool(services, version, model, promoted, refreshed)
    bars = services.market.bars(version.symbol, version.timeframe, closed_by=services.clock())
    bars = services.market.with_series(bars, series_names(version.params))
    first_new = bars.row_after(model.trained_on.end)
    market = services.version_terms(version, bars.calendar)
    record = forward_runs(services, version)
    positions = positions_from(model, bars, first_new)
    performance = _performance(services, positions, bars, first_new, market, record)
    days = services.settings.watch.drift_days
    drifts = DriftFindings(
        features=feature_drift(version, model, bars, first_new, days),
        predictions=prediction_drift(services, version, bars, positions, days),
        errors=error_drift(errors_since(version, model, bars, first_new)),
    )
    watched = _watched(services, version, [bars], bars, first_new, performance, drifts)
    used = usage_drift(services, version, model, bars, first_new, days)
    watched = watched.model_copy(update={"regime": _regime(bars, model.trained_on.end), "usage_drift": used})
    first = max(first_new, bars.row_closed_after(promoted))
    served = bars[first:]
    result = market.backtest(served, positions[first - first_new :]) if len(served) else None
    backtest = (
        None if result is None else out_of_sample_returns(services, version, bars, {bars.symbol: market})
    )
    recipe = None
    if refreshed is not None:

        def positions_of(stint: ServedRows) -> dict[str, Floats]:
            former = services.ledger.version(version.model_id, stint.version)
            begin, end = stint.rows[bars.symbol]
            loaded = services.registry.load(former.model_path, former.bundle_digest)
            return {bars.symbol: positions_from(loaded, bars[:end], begin)}

        traded = ServedMarket(bars, first_new, positions)
        home = services.settings.home
        [(followed, held)] = held_since(home, version.model_id, refreshed, [traded], positions_of)
        if len(followed):
            whole = market.backtest(followed, held)
            recipe = RecipeInProduction(followed, whole, alarm_on(followed, whole, bars))
    return watched, replace(serving_record(served, result, bars, backtest), recipe=recipe)


def _regime(bars: Bars, training_end: datetime) -> WatchedRegime | None:
    """Regime of the market now and at the end of the training.

    Args:
        training_end: open time of the newest training bar.
    """
    market_regimes = regimes(bars)
    now = market_regimes.current
    if now is None:
        return None
    closed = training_end + timedelta(seconds=bars.timeframe.seconds)
    return WatchedRegime(
        name=now.name, since=now.since.to_pydatetime(), at_training=market_regimes.known_at(closed)
    )


def _measure_pool(
    services: Services,
    version: ModelVersion,
    model: PooledModel,
    promoted: datetime,
    refreshed: Succession | None,
) -> tuple[WatchedVersion, ServingRecord]:
    """A pool in production: its portfolio is judged, performance and drift of each member are reported."""
    settings = services.settings
    members = pool_members(services, version, model)
    panel = Panel(version.symbol, tuple(each.bars for each in members))
    axis = panel.index_bars()
    first_new = axis.row_after(model.trained_on.end)
    unseen = axis[max(first_new, len(axis) - len(axis.last_days(settings.watch.window_days))) :]
    whole = portfolio_on(unseen, members)
    performance = Performance() if whole is None else performance_of(whole, axis.periods_per_year)
    alarm = _alarm_of_pool(services, version, members, axis, first_new)
    performance = performance.model_copy(update={"alarm": alarm})
    errors = error_drift_of_members(
        {each.bars.symbol: errors_since(version, each.model, each.bars, each.first_new) for each in members}
    )
    symbols = tuple(
        _watched_symbol(services, version, each, unseen, errors.get(each.bars.symbol)) for each in members
    )
    drifts = DriftFindings(
        features=_median_drift([each.drift for each in symbols]),
        predictions=_median_drift([each.prediction_drift for each in symbols]),
        members_errors=_members_with_changed_errors(symbols),
    )
    watched = _watched(services, version, panel.members, axis, first_new, performance, drifts, symbols)
    served = axis[max(first_new, axis.row_closed_after(promoted)) :]
    result = portfolio_on(served, members)
    terms = {each.bars.symbol: each.market for each in members}
    backtest = None if result is None else out_of_sample_returns(services, version, panel, terms)
    recipe = None if refreshed is None else _pool_in_production(services, version, members, axis, refreshed)
    return watched, replace(serving_record(served, result, axis, backtest), recipe=recipe)


def _pool_in_production(
    services: Services,
    version: ModelVersion,
    members: Sequence[PoolMember],
    axis: Bars,
    refreshed: Succession,
) -> RecipeInProduction | None:
    """The recipe of a pool since the first promotion; None without a bar."""

    def positions_of(stint: ServedRows) -> dict[str, Floats]:
        former = services.ledger.version(version.model_id, stint.version)
        loaded = services.registry.load(former.model_path, former.bundle_digest)
        assert isinstance(loaded, PooledModel)
        held = {}
        for each in members:
            begin, end = stint.rows[each.bars.symbol]
            held[each.bars.symbol] = positions_from(loaded.member(each.bars.symbol), each.bars[:end], begin)
        return held

    markets = [ServedMarket(each.bars, each.first_new, each.positions) for each in members]
    followed = held_since(services.settings.home, version.model_id, refreshed, markets, positions_of)
    begun = [int(bars.time[0]) for bars, _ in followed if len(bars)]
    if not begun:
        return None
    served = axis[int(np.searchsorted(axis.time, min(begun))) :]
    traded = [
        (bars, each.market.backtest(bars, held))
        for each, (bars, held) in zip(members, followed, strict=True)
        if len(bars)
    ]
    whole = portfolio(served, traded, 1.0, members=len(members))
    return RecipeInProduction(served, whole, alarm_on(served, whole, axis))


def _watched_symbol(
    services: Services, version: ModelVersion, member: PoolMember, unseen: Bars, errors: ErrorDrift | None
) -> WatchedSymbol:
    """A member of a pool.

    Args:
        unseen: bars of the common axis to measure the performance on; may be empty.
    """
    days = services.settings.watch.drift_days
    bars = member.bars
    traded = member.traded_from(int(unseen.time[0])) if len(unseen) else None
    return WatchedSymbol(
        symbol=bars.symbol,
        newest_bar=bars.end.to_pydatetime(),
        performance=Performance() if traded is None else performance_of(traded[1], bars.periods_per_year),
        drift=feature_drift(version, member.model, bars, member.first_new, days),
        prediction_drift=prediction_drift(services, version, bars, member.positions, days),
        error_drift=errors,
    )


def _members_with_changed_errors(symbols: Sequence[WatchedSymbol]) -> tuple[str, ...]:
    return tuple(
        each.symbol
        for each in symbols
        if each.error_drift is not None and each.error_drift.changed_at is not None
    )


def serving_record(
    served: Bars, result: Backtest | None, market: Bars, backtest: Floats | None
) -> ServingRecord:
    """Record of a production version, with the tests of the protection.

    Args:
        served: bars closed since the promotion.
        result: backtest on them; None without a bar.
        market: all bars of the market.
        backtest: out-of-sample returns of the version before its registration, by bar; None without a
            reference for the tail.
    """
    if result is None:
        return ServingRecord(served, None, Alarm(), None)
    tail = None
    if backtest is not None:
        active = float(np.mean(backtest != 0.0))
        quarter = round(active * market.periods_per_year / 4)
        reference = reference_of(backtest, quarter, np.random.default_rng(0))
        tail = None if reference is None else tail_test(standardised(result.returns, backtest), reference)
    return ServingRecord(served, result, alarm_on(served, result, market), tail)


def _watched(
    services: Services,
    version: ModelVersion,
    markets: Sequence[Bars],
    axis: Bars,
    first_new: int,
    performance: Performance,
    drifts: DriftFindings,
    by_symbol: tuple[WatchedSymbol, ...] = (),
) -> WatchedVersion:
    """The measured version with the finding, before any request.

    Args:
        markets: bars of the market, or of each member of a pool.
        axis: bars of the market, or the common axis of the members.
        first_new: first row of the axis after the training.
    """
    settings = services.settings
    window_bars = len(axis.last_days(settings.watch.window_days))
    finding, because = judge(performance, settings.watch, settings.triggers.max_sharpe_ratio, window_bars)
    now = services.clock()
    ages = [staleness.age_of(NewestBar.of(bars), now, settings.watch.stale_bars) for bars in markets]
    return WatchedVersion(
        model_id=version.model_id,
        version=version.version,
        trained_at=version.created_at,
        age_days=(now - version.created_at) / timedelta(days=1),
        newest_bar=axis.end.to_pydatetime(),
        new_bars=len(axis) - first_new,
        missing_bars=max(each.late_bars for each in ages),
        is_stale=any(each.is_stale for each in ages),
        performance=performance,
        finding=finding,
        because=because,
        drift=drifts.features,
        prediction_drift=drifts.predictions,
        error_drift=drifts.errors,
        asked=(),
        unknown_series=_unknown_series(markets),
        by_symbol=by_symbol,
    )


def _alarm_of_pool(
    services: Services, version: ModelVersion, members: Sequence[PoolMember], axis: Bars, first_new: int
) -> Alarm:
    """Test of the pool's portfolio on the forward record of the recipe and all bars after the training."""
    record = forward_runs(services, version)
    begun = [int(np.searchsorted(axis.time, each.time[0])) for each in record if len(each.time)]
    first = min([first_new, *begun])
    traded = []
    for each in members:
        tested, positions = _tested(each.bars, each.first_new, each.positions, record)
        if len(tested):
            traded.append((tested, each.market.backtest(tested, positions)))
    if not traded:
        return Alarm()
    whole = portfolio(axis[first:], traded, 1.0, members=len(members))
    return alarm_on(axis[first:], whole, axis, first_new - first)


def _tested(
    bars: Bars, first_new: int, positions: Floats, record: Sequence[MarketRuns]
) -> tuple[Bars, Floats]:
    """Bars and positions of the alarm's test: the forward record of the recipe, then the version's own.

    Args:
        positions: positions of the version on the bars from row `first_new` on.
        record: forward bars of the recipe up to the version's training, by market.
    """
    earlier = [each for each in record if each.symbol == bars.symbol and len(each.time)]
    if not earlier:
        return bars[first_new:], positions
    first = min(first_new, int(np.searchsorted(bars.time, earlier[0].time[0])))
    # forward positions are the same for every seed
    followed = earlier[0].held_at(bars.time[first:first_new])[0]
    return bars[first:], np.concatenate([followed, positions])


def alarm_on(tested: Bars, result: Backtest, market: Bars, first_own: int = 0) -> Alarm:
    """State of the sequential test on the complete days of a backtest.

    Args:
        tested: bars of the backtest, none of the training of the version followed on the bar.
        market: all bars of the market, for the number of days with bars in a year.
        first_own: first row of the watched version's own bars; earlier versions of the recipe have the rows
            before.
    """
    daily = daily_returns(tested.time, result.returns, tested.timeframe.nanoseconds)
    return alarm_of(daily, days_per_year(market.time), days_before(tested.time, first_own))


def _unknown_series(markets: Sequence[Bars]) -> tuple[str, ...]:
    """Own series without a known value at the newest bar of any of the markets."""
    unknown = (name for bars in markets for name, values in bars.series.items() if math.isnan(values[-1]))
    return tuple(dict.fromkeys(unknown))


def _median_drift(members: Sequence[Drift | None]) -> Drift | None:
    """Drift of the median member: many members raise no more false alarms than a single market."""
    drifts = sorted((each for each in members if each), key=lambda each: each.score)
    return drifts[(len(drifts) - 1) // 2] if drifts else None


def _performance(
    services: Services,
    positions: Floats,
    bars: Bars,
    first_new: int,
    market: MarketTerms,
    record: Sequence[MarketRuns],
) -> Performance:
    """Performance on the bars from row `first_new` on, within the window of the settings; the alarm is over
    all new bars and the recipe's forward record before.

    Args:
        positions: positions of the version on the bars from row `first_new` on.
    """
    settings = services.settings
    first = max(first_new, len(bars) - len(bars.last_days(settings.watch.window_days)))
    performance = measure(bars[first:], positions[first - first_new :], market)
    tested, held = _tested(bars, first_new, positions, record)
    if not len(tested):
        return performance
    whole = market.backtest(tested, held)
    alarm = alarm_on(tested, whole, bars, len(tested) - len(positions))
    return performance.model_copy(update={"alarm": alarm})


def measure(bars: Bars, positions: Floats, market: MarketTerms) -> Performance:
    """Backtest of the positions, starting flat, without the alarm.

    Args:
        bars: bars after the training; may be empty.
        positions: positions of the version on the bars, shape (n_bars,).
        market: terms of trading.
    """
    if not len(bars):
        return Performance()
    return performance_of(market.backtest(bars, positions), bars.periods_per_year)


def performance_of(result: Backtest, periods_per_year: float) -> Performance:
    """Performance of a backtest that started flat; see `measure`."""
    metrics = summarise(result, periods_per_year)
    return Performance(
        bars=len(result.returns),
        trades=result.trades.ended,
        sharpe_ratio=finite_or_none(metrics.sharpe_ratio),
        max_drawdown=finite_or_none(metrics.max_drawdown),
    )


def _announce_regime(services: Services, version: ModelVersion, measured: WatchedVersion) -> None:
    """Send the event about a regime other than at the end of the training, once a change."""
    regime = measured.regime
    if regime is None or not regime.has_changed:
        return
    assert regime.at_training is not None
    change = MarketRegimeChanged(
        model_id=version.model_id,
        version=version.version,
        symbol=version.symbol,
        timeframe=version.timeframe,
        previous=regime.at_training,
        current=regime.name,
        since=regime.since,
    )
    services.ledger.announce_regime(change, services.clock())


def _request_retrains(
    services: Services, version: ModelVersion, measured: WatchedVersion
) -> Iterator[Answer]:
    policy = services.settings.triggers
    retrains = services.ledger.triggers.retrains_since_training(measured.model_id)
    due_now = list(_due_retrains(services, measured, retrains))
    if not due_now:
        return
    # read after the protection: the recipe of a version taken out of production is not repeated
    kind = Kind(version.model_type, version.plugin)
    repeated = recipe_to_repeat(services, kind, measured.model_id)
    for due in due_now:
        key = _key(version, due, measured.new_bars // policy.min_new_samples, retrains)
        if repeated.version != version.version:
            # not served by a retrain of the version's own recipe, requested before
            key += "/taken back"
        yield intake.submit(services, _request(services, version, repeated, due, key))


def _due_retrains(
    services: Services, measured: WatchedVersion, retrains: RetrainsSince
) -> Iterator[DueRetrain]:
    drifts = DriftFindings(
        measured.drift,
        measured.prediction_drift,
        measured.error_drift,
        _members_with_changed_errors(measured.by_symbol),
    )
    freshness = Freshness(
        measured.model_id, measured.trained_at, measured.new_bars, retrains.newest, retrains.ended
    )
    settings = services.settings
    yield from health.due_retrains(
        measured.model_id, measured.performance, measured.finding, drifts, settings.watch
    )
    yield from _after_protection(measured)
    regime = measured.regime
    if settings.watch.regime_changes and regime is not None and regime.has_changed:
        observed = Observation(regime=regime.name, regime_since=regime.since)
        yield DueRetrain(measured.model_id, TriggerReason.REGIME_CHANGE, observed)
    yield from staleness.due_retrains([freshness], settings.triggers, services.clock())


def _after_protection(measured: WatchedVersion) -> Iterator[DueRetrain]:
    """Retrain to request for a version that the protection took out of production."""
    protection = measured.protection
    if protection is None or protection.action not in TAKEN_OUT:
        return
    if protection.trigger is ProtectionTrigger.EXPIRED:
        # without an age, which the intake would compare with the limit for versions that serve
        yield DueRetrain(measured.model_id, TriggerReason.PERIODIC, Observation())
    elif measured.finding != HealthFinding.DEGRADED:
        observed = Observation(sharpe_ratio=measured.performance.sharpe_ratio, alarm=True)
        yield DueRetrain(measured.model_id, TriggerReason.PERFORMANCE_DEGRADED, observed)


def _key(version: ModelVersion, due: DueRetrain, steps: int, retrains: RetrainsSince) -> str:
    """Key of a request: equal for as long as a repetition would end as the last retrain did.

    Args:
        steps: new bars in units of `min_new_samples`.
    """
    reason = due.reason
    occasion: object
    if reason is TriggerReason.REGIME_CHANGE:
        # a change asks once, and again if its retrain failed
        occasion = f"{due.observed.regime_since:%Y-%m-%d}/{retrains.failed}"
    elif reason is TriggerReason.PERFORMANCE_DEGRADED:
        # an alarm stands until the version is replaced, and asks once
        occasion = retrains.failed
    elif reason is TriggerReason.DRIFT_DETECTED:
        # at 1, 2, 4, 8 ... steps
        occasion = steps.bit_length()
    else:
        occasion = retrains.ended
    return f"watch/{version.version}/{reason}/{occasion}"


def _request(
    services: Services, version: ModelVersion, repeated: RepeatedRecipe, due: DueRetrain, key: str
) -> TriggerRequest:
    """Request to train a version's model on the newest bars."""
    own = services.ledger.job(version.training_job_id)
    job = repeated_job(services, version.model_id, repeated)
    fields = own.model_dump(include={"model_type", "plugin", "symbol", "symbols", "timeframe"})
    if job is not None:
        fields |= recipe_of_job(job) | {"seed": job.seed}
    training = fields | {"trigger_reason": due.reason, "requested_by": WATCH.name}
    return TriggerRequest(
        training=RetrainRequest.model_validate(training),
        actor=WATCH,
        source=WATCH.name,
        key=key,
        observed=due.observed,
        recipe_from=repeated.sentence,
    )
