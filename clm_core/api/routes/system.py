"""Health and status of the installation."""

import os
from collections.abc import Callable, Mapping
from enum import StrEnum

from fastapi import Response
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from clm_core.api.context import Connected
from clm_core.decisions.overdue import judge_passes, overdue
from clm_core.domain.bar_age import DataAge
from clm_core.domain.errors import CLMError, ServerUnavailable, SettingsError
from clm_core.domain.promotions import Promotion
from clm_core.domain.vocabulary import JobStatus, ModelStatus
from clm_core.operations.data_age import data_age
from clm_core.operations.metrics import CONTENT_TYPE, exposition
from clm_core.platform.prefect_runs import is_answering
from clm_core.services import Services, loading_problem


class Condition(StrEnum):
    OK = "ok"
    ILL = "ill"
    """The database answers, and a scheduled pass has not succeeded for several of its intervals, or none can,
    since settings or policy cannot be loaded, or the storage does not answer."""
    DOWN = "down"


class Health(BaseModel):
    status: Condition
    """Down without the database; ill while a scheduled pass is overdue, settings or policy cannot be loaded,
    or the storage does not answer. Retrains need the other parts as well."""
    parts: Mapping[str, Condition]
    problems: list[str]
    """A sentence for each overdue pass, with the last success and the remedy."""


class Probe(BaseModel):
    status: Condition


class SystemStatus(BaseModel):
    models: int
    versions: Mapping[ModelStatus, int]
    jobs: Mapping[JobStatus, int]
    promotions: int
    rollbacks: int
    forced: int
    promotion_rate: float | None
    """Share of the judged versions promoted without force, 0..1; null while nothing is judged."""
    production: list[Promotion]
    """Production versions: the last change of each model."""
    data: DataAge
    """Age of the bars of the markets of the universe, of the pools and of production, stale markets first."""


def metrics(clm: Connected) -> Response:
    """Metrics of the installation in Prometheus' text format."""
    return Response(exposition(clm), media_type=CONTENT_TYPE)


def livez() -> Probe:
    """Liveness: 200 while the process answers, also without the database."""
    return Probe(status=Condition.OK)


def readyz(clm: Connected, response: Response) -> Probe:
    """Readiness: 200 while the database answers, else 503."""
    condition = _condition(clm.ledger.require_reachable)
    if condition is Condition.DOWN:
        response.status_code = 503
    return Probe(status=condition)


def health(clm: Connected, response: Response) -> Health:
    """Health of each part; 503 when the database does not answer."""
    parts = {name: _condition(check) for name, check in _parts(clm).items()}
    if parts["database"] is Condition.DOWN:
        response.status_code = 503
        return Health(status=Condition.DOWN, parts=parts, problems=[])
    try:
        problems = overdue(judge_passes(*clm.ledger.passes.read()))
    except SQLAlchemyError:
        response.status_code = 503
        return Health(status=Condition.DOWN, parts={**parts, "database": Condition.DOWN}, problems=[])
    ill = problems or Condition.DOWN in (parts["settings"], parts.get("storage"))
    return Health(status=Condition.ILL if ill else Condition.OK, parts=parts, problems=problems)


def status(clm: Connected) -> SystemStatus:
    """Counts, the production versions, and the age of the bars."""
    counts = clm.ledger.counts()
    changes = clm.ledger.overviews.changes()
    return SystemStatus(
        models=counts.models,
        versions=counts.versions,
        jobs=counts.jobs,
        promotions=counts.promotions,
        rollbacks=counts.rollbacks,
        forced=counts.forced,
        promotion_rate=counts.promotion_rate,
        production=[change for _, change in sorted(changes.items()) if change.to_version],
        data=data_age(clm),
    )


def _parts(clm: Services) -> dict[str, Callable[[], None]]:
    parts = {
        "database": clm.ledger.require_reachable,
        "mlflow": clm.registry.require_reachable,
        "settings": _require_loadable,
    }
    if clm.storage_probe is not None:
        parts["storage"] = clm.storage_probe.require_reachable
    if url := os.environ.get("PREFECT_API_URL"):
        parts["prefect"] = lambda: _require_prefect(url)
    return parts


def _condition(check: Callable[[], None]) -> Condition:
    try:
        check()
    except (CLMError, SQLAlchemyError):
        return Condition.DOWN
    return Condition.OK


def _require_loadable() -> None:
    if problem := loading_problem():
        raise SettingsError(problem)


def _require_prefect(url: str) -> None:
    if not is_answering(f"{url}/health"):
        raise ServerUnavailable(f"Prefect does not answer at {url}: see `clm status`.")
