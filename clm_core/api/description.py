"""OpenAPI description, such that generated clients send what their user wrote, and nothing else.

FastAPI writes the default of a field beside it. Generators then require the field, or send the default as if
the caller had said so; the defaults of requests are therefore told in words. Responses carry every field.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, Field

from clm_core.api import errors
from clm_core.api.auth import Open
from clm_core.api.bodies import MAX_INTEGER
from clm_core.api.route_table import Route
from clm_core.domain.jobs import NOBODY

REFERENCE = "#/components/schemas/"
WITHOUT_NUL = "^[^\\x00]*$"
OPERATIONS: Mapping[str, str] = {
    "allocation.start": "start_allocation",
    "allocation.stop": "stop_allocation",
    "allocation.weights": "get_allocation",
    "approvals.decide": "answer_approval",
    "candidates.post": "propose_candidate",
    "data.one_series": "get_series",
    "events.events": "follow_events",
    "events.schema": "get_event_schema",
    "fills.report": "report_fills",
    "jobs.cancel": "cancel_job",
    "jobs.one_job": "get_job",
    "jobs.run": "run_job",
    "models.attribution": "get_attribution",
    "models.drift": "get_drift",
    "models.explanation": "get_explanation",
    "models.learning": "get_learning_value",
    "models.one_version": "get_version",
    "models.record": "get_paper_record",
    "models.report": "get_report",
    "replays.one_replay": "get_replay",
    "replays.page": "get_replay_page",
    "runs.one_run": "get_run",
    "runs.one_study": "get_study",
    "runs.shadow": "shadow_now",
    "runs.watch": "watch_now",
    "system.health": "get_health",
    "system.metrics": "get_metrics",
    "system.status": "get_status",
    "webhooks.receive": "receive_webhook",
}
"""Names of operations whose endpoint is clear beside its module alone, by module and endpoint."""


class FieldProblem(BaseModel):
    field: str = Field(description="Path of the field: `body.model_id`, `query.since`.")
    message: str


class ProblemDetails(BaseModel):
    """Problem document (RFC 9457)."""

    type: str = Field(examples=["urn:clm:problem:conflict-error"])
    title: str
    status: int
    detail: str = Field(description="Explanation of the problem, and the next step.")
    instance: str | None = Field(default=None, description="Id of the request in the log, of a status 500.")
    reasons: list[str] | None = Field(default=None, description="Missed checks of a refused promotion.")
    errors: list[FieldProblem] | None = Field(default=None, description="Invalid fields, all of them.")


def tag(route: Route) -> str:
    """Group of a route: the name of its module."""
    return route.endpoint.__module__.rpartition(".")[2]


def operation(route: Route) -> str:
    """Name of the operation, unique in the description."""
    name = route.endpoint.__name__
    return OPERATIONS.get(f"{tag(route)}.{name}", name)


def problems(route: Route) -> dict[int | str, dict[str, Any]]:
    """Problem responses of a route."""
    codes = {400, 404, 422, 500, 503}
    if route.open_to is not Open.EVERYBODY:
        codes |= {401, 403, 429}
    if route.writes:
        codes |= {408, 409, 413, 415}
    schema = {"$ref": f"{REFERENCE}{ProblemDetails.__name__}"}
    return {
        code: {
            "description": HTTPStatus(code).phrase,
            "content": {errors.MEDIA_TYPE: {"schema": schema}},
            "model": ProblemDetails,
        }
        for code in sorted(codes)
    }


def describe(app: FastAPI, routes: Sequence[Route], url: str | None) -> None:
    """Replace the description of an application.

    Args:
        url: public address of the API, if known.
    """
    framework = app.openapi
    app.openapi_tags = list(_tags(route for route in routes if route.documented))
    app.servers = [{"url": url or "/"}]

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = described(framework())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def described(document: dict[str, Any]) -> dict[str, Any]:
    """The description with defaults of request bodies in words, and complete responses."""
    document = json.loads(json.dumps(document))
    schemas = document["components"]["schemas"]
    operations = [each for path in document["paths"].values() for each in path.values()]
    sent = _reachable(schemas, (each.get("requestBody") for each in operations))
    received = _reachable(schemas, (each["responses"] for each in operations))
    for name in sorted(sent):
        _tell_defaults(schemas[name])
        _tell_limits(schemas[name])
    for name in sorted(received - sent - {ProblemDetails.__name__, FieldProblem.__name__}):
        if "properties" in schemas[name]:
            schemas[name]["required"] = list(schemas[name]["properties"])
    return document


def _tags(routes: Iterable[Route]) -> Iterator[dict[str, str]]:
    seen = set[str]()
    for route in routes:
        if tag(route) not in seen:
            seen.add(tag(route))
            words = (sys.modules[route.endpoint.__module__].__doc__ or "").strip()
            yield {"name": tag(route), "description": words}


def _reachable(schemas: Mapping[str, Any], parts: Iterable[Any]) -> set[str]:
    """Names of the schemas that the parts refer to, also through others."""
    names = set[str]()
    waiting = list(parts)
    while waiting:
        for name in _references(waiting.pop()):
            if name not in names:
                names.add(name)
                waiting.append(schemas[name])
    return names


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        reference = part.get("$ref")
        if isinstance(reference, str) and reference.startswith(REFERENCE):
            yield reference.removeprefix(REFERENCE)
        for value in part.values():
            yield from _references(value)
    elif isinstance(part, list):
        for value in part:
            yield from _references(value)


def _tell_limits(part: Any) -> None:
    """Write down the limits of every body: whole numbers that each JSON parser reads exactly, text without
    NUL."""
    if isinstance(part, list):
        for each in part:
            _tell_limits(each)
    if not isinstance(part, dict):
        return
    if part.get("type") == "integer":
        if not {"maximum", "exclusiveMaximum"} & part.keys():
            part["maximum"] = MAX_INTEGER
        if not {"minimum", "exclusiveMinimum"} & part.keys():
            part["minimum"] = -MAX_INTEGER
    if part.get("type") == "string" and not {"pattern", "format", "enum", "const"} & part.keys():
        part["pattern"] = WITHOUT_NUL
    for value in part.values():
        _tell_limits(value)


def _tell_defaults(schema: dict[str, Any]) -> None:
    for field in schema.get("properties", {}).values():
        # place in a form of Prefect
        field.pop("position", None)
        if "default" not in field:
            continue
        default = field.pop("default")
        if default is None:
            # told by the field's own words
            continue
        value = "the owner of the token" if default == NOBODY else json.dumps(default)
        sentence = f"Default: {value}."
        words = field.get("description", "").rstrip()
        field["description"] = f"{words}{'' if words.endswith('.') or not words else '.'} {sentence}".strip()
