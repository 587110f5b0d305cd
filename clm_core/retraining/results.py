"""Results of the steps of a retrain."""

from dataclasses import dataclass
from pathlib import Path

from clm_core.backtest.baselines import Baseline
from clm_core.backtest.declared_rules import DeclaredRule
from clm_core.backtest.results import Backtest, Metrics
from clm_core.backtest.terms import MarketTerms
from clm_core.domain.evaluations import FoldSummary, RecordFacts, Verdict
from clm_core.domain.shadow_decisions import ShadowDecision
from clm_core.domain.versions import ModelVersion
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.evidence.soundness import Skill
from clm_core.explain.forecasts import ForecastRecord
from clm_core.market.bars import Bars, Floats
from clm_core.models.activity import BundleActivity
from clm_core.models.contract import Model
from clm_core.retraining.stored_evidence import OutOfSampleRuns


@dataclass(frozen=True, eq=False)
class MemberEvaluation:
    """Backtest of a pool's member over the out-of-sample bars, under the terms of the member's market."""

    bars: Bars
    """Out-of-sample bars of the member."""
    positions: Floats
    """Target position after each bar, as traded, shape (n_bars,)."""
    result: Backtest
    metrics: Metrics
    market: MarketTerms


@dataclass(frozen=True)
class FittedModel:
    """Facts about the registered model, which is fitted on all bars, and about the fits of the folds."""

    activity: BundleActivity | None
    """Positions of the model itself on its training tail; None for a bundle of an earlier release."""
    skill: Skill | None
    """Skill of the model; None for a kind without forecasts."""
    folds: tuple[FoldSummary, ...]
    """Folds of the judged seed; for stored evidence, as they were recorded."""


@dataclass(frozen=True)
class BacktestEvaluation:
    """Backtest over the out-of-sample bars, after costs, beside the baselines over the same bars."""

    bars: Bars
    """Out-of-sample bars; of a pool, the common axis (`Panel.index_bars`)."""
    positions: Floats
    """Target position after each bar, as traded, shape (n_bars,); of a pool, the positions of all members in
    sequence."""
    judged_seed: int
    """Index of the seed judged: 0 is the job's own seed."""
    seed_sharpes: tuple[float, ...]
    """Annualised Sharpe ratio with each seed, ascending."""
    result: Backtest
    """Backtest with the judged seed."""
    metrics: Metrics
    """Metrics with the judged seed."""
    baselines: tuple[Baseline, ...]
    """Backtests of the baselines on the same bars; the first is buy and hold."""
    rules: tuple[DeclaredRule, ...]
    """Backtests of the rule strategies at their defaults on the same bars, for information."""
    market: MarketTerms
    """Terms of trading of every backtest of the evaluation; of a pool, the highest of each cost, under which
    the pool was trained, while each member trades under its own."""
    runs: OutOfSampleRuns
    """Positions of every seed, as the models asked for them."""
    plan: WalkForwardPlan
    """Plan of the walk-forward, with the days and the grid of the request."""
    fitted: FittedModel | None = None
    """Facts about the registered model; None: not measured."""
    record: RecordFacts | None = None
    """Record of the recipe with the positions; None for positions of a release without records."""
    members: tuple[MemberEvaluation, ...] = ()
    """Members of a pool with the judged seed; empty for one market."""
    forecasts: ForecastRecord | None = None
    """Forecasts of the judged seed in the walk-forward of the training; None for stored evidence."""


@dataclass(frozen=True)
class TearSheetFiles:
    """Tear sheet as an HTML file, its equity curve as a PNG picture and its table by regime."""

    html: Path
    equity_png: bytes
    by_regime: tuple[tuple[str, ...], ...] = ()
    """Cells of each regime, in the order of `by_regime.REGIME_COLUMNS`; empty without known regimes."""


@dataclass(frozen=True)
class RetrainResult:
    """Result of a retrain: the new version, the verdict and the metrics behind the verdict."""

    version: ModelVersion
    verdict: Verdict
    metrics: Metrics
    report: TearSheetFiles
    decision: ShadowDecision | None = None
    """Decision taken at once on a refresh of the champion's recipe; None for any other version."""


@dataclass(frozen=True, eq=False)
class ChampionModel:
    """Version in production, other than the version to be judged."""

    version: ModelVersion
    model: Model | None
    """Model of the version; None if it cannot be had."""
    problem: str | None = None
    """Reason for the missing model."""
    remark: str | None = None
    """Sentence on a model trained again; None for a stored model."""
