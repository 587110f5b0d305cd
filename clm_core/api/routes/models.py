"""Versions of models with lineage, evaluation, verdict and report."""

from pathlib import Path
from typing import Annotated

from fastapi import Query
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from clm_core.api.context import Connected
from clm_core.api.parameters import LabelInPath, ModelIdInPath
from clm_core.backtest import chart_library
from clm_core.domain.drift_history import DriftHistory
from clm_core.domain.errors import NotFound
from clm_core.domain.evaluations import EvaluationResult, Verdict
from clm_core.domain.explanations import Section, VersionExplanation
from clm_core.domain.jobs import TrainingJob
from clm_core.domain.listings import ListedVersion, Page, VersionQuery
from clm_core.domain.paper import LearningValue, PaperQuery, PaperRecord
from clm_core.domain.shadow_decisions import RecordedDecision
from clm_core.domain.versions import ModelVersion
from clm_core.services import Services

REPORT_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "font-src data:; sandbox allow-scripts allow-downloads; frame-ancestors 'none'"
)
"""Content security policy of a tear sheet: self-contained, sandboxed, without network access."""


class VersionDetails(BaseModel):
    version: ModelVersion
    job: TrainingJob
    """Training job with parameters and bars."""
    ancestors: list[str]
    """Production versions at the training of the version and of its parents, nearest first; at most 20."""
    evaluation: EvaluationResult | None
    """Newest evaluation; null for a version never judged."""
    verdict: Verdict | None
    shadow_decision: RecordedDecision | None = None
    """Newest decision on the version in shadow; null for a version never decided on."""


def list_models(clm: Connected, query: Annotated[VersionQuery, Query()]) -> Page[ListedVersion]:
    """Versions of models, each with the newest evaluation."""
    return clm.ledger.find_versions(query)


def one_version(model_id: ModelIdInPath, version: LabelInPath, clm: Connected) -> VersionDetails:
    """Version with training job, ancestors, evaluation, verdict and newest shadow decision."""
    stored = clm.ledger.version(model_id, version)
    evaluation, verdict = _judged(clm, stored)
    return VersionDetails(
        version=stored,
        job=clm.ledger.job(stored.training_job_id),
        ancestors=_ancestors(clm, stored),
        evaluation=evaluation,
        verdict=verdict,
        shadow_decision=clm.ledger.shadow_decisions.newest(stored.model_id, stored.version),
    )


def record(
    model_id: ModelIdInPath,
    version: LabelInPath,
    clm: Connected,
    query: Annotated[PaperQuery, Query()],
) -> PaperRecord:
    """Paper record of the version: position, net return and cost of each closed bar, late rows marked."""
    # imported here, as below: the libraries of backtests
    from clm_core.lifecycle.paper import paper_record

    return paper_record(clm, clm.ledger.version(model_id, version), query)


def learning(model_id: ModelIdInPath, clm: Connected) -> LearningValue:
    """Value of continuous learning: production minus the frozen first champion, with intervals."""
    from clm_core.lifecycle.learning import learning_value

    value = learning_value(clm, model_id)
    if value is None:
        raise NotFound(f"No version of {model_id} was ever in production: `clm models` lists the models.")
    return value


def attribution(model_id: ModelIdInPath, clm: Connected) -> Section:
    """Attribution of the model's life in production: by version, symbol, time, side, reasons, decision."""
    from clm_core.lifecycle.attribution import attribute_model

    return attribute_model(clm, model_id)


def drift(
    model_id: ModelIdInPath, clm: Connected, days: Annotated[int, Query(ge=1, le=3650)] = 30
) -> DriftHistory:
    """Drift of the features and predictions of the production version, by day."""
    from clm_core.lifecycle.drift_watch import drift_history

    return drift_history(clm, model_id, days)


def explanation(model_id: ModelIdInPath, version: LabelInPath, clm: Connected) -> VersionExplanation:
    """Explanation of the version: what it looks at, how well it knows, where its results come from."""
    from clm_core.lifecycle.explanations import stored_explanation

    return stored_explanation(clm, clm.ledger.version(model_id, version))


def report(model_id: ModelIdInPath, version: LabelInPath, clm: Connected) -> HTMLResponse:
    """Tear sheet of the version as an HTML page."""
    stored = clm.ledger.version(model_id, version)
    page = clm.reports / stored.model_id / f"{stored.version}.html"
    if not page.exists():
        page.parent.mkdir(parents=True, exist_ok=True)
        _fetch_report(clm, stored)
    return complete_page(page, clm)


def complete_page(page: Path, clm: Services) -> HTMLResponse:
    """A page of the reports with the chart library inside, for a browser or to be saved."""
    content = chart_library.complete(page.read_bytes(), clm.reports)
    return HTMLResponse(content, headers={"Content-Security-Policy": REPORT_POLICY})


def _judged(clm: Services, version: ModelVersion) -> tuple[EvaluationResult | None, Verdict | None]:
    try:
        return clm.ledger.evaluation(version.model_id, version.version)
    except NotFound:
        return None, None


def _ancestors(clm: Services, version: ModelVersion, max_count: int = 20) -> list[str]:
    line: list[str] = []
    while version.parent_version is not None and len(line) < max_count:
        line.append(version.parent_version)
        version = clm.ledger.version(version.model_id, version.parent_version)
    return line


def _fetch_report(clm: Services, version: ModelVersion) -> None:
    try:
        clm.registry.download(
            version.mlflow_run_id, f"report/{version.version}.html", clm.reports / version.model_id
        )
    except NotFound as error:
        # MLflow's message reveals files and servers
        raise NotFound(
            f"{version.model_id} {version.version} has no report: the end of a retrain writes the report."
        ) from error
