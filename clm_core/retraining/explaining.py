"""Explanation of a version, computed with its training and evaluation, or later on demand.

Sections about the model need the model and bars; sections about the evaluation need the out-of-sample
forecasts and backtests, which a retrain has at hand.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from clm_core.backtest.walk_forward import FoldResult
from clm_core.domain.evaluations import Decision, Verdict
from clm_core.domain.explanations import Section, VersionExplanation
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelType
from clm_core.explain import cone
from clm_core.explain.attribution import attribution_of
from clm_core.explain.attribution_section import attribution_section
from clm_core.explain.features import stored_shares
from clm_core.explain.profit_parts import TradedMarket, TradedStretch, profit_of
from clm_core.explain.shares import NamedShares, shares_section
from clm_core.market.bars import Bars
from clm_core.market.panel import Panel
from clm_core.models import catalog
from clm_core.models.bundle import load_bundle
from clm_core.models.ensemble import EnsembleParams, Member
from clm_core.models.pooled import view_of
from clm_core.retraining.forecasts import forecast_sections
from clm_core.retraining.model_sections import model_sections
from clm_core.retraining.results import BacktestEvaluation
from clm_core.retraining.training import TrainingResult

RETRAIN_ROWS = 500
"""Bars explained in a retrain."""
TORCH_LIBRARY = "neuralforecast"
"""Library of the kinds whose models are loaded with torch."""
HISTORY = 12
"""Versions of a model beside each other, the explained one included."""


def explanation_of(
    version: ModelVersion,
    bars: Bars | Panel,
    trained: TrainingResult,
    evaluation: BacktestEvaluation,
    regime: NDArray[np.int8] | None = None,
) -> VersionExplanation:
    """Explanation of a version just evaluated; the model of a pool is explained on its first member.

    Args:
        regime: regime known at the open of each out-of-sample bar, shape (n_bars,); None for a pool.
    """
    explained = next(iter(bars)) if isinstance(bars, Panel) else bars
    if loads_torch(version):
        of_model: tuple[Section, ...] = (_on_demand(version),)
    else:
        model = view_of(load_bundle(trained.bundle, trained.bundle_digest), explained.symbol)
        of_model = model_sections(model, explained, RETRAIN_ROWS)
    return VersionExplanation(
        model_id=version.model_id,
        version=version.version,
        sections=(*of_model, *evaluation_sections(trained, evaluation, regime)),
    )


def evaluation_sections(
    trained: TrainingResult, evaluation: BacktestEvaluation, regime: NDArray[np.int8] | None = None
) -> tuple[Section, ...]:
    """Sections about the out-of-sample forecasts and backtests of a version."""
    return (
        *features_of_folds(trained.out_of_sample[evaluation.judged_seed].folds),
        *forecast_sections(evaluation.forecasts),
        attribution_section(attribution_of(profit_of([traded_stretch(evaluation, regime)]))),
    )


def with_history(reports: Path, explanation: VersionExplanation) -> VersionExplanation:
    """Explanation with a section of the features' shares over the versions of the model, as explained up to
    now; without the section for the first version with shares.

    Args:
        reports: folder of reports with the explanations of earlier versions.
    """
    newest = stored_shares(explanation)
    if newest is None:
        return explanation
    symbol, shares = newest
    versions = [NamedShares(explanation.version, shares)]
    suffix = explanation_file(reports, "", "").name
    files = sorted((reports / explanation.model_id).glob(f"*{suffix}"), reverse=True)
    for file in files:
        version = file.name.removesuffix(suffix)
        if version < explanation.version and len(versions) < HISTORY:
            earlier = _shares_in(file.read_bytes())
            versions += [NamedShares(version, earlier[1])] if earlier and earlier[0] == symbol else []
    if len(versions) < 2:
        return explanation
    title = "Features over the versions"
    section = shares_section("features-versions", title, versions[::-1], "mean |SHAP|")
    return explanation.with_sections([section])


def traded_stretch(evaluation: BacktestEvaluation, regime: NDArray[np.int8] | None) -> TradedStretch:
    """The judged backtest, with its markets."""
    members = evaluation.members
    markets = [TradedMarket(each.bars, each.result, each.market) for each in members]
    if not members:
        markets = [TradedMarket(evaluation.bars, evaluation.result, evaluation.market, regime)]
    return TradedStretch(evaluation.bars, evaluation.result.returns, markets, len(markets))


def cone_of_evaluation(evaluation: BacktestEvaluation, verdict: Verdict) -> Section:
    """Cone of a version just judged, with the fate at the gate."""
    backtest = cone.backtested(evaluation.bars, evaluation.result.returns)
    return cone.cone_section(backtest, (), gate_fate(verdict), luck_at_gate(verdict, backtest))


def gate_fate(verdict: Verdict) -> str:
    """Clause on the missed checks of a verdict; empty for a version that passed."""
    if verdict.passed:
        return ""
    missed = ", ".join(check.label for check in verdict.missed)
    decided = "failed the gate" if verdict.decision is Decision.FAIL else "undecided at the gate"
    return f"{decided} (missed: {missed})"


def luck_at_gate(verdict: Verdict, backtest: cone.Backtested) -> cone.LuckTest | None:
    """Test of the backtest against the Sharpe ratio that the gate requires; None if it requires none."""
    required = next((check.limit for check in verdict.checks if check.name == "sharpe_ratio"), 0.0)
    return cone.luck_of_backtest(backtest, required) if required > 0.0 else None


def explanation_file(reports: Path, model_id: str, version: str) -> Path:
    """JSON file of a version's explanation below the folder of reports."""
    return reports / model_id / f"{version}-explanation.json"


def features_of_folds(folds: Sequence[FoldResult]) -> tuple[Section, ...]:
    """Section of the features' shares over the folds; none for a kind without shares."""
    models = [NamedShares(f"{each.train_end:%Y-%m-%d}", each.importances) for each in folds]
    known = [each for each in models if each.shares]
    if len(known) < 2:
        return ()
    title = "Features over the folds, by the last training bar"
    return (shares_section("features-folds", title, known, "the decisions"),)


@lru_cache(HISTORY)
def _shares_in(content: bytes) -> tuple[str, dict[str, float]] | None:
    """Market and shares of a stored explanation; None without shares, or of another release.

    A replay reads the same explanations retrain after retrain.
    """
    try:
        return stored_shares(VersionExplanation.model_validate_json(content))
    except ValidationError:
        return None


def loads_torch(version: ModelVersion) -> bool:
    """True for forecasting networks and ensembles with one: their loading imports torch, which takes seconds
    and memory in a process without torch until then."""
    kinds = [version.kind]
    if version.model_type is ModelType.ENSEMBLE:
        members = EnsembleParams.parse(catalog.own_params(version.params)).members
        kinds += [each.kind for each in members if isinstance(each, Member)]
    return any(catalog.find_kind(*kind).library == TORCH_LIBRARY for kind in kinds)


def _on_demand(version: ModelVersion) -> Section:
    sentence = (
        f"{version.kind} is explained on demand, since its loading takes seconds: `clm explain "
        f"{version.model_id}@{version.version}`."
    )
    return Section(name="features", title="Features", sentences=(sentence,))
