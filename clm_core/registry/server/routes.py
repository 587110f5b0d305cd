"""Routes of MLflow's server: the role that each takes, and the fields that a request may contain.

A route that is missing from `ROUTES` is refused to everybody. `REFUSED` names the families that are refused
on purpose, so that a test finds the routes of a newer MLflow that nobody has judged. The registry is written
by CLM alone, straight in the database: over HTTP nobody creates, renames or deletes a registered model or a
version, moves an alias, changes a stage, chooses a location or uploads a file.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum, auto

from clm_core.domain.vocabulary import Role


class AnswerHandling(StrEnum):
    """Treatment of an answer of MLflow."""

    JSON = auto()
    """Locations of artifacts are shown as addresses of this server."""
    FILE = auto()
    """Passed on byte for byte."""
    ARTIFACT = auto()
    """Like FILE, but a page of the reports gets its chart library."""
    ALIAS = auto()
    """Version behind an alias: `production` is compared with the ledger."""


class BodyCheck(StrEnum):
    """Condition on the body of a write, beside its fields; see `writes`."""

    TAG = auto()
    """The tags of CLM and of MLflow itself are left alone."""
    OWN_RUN = auto()
    """The run belongs to another experiment than CLM's."""
    OWN_EXPERIMENT = auto()
    """The experiment is another than CLM's."""
    FREE_NAME = auto()
    """The new name of an experiment is not the name of CLM's."""
    QUERY = auto()
    """GraphQL: every operation is a query."""


@dataclass(frozen=True)
class MLflowRoute:
    """Method of a path."""

    method: str
    path: str
    """Template: `<name>` stands for one segment, `<path:name>` for several."""
    role: Role
    answer: AnswerHandling = AnswerHandling.JSON
    fields: frozenset[str] | None = None
    """Fields allowed in the JSON body of a write; None for a route of readers."""
    checks: tuple[BodyCheck, ...] = ()

    @property
    def has_checked_body(self) -> bool:
        return self.fields is not None


OPEN = frozenset({"/health", "/version"})
"""Paths that answer without a credential."""


def _paths(path: str) -> tuple[str, ...]:
    """Paths of a route for programs and for MLflow's pages."""
    return (f"/api/{path}", f"/ajax-api/{path}") if path[0].isdigit() else (path,)


def _reading(method: str, paths: str, answer: AnswerHandling = AnswerHandling.JSON) -> Iterator[MLflowRoute]:
    for path in paths.split():
        for spelled in _paths(path):
            yield MLflowRoute(method, spelled, Role.VIEWER, answer)


def _writing(method: str, path: str, fields: str, *checks: BodyCheck) -> Iterator[MLflowRoute]:
    for spelled in _paths(path):
        yield MLflowRoute(method, spelled, Role.OPERATOR, fields=frozenset(fields.split()), checks=checks)


_READ_BY_GET = """
    2.0/mlflow/artifacts/list
    2.0/mlflow/experiments/get
    2.0/mlflow/experiments/get-by-name
    2.0/mlflow/experiments/search
    2.0/mlflow/logged-models/<id>
    2.0/mlflow/logged-models/<id>/artifacts/directories
    2.0/mlflow/metrics/get-history
    2.0/mlflow/metrics/get-history-bulk
    2.0/mlflow/metrics/get-history-bulk-interval
    2.0/mlflow/model-versions/get
    2.0/mlflow/model-versions/get-download-uri
    2.0/mlflow/model-versions/search
    2.0/mlflow/registered-models/get
    2.0/mlflow/registered-models/get-latest-versions
    2.0/mlflow/registered-models/search
    2.0/mlflow/runs/get
    2.0/mlflow/traces
    2.0/mlflow/traces/<id>/info
    2.0/mlflow-artifacts/artifacts
    3.0/mlflow/datasets/<id>
    3.0/mlflow/datasets/<id>/experiment-ids
    3.0/mlflow/datasets/<id>/records
    3.0/mlflow/datasets/search
    3.0/mlflow/issues/<id>
    3.0/mlflow/label-schemas/get
    3.0/mlflow/label-schemas/get-by-name
    3.0/mlflow/label-schemas/list
    3.0/mlflow/scorers/get
    3.0/mlflow/scorers/list
    3.0/mlflow/scorers/online-configs
    3.0/mlflow/scorers/versions
    3.0/mlflow/server-info
    3.0/mlflow/traces/<id>
    3.0/mlflow/traces/<id>/assessments/<assessment>
    3.0/mlflow/traces/batchGet
    3.0/mlflow/traces/get
    3.0/mlflow/ui-telemetry
    3.0/mlflow/workspaces
    3.0/mlflow/workspaces/<name>
"""
_READ_BY_POST = """
    2.0/mlflow/experiments/search
    2.0/mlflow/experiments/search-datasets
    2.0/mlflow/logged-models/search
    2.0/mlflow/registered-models/get-latest-versions
    2.0/mlflow/runs/search
    3.0/mlflow/datasets/search
    3.0/mlflow/issues/search
    3.0/mlflow/traces/batchGetInfos
    3.0/mlflow/traces/calculate-filter-correlation
    3.0/mlflow/traces/metrics
    3.0/mlflow/traces/search
"""
_FILES = """
    /
    /static-files/<path:path>
    2.0/mlflow-artifacts/artifacts/<path:path>
    2.0/mlflow/get-trace-artifact
    3.0/mlflow/get-trace-artifact
    2.0/mlflow/logged-models/<id>/artifacts/files
"""

ROUTES: tuple[MLflowRoute, ...] = (
    *_reading("GET", _READ_BY_GET),
    *_reading("POST", _READ_BY_POST),
    *_reading("GET", _FILES, AnswerHandling.FILE),
    *_reading("GET", "/get-artifact /model-versions/get-artifact", AnswerHandling.ARTIFACT),
    *_reading("GET", "2.0/mlflow/registered-models/alias", AnswerHandling.ALIAS),
    MLflowRoute(
        "POST",
        "/graphql",
        Role.VIEWER,
        fields=frozenset({"query", "variables", "operationName"}),
        checks=(BodyCheck.QUERY,),
    ),
    # notes and tags
    *_writing("PATCH", "2.0/mlflow/registered-models/update", "name description"),
    *_writing("POST", "2.0/mlflow/registered-models/set-tag", "name key value", BodyCheck.TAG),
    *_writing("DELETE", "2.0/mlflow/registered-models/delete-tag", "name key", BodyCheck.TAG),
    *_writing("PATCH", "2.0/mlflow/model-versions/update", "name version description"),
    *_writing("POST", "2.0/mlflow/model-versions/set-tag", "name version key value", BodyCheck.TAG),
    *_writing("DELETE", "2.0/mlflow/model-versions/delete-tag", "name version key", BodyCheck.TAG),
    *_writing("POST", "2.0/mlflow/experiments/set-experiment-tag", "experiment_id key value", BodyCheck.TAG),
    *_writing("POST", "2.0/mlflow/experiments/delete-experiment-tag", "experiment_id key", BodyCheck.TAG),
    *_writing("POST", "2.0/mlflow/runs/set-tag", "run_id run_uuid key value", BodyCheck.TAG),
    *_writing("POST", "2.0/mlflow/runs/delete-tag", "run_id key", BodyCheck.TAG),
    # experiments of the users, without files
    *_writing("POST", "2.0/mlflow/experiments/create", "name tags", BodyCheck.FREE_NAME),
    *_writing(
        "POST",
        "2.0/mlflow/experiments/update",
        "experiment_id new_name",
        BodyCheck.OWN_EXPERIMENT,
        BodyCheck.FREE_NAME,
    ),
    *_writing("POST", "2.0/mlflow/experiments/delete", "experiment_id", BodyCheck.OWN_EXPERIMENT),
    *_writing("POST", "2.0/mlflow/experiments/restore", "experiment_id", BodyCheck.OWN_EXPERIMENT),
    *_writing(
        "POST",
        "2.0/mlflow/runs/create",
        "experiment_id user_id run_name start_time tags",
        BodyCheck.OWN_EXPERIMENT,
    ),
    *_writing(
        "POST", "2.0/mlflow/runs/update", "run_id run_uuid status end_time run_name", BodyCheck.OWN_RUN
    ),
    *_writing("POST", "2.0/mlflow/runs/delete", "run_id", BodyCheck.OWN_RUN),
    *_writing("POST", "2.0/mlflow/runs/restore", "run_id", BodyCheck.OWN_RUN),
    *_writing(
        "POST", "2.0/mlflow/runs/log-metric", "run_id run_uuid key value timestamp step", BodyCheck.OWN_RUN
    ),
    *_writing("POST", "2.0/mlflow/runs/log-parameter", "run_id run_uuid key value", BodyCheck.OWN_RUN),
    *_writing("POST", "2.0/mlflow/runs/log-batch", "run_id metrics params tags", BodyCheck.OWN_RUN),
    *_writing("POST", "2.0/mlflow/runs/log-inputs", "run_id datasets", BodyCheck.OWN_RUN),
)
"""Routes that answer. `login` adds pages of its own under /clm/."""

REFUSED: tuple[tuple[str, str], ...] = (
    # the registry and its files are CLM's
    ("POST", "2.0/mlflow/(registered-models/(create|rename|alias)|model-versions/(create|transition-stage))"),
    ("DELETE", "2.0/mlflow/(registered-models/(delete|alias)|model-versions/delete)"),
    ("POST", "2.0/mlflow/logged-models(/[^/]+/params)?"),
    ("PATCH", "2.0/mlflow/logged-models/[^/]+(/tags)?"),
    ("DELETE", "2.0/mlflow/logged-models/[^/]+(/tags/[^/]+)?"),
    ("POST", "2.0/mlflow/runs/(log-model|outputs|create-promptlab-run)"),
    ("PUT|DELETE", "2.0/mlflow-artifacts/artifacts/.+"),
    ("POST", "2.0/mlflow-artifacts/mpu/.+"),
    ("GET", "2.0/mlflow-artifacts/presigned/.+"),
    ("POST", "2.0/mlflow/(artifacts/presigned-(download|upload)-url|upload-artifact)"),
    ("GET", "/build/.+"),
    # requests that the server would send, and code that it would run
    (".*", "2.0/mlflow/webhooks(/.+)?"),
    (".*", "2.0/mlflow/gateway-proxy"),
    (".*", "3.0/mlflow/(gateway|jobs|prompt-optimization|assistant|demo|mcp-servers)(/.*)?"),
    (".*", "3.0/jobs(/.*)?"),
    (".*", "/gateway/.+"),
    ("POST", "3.0/mlflow/(genai/evaluate|issues|scorer)/invoke"),
    ("POST", "3.0/mlflow/ui-telemetry"),
    ("GET", "/graphql"),
    # language-model traces and their reviews, which trading models do not have
    ("POST", "/v1/traces"),
    (
        "POST|PATCH|DELETE",
        "[23].0/mlflow/traces(/[^/]+(/tags)?|/delete-traces|/link-prompts|/link-to-run)?",
    ),
    ("POST|PATCH|DELETE", "3.0/mlflow/traces/[^/]+/assessments(/[^/]+)?"),
    (".*", "3.0/mlflow/review-queues/.+"),
    ("POST|PATCH|DELETE", "3.0/mlflow/label-schemas/.+"),
    ("POST|PUT|DELETE", "3.0/mlflow/scorers/.+"),
    ("POST|PATCH", "3.0/mlflow/issues(/[^/]+)?"),
    ("POST|PATCH|DELETE", "3.0/mlflow/datasets/.+"),
    ("POST|PATCH|DELETE", "3.0/mlflow/workspaces(/[^/]+)?"),
    # never implemented by MLflow's own server
    ("GET", "2.0/mlflow/(get-online-trace-details|unified-traces)"),
    ("POST", "2.0mlflow/experiments/search-datasets"),
)
"""Families of routes that are refused on purpose: patterns of methods and of paths."""


def find(method: str, path: str) -> MLflowRoute | None:
    """MLflowRoute of a request; None: the request is refused.

    Args:
        path: decoded path, as MLflow's router reads it.
    """
    if not is_plain(path):
        return None
    return _EXACT.get((method, path)) or next(
        (route for pattern, route in _PATTERNS if route.method == method and pattern.fullmatch(path)), None
    )


def is_plain(path: str) -> bool:
    """True for a path with one spelling: no empty or dotted segment, no backslash, `;`, `%` or control
    character."""
    if path == "/":
        return True
    segments = path.split("/")[1:]
    return (
        path.startswith("/")
        and not any(segment in {"", ".", ".."} for segment in segments)
        and not any(character in "\\;%" or not character.isprintable() for character in path)
    )


def is_refused(method: str, path: str) -> bool:
    """True for a route of a family refused on purpose."""
    return any(
        re.fullmatch(methods, method) and re.fullmatch(_refused_paths(family), path)
        for methods, family in REFUSED
    )


def _refused_paths(family: str) -> str:
    return family if family.startswith("/") else f"/(ajax-)?api/{family}"


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"(<[^>]+>)", template)
    return re.compile("".join(_part(part) for part in parts))


def _part(part: str) -> str:
    if not part.startswith("<"):
        return re.escape(part)
    return ".+" if part.startswith("<path:") else "[^/]+"


def _by_pattern(routes: Iterable[MLflowRoute]) -> tuple[tuple[re.Pattern[str], MLflowRoute], ...]:
    return tuple((_pattern(route.path), route) for route in routes if "<" in route.path)


_EXACT = {(route.method, route.path): route for route in ROUTES if "<" not in route.path}
_PATTERNS = _by_pattern(ROUTES)
