"""Explanation of a stored version: as its retrain computed it, with sections about the model on demand."""

from pathlib import Path

from pydantic import ValidationError

from clm_core.backtest.tearsheet import render_sections, write_sections
from clm_core.domain.errors import NotFound
from clm_core.domain.explanations import Section, VersionExplanation
from clm_core.domain.versions import ModelVersion
from clm_core.explain.cone import NAME as LIVE
from clm_core.explain.drift import drift_section
from clm_core.lifecycle.drift_watch import drift_history
from clm_core.lifecycle.live import live_section
from clm_core.market.bars import Bars
from clm_core.models.contract import Model
from clm_core.models.params import series_names
from clm_core.models.pooled import view_of
from clm_core.retraining.explaining import explanation_file, with_history
from clm_core.retraining.model_sections import sections_on_demand
from clm_core.services import Services

SUBTITLE = "What the version looks at, how well it knows, and where its results come from."
DRIFT_DAYS = 365
"""Days of kept drift on the page of a version."""


def explain_version(
    services: Services,
    version: ModelVersion,
    rows: int,
    symbol: str | None = None,
    section: str | None = None,
) -> VersionExplanation:
    """Explanation of the retrain, with sections about the model on the newest closed bars; kept for REST.

    Args:
        rows: number of bars explained at most.
        symbol: market of the bars: a member of a pool; None for the version's own.
        section: name of the one section that takes seconds to compute; None for all of them.

    Raises:
        FeatureMismatch: the version does not know the market.
    """
    try:
        explanation = stored_explanation(services, version)
    except NotFound:
        explanation = VersionExplanation(model_id=version.model_id, version=version.version, sections=())
    model, bars = _model_and_bars(services, version, symbol)
    explanation = explanation.led_by(sections_on_demand(model, bars, rows, section))
    explanation = with_history(services.reports, explanation).with_sections(
        [*_drift(services, version), live_section(services, version)]
    )
    _keep(services, explanation)
    return explanation


def stored_explanation(services: Services, version: ModelVersion) -> VersionExplanation:
    """Explanation computed with the version's retrain, or by an earlier command.

    Raises:
        NotFound: the version has no explanation yet.
    """
    file = explanation_file(services.reports, version.model_id, version.version)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            services.registry.download(version.mlflow_run_id, f"report/{file.name}", file.parent)
        except NotFound as error:
            # MLflow's message reveals files and servers
            raise _missing(version) from error
    try:
        return VersionExplanation.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise _missing(version) from error


def current_page(services: Services, version: ModelVersion) -> str:
    """HTML page of the stored explanation, with the live returns up to now; of a version without one, the
    live returns alone."""
    try:
        explanation = stored_explanation(services, version)
    except NotFound:
        explanation = VersionExplanation(model_id=version.model_id, version=version.version, sections=())
    sections = explanation.with_sections([live_section(services, version)]).sections
    newest_first = sorted(sections, key=lambda each: each.name != LIVE)
    return render_sections(version.model_id, version.version, SUBTITLE, newest_first)


def write_page(services: Services, explanation: VersionExplanation) -> Path:
    """Write a self-contained page of the sections; returns the path."""
    path = services.reports / explanation.model_id / f"{explanation.version}-explanation.html"
    return write_sections(path, explanation.model_id, explanation.version, SUBTITLE, explanation.sections)


def _drift(services: Services, version: ModelVersion) -> tuple[Section, ...]:
    """Section about the drift of a version in production."""
    if services.ledger.promotions.champion(version.model_id) != version.version:
        return ()
    return (drift_section(drift_history(services, version.model_id, DRIFT_DAYS)),)


def _model_and_bars(services: Services, version: ModelVersion, symbol: str | None) -> tuple[Model, Bars]:
    """Model of a version for a market, and the closed bars of the market with the version's series."""
    services.ledger.removed_files.require_files(version.model_id, version.version)
    market = symbol or version.symbol
    model = view_of(services.registry.load(version.model_path, version.bundle_digest), market)
    bars = services.market.bars(market, version.timeframe, closed_by=services.clock())
    return model, model.trained_on.accept(services.market.with_series(bars, series_names(version.params)))


def _keep(services: Services, explanation: VersionExplanation) -> None:
    file = explanation_file(services.reports, explanation.model_id, explanation.version)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(explanation.model_dump_json(), encoding="utf-8")
    unfinished.replace(file)


def _missing(version: ModelVersion) -> NotFound:
    return NotFound(
        f"{version.model_id} {version.version} has no explanation yet: `clm explain "
        f"{version.model_id}@{version.version}` computes the explanation."
    )
