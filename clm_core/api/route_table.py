"""Table of all routes of the API with endpoints and access; a route outside the table is refused."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi.responses import HTMLResponse, PlainTextResponse
from fastapi.sse import EventSourceResponse
from pydantic import BaseModel

from clm_core.api.auth import Access, Open
from clm_core.api.routes import (
    alerts,
    allocation,
    approvals,
    audit,
    candidates,
    data,
    documentation,
    events,
    fills,
    jobs,
    models,
    pages,
    promotion,
    replays,
    runs,
    system,
    tokens,
    triggers,
    webhooks,
)
from clm_core.domain.allocations import AllocationRun
from clm_core.domain.approvals import AnsweredApproval
from clm_core.domain.candidates import StrategyCandidate
from clm_core.domain.jobs import TrainingJob
from clm_core.domain.promotions import Promotion
from clm_core.domain.published_events import SCHEMA_PATH
from clm_core.domain.requested_runs import RequestedRun
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import Role


@dataclass(frozen=True)
class Route:
    method: str
    path: str
    endpoint: Callable[..., Any]
    open_to: Access
    status: int = 200
    answer: type[BaseModel] | None = None
    """Model of the response body where the endpoint returns a Response; None: the annotated return type."""
    kind: type[Any] | None = None
    """Response class other than JSON."""
    documented: bool = True
    page: bool = False
    """True for a page for people: takes the session of a browser instead of a token, answers errors as pages,
    and a POST takes a form."""

    @property
    def writes(self) -> bool:
        return self.method != "GET"


def _page(method: str, path: str, endpoint: Callable[..., Any], open_to: Access) -> Route:
    return Route(method, path, endpoint, open_to, kind=HTMLResponse, documented=False, page=True)


ENDLESS = frozenset({"/clm/events"})
"""Paths whose response does not end by itself."""

ROUTES = (
    Route("GET", "/health", system.health, Open.EVERYBODY),
    Route("GET", "/livez", system.livez, Open.EVERYBODY),
    Route("GET", "/readyz", system.readyz, Open.EVERYBODY),
    Route("GET", "/metrics", system.metrics, Role.SCRAPER, kind=PlainTextResponse),
    Route("GET", "/clm/status", system.status, Role.VIEWER),
    Route("GET", "/clm/jobs", jobs.list_jobs, Role.VIEWER),
    Route("GET", "/clm/jobs/{job_id}", jobs.one_job, Role.VIEWER),
    Route("POST", "/clm/jobs/{job_id}/run", jobs.run, Role.OPERATOR, status=202, answer=jobs.StartedRun),
    Route("POST", "/clm/jobs/{job_id}/cancel", jobs.cancel, Role.OPERATOR, answer=TrainingJob),
    Route("GET", "/clm/models", models.list_models, Role.VIEWER),
    Route("GET", "/clm/models/{model_id}/drift", models.drift, Role.VIEWER),
    Route("GET", "/clm/models/{model_id}/versions/{version}", models.one_version, Role.VIEWER),
    Route(
        "GET",
        "/clm/models/{model_id}/versions/{version}/report",
        models.report,
        Role.VIEWER,
        kind=HTMLResponse,
    ),
    Route("GET", "/clm/models/{model_id}/versions/{version}/explanation", models.explanation, Role.VIEWER),
    Route("GET", "/clm/models/{model_id}/versions/{version}/record", models.record, Role.VIEWER),
    Route("GET", "/clm/models/{model_id}/learning", models.learning, Role.VIEWER),
    Route("GET", "/clm/models/{model_id}/attribution", models.attribution, Role.VIEWER),
    Route("GET", "/clm/candidates", candidates.list_candidates, Role.VIEWER),
    Route("POST", "/clm/candidates", candidates.post, Role.OPERATOR, status=201, answer=StrategyCandidate),
    Route("GET", "/clm/events", events.events, Role.VIEWER, kind=EventSourceResponse),
    # a description as /openapi.json, which holds no secret
    Route("GET", SCHEMA_PATH, events.schema, Open.EVERYBODY),
    Route("POST", "/clm/train", jobs.train, Role.OPERATOR, status=202, answer=jobs.TrainAnswer),
    # forcing takes an admin: a rule of promotion, checked there
    Route("POST", "/clm/promote", promotion.promote, Role.OPERATOR, answer=Promotion),
    Route("POST", "/clm/rollback", promotion.rollback, Role.OPERATOR, answer=Promotion),
    Route("POST", "/clm/halt", promotion.halt, Role.OPERATOR, answer=Promotion),
    Route("POST", "/clm/confirm", promotion.confirm, Role.ADMIN, answer=Promotion),
    Route("POST", "/clm/retire", promotion.retire, Role.OPERATOR, answer=ModelVersion),
    Route("POST", "/clm/watch", runs.watch, Role.OPERATOR, status=202, answer=RequestedRun),
    Route("POST", "/clm/shadow", runs.shadow, Role.OPERATOR, status=202, answer=RequestedRun),
    Route("POST", "/clm/tune", runs.tune, Role.OPERATOR, status=202, answer=RequestedRun),
    Route("GET", "/clm/tune/{study}", runs.one_study, Role.VIEWER),
    Route("POST", "/clm/evolve", runs.evolve, Role.OPERATOR, status=202, answer=RequestedRun),
    Route(
        "POST",
        "/clm/evolve-strategies",
        runs.evolve_strategies,
        Role.OPERATOR,
        status=202,
        answer=RequestedRun,
    ),
    Route("POST", "/clm/replays", replays.replay, Role.OPERATOR, status=202, answer=RequestedRun),
    Route("GET", "/clm/replays", replays.list_replays, Role.VIEWER),
    Route("GET", "/clm/replays/{replay}", replays.one_replay, Role.VIEWER),
    Route("GET", "/clm/replays/{replay}/report", replays.page, Role.VIEWER, kind=HTMLResponse),
    Route("GET", "/clm/runs/{run_id}", runs.one_run, Role.VIEWER),
    Route("GET", "/clm/alerts", alerts.list_alerts, Role.VIEWER),
    Route("GET", "/clm/triggers", triggers.list_triggers, Role.VIEWER),
    Route("GET", "/clm/triggers/set-aside", triggers.list_set_aside, Role.VIEWER),
    Route("GET", "/clm/data", data.list_series, Role.VIEWER),
    Route("GET", "/clm/data/{symbol}/{timeframe}", data.one_series, Role.VIEWER),
    Route("GET", "/clm/approvals", approvals.list_approvals, Role.VIEWER),
    Route("POST", "/clm/approvals/{model_id}", approvals.decide, Role.OPERATOR, answer=AnsweredApproval),
    Route("GET", "/clm/allocation/{model_id}", allocation.weights, Role.VIEWER),
    Route(
        "POST",
        "/clm/allocation/{model_id}",
        allocation.start,
        Role.OPERATOR,
        status=201,
        answer=AllocationRun,
    ),
    Route("DELETE", "/clm/allocation/{model_id}", allocation.stop, Role.OPERATOR),
    Route("POST", "/clm/allocation/{model_id}/served", allocation.report_served, Role.REPORTER),
    Route("GET", "/clm/fills/{model_id}", fills.list_fills, Role.VIEWER),
    Route("POST", "/clm/fills", fills.report, Role.REPORTER),
    Route("GET", "/clm/audit", audit.export_audit, Role.ADMIN),
    Route("GET", "/clm/tokens", tokens.list_tokens, Role.ADMIN),
    Route("POST", "/clm/tokens", tokens.create_token, Role.ADMIN, status=201),
    Route("DELETE", "/clm/tokens/{token_id}", tokens.revoke_token, Role.ADMIN),
    Route("POST", "/webhooks/{source}", webhooks.receive, Open.SIGNER, status=202),
    # the description holds no secret, and a browser sends no token
    Route("GET", "/docs", documentation.page, Open.EVERYBODY, documented=False),
    Route("GET", "/docs/swagger-ui.js", documentation.script, Open.EVERYBODY, documented=False),
    Route("GET", "/docs/swagger-ui.css", documentation.style, Open.EVERYBODY, documented=False),
    Route("GET", "/docs/favicon.png", documentation.icon, Open.EVERYBODY, documented=False),
    Route("GET", "/openapi.json", documentation.openapi, Open.EVERYBODY, documented=False),
    _page("GET", "/", pages.home, Role.VIEWER),
    _page("GET", "/login", pages.sign_in_form, Open.BROWSER),
    _page("POST", "/login", pages.sign_in, Open.BROWSER),
    _page("POST", "/logout", pages.sign_out, Open.BROWSER),
    _page("POST", "/jobs/{job_id}/run", pages.run_job, Role.OPERATOR),
    _page("POST", "/jobs/{job_id}/cancel", pages.cancel_job, Role.OPERATOR),
    _page("GET", "/models/{model_id}", pages.model, Role.VIEWER),
    _page("POST", "/models/{model_id}/versions/{version}/promote", pages.promote, Role.OPERATOR),
    _page("POST", "/models/{model_id}/versions/{version}/refuse", pages.refuse, Role.OPERATOR),
    _page("GET", "/models/{model_id}/versions/{version}/report", pages.report, Role.VIEWER),
    _page("GET", "/models/{model_id}/searches/{name}", pages.search_report, Role.VIEWER),
    _page("GET", "/models/{model_id}/versions/{version}/explanation", pages.explanation, Role.VIEWER),
)
PAGES = frozenset(route.path for route in ROUTES if route.page)
