"""Judgement of every route of the installed MLflow, and paths with several spellings."""

import pytest

from clm_core.domain.vocabulary import Role
from clm_core.registry.server import routes
from clm_core.registry.server.routes import OPEN, AnswerHandling


def installed() -> set[tuple[str, str]]:
    """Method and template of every route of MLflow's server: FastAPI's, and those of Flask behind it."""
    from mlflow.server import app as flask
    from mlflow.server.fastapi_app import app as fastapi

    routes = {
        (method.upper(), path) for path, methods in fastapi.openapi()["paths"].items() for method in methods
    }
    for rule in flask.url_map.iter_rules():
        routes |= {(method, rule.rule) for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}
    return routes


def example(template: str) -> str:
    """Path of a template, with a name for every part that varies."""
    parts = template.replace("{", "<").replace("}", ">").split("<")
    return parts[0] + "".join("name" + part.partition(">")[2] for part in parts[1:])


def test_every_route_of_the_installed_mlflow_is_allowed_or_refused_on_purpose() -> None:
    routes_of_mlflow = installed()
    assert len(routes_of_mlflow) > 400
    unjudged = {
        (method, path)
        for method, path in routes_of_mlflow
        if path not in OPEN
        and routes.find(method, example(path)) is None
        and not routes.is_refused(method, example(path))
    }
    assert unjudged == set()


def test_every_allowed_route_exists_in_the_installed_mlflow() -> None:
    # some exist for MLflow's pages alone, under /ajax-api
    served = {(method, example(path).replace("/ajax-api/", "/api/")) for method, path in installed()}
    missing = {
        (route.method, route.path)
        for route in routes.ROUTES
        if (route.method, example(route.path).replace("/ajax-api/", "/api/")) not in served
    }
    assert missing == set()


@pytest.mark.parametrize(
    "path",
    [
        "//get-artifact",
        "/get-artifact/",
        "/./get-artifact",
        "/x/../get-artifact",
        "/get-artifact;x",
        "/get-artifact%00",
        "/%67et-artifact",
        "/get-artifact\\",
        "/get-artifact\n",
        "get-artifact",
        "/GET-ARTIFACT",
        "/static-files/../get-artifact",
        "/static-files//etc/passwd",
        "/api/2.0/mlflow-artifacts/artifacts/../../x",
        "",
    ],
)
def test_another_spelling_of_a_path_is_no_route(path: str) -> None:
    assert routes.find("GET", path) is None


def test_a_viewer_only_reads() -> None:
    for_viewers = [route for route in routes.ROUTES if route.role is Role.VIEWER]
    # graphql answers queries alone
    assert {route.path for route in for_viewers if route.has_checked_body} == {"/graphql"}
    assert {route.method for route in for_viewers} == {"GET", "POST"}


def test_artifacts_are_passed_on_byte_for_byte() -> None:
    # a changed byte would be refused by the digest of the version
    route = routes.find("GET", "/api/2.0/mlflow-artifacts/artifacts/models/m-1/artifacts/MLmodel")
    assert route is not None
    assert route.answer is AnswerHandling.FILE
