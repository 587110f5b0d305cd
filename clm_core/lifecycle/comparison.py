"""Two stored versions beside each other."""

from pathlib import Path

from clm_core.backtest.tearsheet import write_sections
from clm_core.domain.displayed_params import readable
from clm_core.domain.errors import NotFound, UnknownSeries
from clm_core.domain.explanations import VersionComparison
from clm_core.domain.versions import ModelVersion
from clm_core.explain.comparison import ComparedVersion, Pair, comparison_sections
from clm_core.explain.equity_overlay import TradedCurve
from clm_core.lifecycle.explanations import stored_explanation
from clm_core.retraining.judged_backtest import judged_backtest
from clm_core.services import Services

SUBTITLE = "Two versions beside each other, as they were judged and explained."


def compare_versions(services: Services, first: ModelVersion, second: ModelVersion) -> VersionComparison:
    """Two versions, of one model or of two, as they were judged and explained, and their equity curves."""
    return comparison_of(compared_pair(services, first, second))


def compared_pair(services: Services, first: ModelVersion, second: ModelVersion) -> Pair:
    """What is stored about two versions."""
    return _compared(services, first), _compared(services, second)


def comparison_of(pair: Pair) -> VersionComparison:
    """Sections about a pair."""
    one, other = pair
    return VersionComparison(first=one.name, second=other.name, sections=comparison_sections(one, other))


def write_page(services: Services, compared: VersionComparison) -> Path:
    """Write a self-contained page of a comparison; returns the path."""
    name = f"{compared.first}-{compared.second}".replace("@", "-")
    path = services.reports / "comparisons" / f"{name}.html"
    title = f"{compared.first} and {compared.second}"
    return write_sections(path, title, "", SUBTITLE, compared.sections)


def traded_curve(services: Services, version: ModelVersion) -> TradedCurve | None:
    """Out-of-sample returns of a version; None where the positions or their bars are stored no more."""
    try:
        bars_and_backtest = judged_backtest(services, version)
    except UnknownSeries:
        return None
    if bars_and_backtest is None:
        return None
    bars, backtest = bars_and_backtest
    return TradedCurve(f"{version.model_id}@{version.version}", bars, backtest.returns)


def _compared(services: Services, version: ModelVersion) -> ComparedVersion:
    try:
        evaluation, verdict = services.ledger.evaluation(version.model_id, version.version)
    except NotFound:
        evaluation = None
        verdict = None
    try:
        explanation = stored_explanation(services, version)
    except NotFound:
        explanation = None
    return ComparedVersion(
        version=version,
        params=readable(version.model_type, version.params),
        evaluation=evaluation,
        verdict=verdict,
        explanation=explanation,
        curve=traded_curve(services, version),
    )
