"""Pools: from the names in a request to the bars of all members, and the evaluation member by member."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

import numpy as np
import pandas as pd

from clm_core.backtest import pools
from clm_core.backtest.baselines import Baseline, Sizer, run_baselines
from clm_core.backtest.declared_rules import DeclaredRule, run_declared_rules
from clm_core.backtest.metrics import summarise
from clm_core.backtest.results import Backtest
from clm_core.backtest.terms import MarketTerms, buy_and_hold
from clm_core.decisions.cases import Comparison
from clm_core.domain.costs import Costs, HoldingCosts
from clm_core.domain.errors import NotEnoughBars, PoolRefused, UnknownSeries
from clm_core.domain.evaluations import SymbolResult
from clm_core.domain.execution import ExecutionRules
from clm_core.domain.jobs import Lease, RetrainRequest, TrainingJob
from clm_core.domain.pools import require_pool
from clm_core.domain.spellings import normalise_symbol
from clm_core.domain.terms import EvaluationTerms, TradingTerms, cost_sentence
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.evidence import paired
from clm_core.evidence.bootstrap import sharpe_estimate
from clm_core.evidence.equal_volatility import compare
from clm_core.ledger.executions import version_execution
from clm_core.ledger.store import Ledger
from clm_core.market.bars import Bars, Floats
from clm_core.market.panel import Panel, hash_of
from clm_core.market.regimes import with_regimes
from clm_core.market.sources import MarketData
from clm_core.market.timeframes import Timeframe
from clm_core.models import catalog
from clm_core.models.params import needs_regimes, series_names
from clm_core.models.pooled import view_of
from clm_core.retraining.case import count_trial
from clm_core.retraining.results import BacktestEvaluation, ChampionModel, MemberEvaluation
from clm_core.retraining.stored_evidence import OutOfSampleRuns
from clm_core.services import Services

DAY_NS = 86_400_000_000_000
R = TypeVar("R", RetrainRequest, TrainingJob)


def resolve(services: Services, request: RetrainRequest) -> RetrainRequest:
    """A request for a pool with the canonical name and symbols; a request for a single market unchanged.

    The symbols come from the request, the settings, or the pool's earlier jobs. A name stands for the same
    symbols for ever: versions of a model id are compared with each other.

    Raises:
        PoolRefused: the name is a stored market, or stands for other symbols already.
    """
    name = normalise_symbol(request.symbol)
    earlier = services.ledger.pool_members(name)
    named = services.settings.pools.get(name)
    symbols = request.symbols or (() if named is None else named.symbols) or earlier
    if not symbols:
        return request
    canonical = tuple(normalise_symbol(symbol) for symbol in symbols)
    try:
        require_pool(name, canonical)
    except ValueError as error:
        raise PoolRefused(str(error)) from error
    if _is_stored(services.market, name):
        raise PoolRefused(
            f"{name} is the symbol of a stored market: give the pool of {', '.join(canonical)} another name"
        )
    if earlier and set(earlier) != set(canonical):
        raise PoolRefused(
            f"the pool {name} has the members {', '.join(earlier)}, not {', '.join(canonical)}: give the new "
            "pool another name, so that its versions are not compared with those of other markets"
        )
    return request.model_copy(update={"symbol": name, "symbols": earlier or canonical})


def new_job(services: Services, request: RetrainRequest, now: datetime) -> TrainingJob:
    """The job for a resolved request, not yet recorded.

    Raises:
        ModelError: the kind of model cannot fit one model to several symbols.
        UnknownSeries: a member is not stored, or has no bar in the span.
        DataError: the members cannot be one panel.
    """
    catalog.pooling(catalog.recipe(request.model_type, request.training_params, Costs(), request.plugin))
    hashes = snapshots(services, request, now)
    names = series_names(request.training_params)
    series = {
        _of_member(symbol, name): content_hash
        for symbol in request.symbols
        for name, content_hash in services.market.newest_series(names, symbol).items()
    }
    fields = request.model_dump(exclude={"again"}) | {
        "series": series,
        "timeframe": Timeframe(request.timeframe).value,
        "data_snapshot": hash_of(request.symbol, hashes),
        "data_snapshots": hashes,
    }
    return TrainingJob(id=uuid.uuid4(), created_at=now, **fields)


def snapshots(services: Services, request: RetrainRequest, now: datetime) -> tuple[str, ...]:
    """Content hash of the newest series of each member, each readable and with a bar in the span.

    Raises:
        UnknownSeries: a member is not stored, or has no bar in the span.
        DataError: the members cannot be one panel.
    """
    hashes = tuple(
        services.market.newest(symbol, request.timeframe).content_hash for symbol in request.symbols
    )
    _panel(services.market, request.symbol, request, hashes, now)
    return hashes


def fetch_panel(services: Services, job: TrainingJob) -> Panel:
    """Bars and own series of the data snapshots of a pool's job, closed by the job's creation."""
    panel = _panel(services.market, job.symbol, job, job.data_snapshots, job.created_at)
    names = series_names(job.training_params)
    members = (
        services.market.with_series(bars, {name: job.series[_of_member(bars.symbol, name)] for name in names})
        for bars in panel
    )
    return replace(panel, members=tuple(members))


def bars_of(services: Services, job: TrainingJob) -> Bars | Panel:
    """Bars and own series of a job's data snapshots, closed by the creation, within the span of the job; with
    the regimes of the whole series for a training that weighs regimes.

    Raises:
        UnknownSeries: a snapshot is no longer stored.
    """
    if job.symbols:
        return fetch_panel(services, job)
    span = job.dataset_span_days
    bars = services.market.bars(job.symbol, job.timeframe, span, job.data_snapshot, closed_by=job.created_at)
    if needs_regimes(job.training_params, job.plugin):
        bars = with_regimes(bars, whole_bars_of_market(services, job))
    return services.market.with_series(bars, job.series)


def whole_bars_of_market(services: Services, job: TrainingJob) -> Bars:
    """All bars of the snapshot of a job of one market closed by the job's creation, without own series.

    Raises:
        UnknownSeries: the snapshot is no longer stored.
    """
    return services.market.bars(job.symbol, job.timeframe, None, job.data_snapshot, closed_by=job.created_at)


def whole_bars(services: Services, job: TrainingJob) -> Bars | Panel:
    """All bars of a job's data snapshots closed by the job's creation, whatever its span, with own series.

    Raises:
        UnknownSeries: a snapshot is no longer stored.
    """
    market = services.market
    names = series_names(job.training_params)
    if not job.symbols:
        return market.with_series(whole_bars_of_market(services, job), job.series)
    members = []
    for symbol, snapshot in zip(job.symbols, job.data_snapshots, strict=True):
        bars = market.bars(symbol, job.timeframe, None, snapshot, closed_by=job.created_at)
        members.append(
            market.with_series(bars, {name: job.series[_of_member(symbol, name)] for name in names})
        )
    return Panel(job.symbol, tuple(members))


def _of_member(symbol: str, name: str) -> str:
    """Key of an own series of a member among the series of a job."""
    return f"{symbol}/{name}"


def newest_panel(services: Services, request: RetrainRequest) -> Panel:
    """Bars for a training of the pool at present."""
    now = services.clock()
    return _panel(services.market, request.symbol, request, snapshots(services, request, now), now)


def _panel(
    market: MarketData,
    name: str,
    training: RetrainRequest | TrainingJob,
    hashes: Sequence[str],
    closed_by: datetime,
) -> Panel:
    """Bars of the newest days of the pool, counted back from the newest bar of any member."""
    members = tuple(
        market.bars(symbol, training.timeframe, content_hash=content_hash, closed_by=closed_by)
        for symbol, content_hash in zip(training.symbols, hashes, strict=True)
    )
    whole = Panel(name, members)
    last = int(whole.time[-1])
    panel = whole.between(last - training.dataset_span_days * DAY_NS + 1, last + 1)
    absent = set(whole.symbols) - set(() if panel is None else panel.symbols)
    if panel is None or absent:
        raise UnknownSeries(
            f"{', '.join(sorted(absent))} has no bar in the newest {training.dataset_span_days} days of the "
            f"pool {name}, which end at {pd.Timestamp(last):%Y-%m-%d %H:%M} UTC: add newer bars, or pool the "
            "other symbols under another name"
        )
    return panel


def _is_stored(market: MarketData, name: str) -> bool:
    return any(series.symbol == name for series in market.series())


def member_terms(services: Services, panel: Panel) -> dict[str, MarketTerms]:
    """Terms of trading in force for each member, by symbol."""
    return {member.symbol: services.terms(member.symbol, member.calendar) for member in panel}


def dearest(terms: Sequence[TradingTerms]) -> TradingTerms:
    """Terms of the pool for the training: the highest of each cost, and long only where any member is."""
    remarks = dict.fromkeys(remark for each in terms for remark in each.remarks)
    return TradingTerms(
        costs=Costs(
            fee_bps=max(each.costs.fee_bps for each in terms),
            slippage_bps=max(each.costs.slippage_bps for each in terms),
        ),
        holding=HoldingCosts(
            funding_bps_per_8h=max((each.holding.funding_bps_per_8h for each in terms), key=abs),
            borrow_bps_per_year=max(each.holding.borrow_bps_per_year for each in terms),
        ),
        execution=terms[0].execution,
        long_only=any(each.long_only for each in terms),
        origins=dict.fromkeys(("fee_bps", "slippage_bps"), "highest of the pool's members"),
        remarks=tuple(remarks),
    )


def evaluate_members(
    panel: Panel, runs: OutOfSampleRuns, seed: int, terms: Mapping[str, MarketTerms]
) -> tuple[MemberEvaluation, ...]:
    """Backtest of each member on its out-of-sample bars, under the terms of the member's market.

    Args:
        seed: index of the seed.

    Raises:
        NotEnoughBars: a member has no out-of-sample bar.
    """
    members = []
    for bars, run in zip(panel, runs.markets, strict=True):
        unseen = bars[run.rows(bars)]
        if not len(unseen):
            raise NotEnoughBars(
                f"{bars.symbol} has no bar in the out-of-sample part of the pool {panel.name}: give a longer "
                "span, or leave the symbol out"
            )
        market = terms[bars.symbol]
        positions = market.tradable(run.positions[seed])
        result = market.backtest(unseen, positions)
        members.append(
            MemberEvaluation(unseen, positions, result, summarise(result, unseen.periods_per_year), market)
        )
    return tuple(members)


def portfolio_of(axis: Bars, members: Sequence[MemberEvaluation]) -> Backtest:
    """Equal-risk portfolio of evaluated members on the out-of-sample part of the common axis."""
    cash = members[0].market.terms.execution.initial_cash
    return pools.portfolio(axis, [(member.bars, member.result) for member in members], cash)


def pool_baselines(
    axis: Bars, panel: Panel, runs: OutOfSampleRuns, terms: Mapping[str, MarketTerms], size: Sizer
) -> tuple[Baseline, ...]:
    """Baselines of the pool: the equal-risk portfolio of the members' baselines, under the terms of each.

    Args:
        axis: out-of-sample part of the common axis.
        runs: out-of-sample positions of each member, whose rows are traded.
        size: sizing of the version.
    """
    by_member = [
        run_baselines(terms[bars.symbol], bars, run.rows(bars), size)
        for bars, run in zip(panel, runs.markets, strict=True)
    ]
    baselines = []
    for same in zip(*by_member, strict=True):
        joined = _joined(axis, panel, runs, terms, [each.result for each in same])
        baselines.append(Baseline(same[0].name, joined, summarise(joined, axis.periods_per_year)))
    return tuple(baselines)


def pool_rules(
    axis: Bars, panel: Panel, runs: OutOfSampleRuns, terms: Mapping[str, MarketTerms]
) -> tuple[DeclaredRule, ...]:
    """Rule strategies of the pool: the equal-risk portfolio of each rule on the members.

    Args:
        axis: out-of-sample part of the common axis.
        runs: out-of-sample positions of each member, whose rows are traded.
    """
    by_member = [
        run_declared_rules(terms[bars.symbol], bars, run.rows(bars))
        for bars, run in zip(panel, runs.markets, strict=True)
    ]
    rules = []
    for same in zip(*by_member, strict=True):
        joined = _joined(axis, panel, runs, terms, [each.result for each in same])
        metrics = summarise(joined, axis.periods_per_year)
        rules.append(replace(same[0], result=joined, metrics=metrics))
    return tuple(rules)


def _joined(
    axis: Bars,
    panel: Panel,
    runs: OutOfSampleRuns,
    terms: Mapping[str, MarketTerms],
    results: Sequence[Backtest],
) -> Backtest:
    """Equal-risk portfolio of backtests of the members, in the order of the panel."""
    cash = terms[panel.symbols[0]].terms.execution.initial_cash
    unseen = [bars[run.rows(bars)] for bars, run in zip(panel, runs.markets, strict=True)]
    return pools.portfolio(axis, list(zip(unseen, results, strict=True)), cash)


def record_looks(
    ledger: Ledger,
    lease: Lease,
    job: TrainingJob,
    evaluations: Sequence[tuple[int, Sequence[MemberEvaluation]]],
    now: datetime,
) -> int:
    """Count a trial for each member's market and seed: a pool must not be a way around a market's count.

    Args:
        evaluations: difference from the job's seed, and the evaluated members.

    Returns:
        Number of trials recorded.
    """
    looks = [(seed, member) for seed, members in evaluations for member in members]
    for number, (seed, member) in enumerate(looks):
        at = now + timedelta(microseconds=number)
        count_trial(ledger, lease, job, member.bars.symbol, member.bars, seed, member.result, at)
    return len(looks)


def by_symbol(
    members: Sequence[MemberEvaluation], plan: WalkForwardPlan, seeds: int
) -> tuple[SymbolResult, ...]:
    """Results of each member for the verdict."""
    return tuple(_result(member, len(members), plan, seeds) for member in members)


def _result(member: MemberEvaluation, members: int, plan: WalkForwardPlan, seeds: int) -> SymbolResult:
    metrics = member.metrics
    terms = member_record(member, plan, seeds)
    held = summarise(buy_and_hold(member.market, member.bars), member.bars.periods_per_year)
    return SymbolResult(
        symbol=member.bars.symbol,
        sharpe_ratio=metrics.sharpe_ratio,
        sharpe_interval=sharpe_estimate(
            metrics.sharpe_ratio, [member.result.returns], member.bars.periods_per_year
        ),
        total_return=metrics.total_return,
        volatility=metrics.volatility,
        max_drawdown=metrics.max_drawdown,
        turnover=metrics.turnover,
        exposure=metrics.exposure,
        trades=metrics.trades,
        contribution=pools.contribution(members, member.result),
        buy_and_hold_return=held.total_return,
        terms_digest=terms.digest,
        costs=cost_sentence(terms),
    )


def member_record(member: MemberEvaluation, plan: WalkForwardPlan, seeds: int) -> EvaluationTerms:
    """Terms of a member's evaluation, as of an evaluation of the market alone."""
    run = plan.model_copy(update={"seeds": seeds})
    return EvaluationTerms.of(member.market.terms, run, str(member.bars.calendar), member.bars.gap_rules)


def compare_with_champion(
    ledger: Ledger,
    market: MarketData,
    champion: ChampionModel,
    evaluation: BacktestEvaluation,
    installation: ExecutionRules,
) -> Comparison:
    """Portfolios of champion and challenger on the bars new to both.

    Both trade over all out-of-sample bars under the terms of the members' markets, each with its own
    execution. Training bars of the champion tell the volatility alone. The returns are compared at equal
    volatility.

    Args:
        installation: rules of the installation, for a champion without an execution of its own.
    """
    production = champion.version
    model = champion.model
    label = production.version
    if model is None:
        return Comparison(label, paired.PairedRecord(), champion.problem)
    axis = evaluation.bars
    is_new = np.arange(len(axis)) >= axis.row_after(model.trained_on.end)
    if not is_new.any():
        return Comparison(label, paired.PairedRecord())
    rules = version_execution(ledger, production, installation)
    theirs = list[tuple[Bars, Backtest]]()
    for member in evaluation.members:
        # the champion may take series that the new version does not
        bars = market.with_series(member.bars, series_names(production.params))
        positions = view_of(model, bars.symbol).positions(bars)
        theirs.append((member.bars, member.market.under(rules).backtest(member.bars, positions)))
    other = pools.portfolio(axis, theirs, 1.0, members=len(evaluation.members))
    record = compare(evaluation.result.returns, other.returns, axis.periods_per_year, is_new)
    return Comparison(label, record)


def joined_positions(members: Sequence[MemberEvaluation]) -> Floats:
    """Positions of all members in sequence: a pool has collapsed if all positions are alike."""
    return np.concatenate([member.positions for member in members])
