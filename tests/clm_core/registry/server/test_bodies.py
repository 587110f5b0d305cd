"""Fields and tags that a request to MLflow may contain."""

import json
from typing import Any

import pytest

from clm_core.domain.errors import NotAllowed
from clm_core.registry.server import routes
from clm_core.registry.server.bodies import MalformedBody, checked

RUNS = {"of-clm": "clm", "of-ada": "ada's research"}
EXPERIMENTS = {"0": "Default", "1": "clm", "2": "ada's research"}


class Stored:
    def experiment(self, experiment_id: str) -> str | None:
        return EXPERIMENTS.get(experiment_id)

    def experiment_of_run(self, run_id: str) -> str | None:
        return RUNS.get(run_id)


def check(path: str, body: Any, method: str = "POST") -> dict[str, Any]:
    route = routes.find(method, f"/api/2.0/mlflow/{path}")
    assert route is not None
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    passed_on: dict[str, Any] = json.loads(checked(route, sent, Stored()))
    return passed_on


@pytest.mark.parametrize("field", ["artifact_location", "artifactLocation"])
def test_no_client_chooses_the_location_of_an_experiment(field: str) -> None:
    with pytest.raises(MalformedBody, match="CLM chooses the locations"):
        check("experiments/create", {"name": "x", field: "file:///etc"})


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b'"{\\"name\\": \\"x\\", \\"artifact_location\\": \\"file:///etc\\"}"',
        b'{"name": "x", "name": "y"}',
        b"name=x",
        b"\xff",
    ],
    ids=["list", "encoded twice", "a name twice", "form", "no text"],
)
def test_a_body_that_mlflow_might_read_otherwise_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        check("experiments/create", body)


@pytest.mark.parametrize(
    "key", ["clm.status", "clm.bundle_digest", " CLM.status", "mlflow.prompt.is_prompt", "clm."]
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "model-versions/set-tag"),
        ("DELETE", "model-versions/delete-tag"),
        ("POST", "registered-models/set-tag"),
        ("DELETE", "registered-models/delete-tag"),
        ("POST", "runs/set-tag"),
        ("POST", "runs/delete-tag"),
        ("POST", "experiments/set-experiment-tag"),
        ("POST", "experiments/delete-experiment-tag"),
    ],
)
def test_tags_of_clm_and_mlflow_are_left_alone(method: str, path: str, key: str) -> None:
    with pytest.raises(NotAllowed, match="belongs to CLM or MLflow"):
        check(path, {"key": key}, method)


def test_the_tag_that_requests_a_retrain_and_tags_of_users_are_accepted() -> None:
    for key in ("clm.retrain", "mlflow.note.content", "desk"):
        body = {"name": "xgboost_btcusd_1h", "version": "1", "key": key, "value": "yes"}
        assert check("model-versions/set-tag", body) == body


def test_users_write_runs_of_their_own_experiments() -> None:
    body = {"run_id": "of-ada", "metrics": [{"key": "loss", "value": 1.0, "timestamp": 0, "step": 0}]}
    assert check("runs/log-batch", body) == body
    body = {"experiment_id": "2", "tags": [{"key": "mlflow.runName", "value": "first"}]}
    assert check("runs/create", body) == body


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("runs/log-batch", {"run_id": "of-clm"}),
        ("runs/log-metric", {"run_id": "of-ada", "run_uuid": "of-clm", "key": "x"}),
        ("runs/log-parameter", {"run_uuid": "of-clm", "key": "x"}),
        ("runs/update", {"run_id": "of-clm", "status": "RUNNING"}),
        ("runs/delete", {"run_id": "of-clm"}),
        ("runs/create", {"experiment_id": "1"}),
        ("runs/create", {"experiment_id": "2", "tags": [{"key": "clm.job_id", "value": "x"}]}),
        ("runs/log-batch", {"run_id": "of-ada", "tags": [{"key": "clm.job_id", "value": "x"}]}),
        ("experiments/delete", {"experiment_id": "1"}),
        ("experiments/update", {"experiment_id": "1", "new_name": "mine"}),
        ("experiments/update", {"experiment_id": "2", "new_name": "clm"}),
        ("experiments/create", {"name": "clm "}),
    ],
)
def test_runs_and_the_experiment_of_clm_are_written_by_clm_alone(path: str, body: dict[str, Any]) -> None:
    with pytest.raises(NotAllowed):
        check(path, body)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("runs/log-batch", {"run_id": "of-ada", "metrics": [{"key": "x", "model_id": "m-1"}]}),
        ("runs/log-batch", {"run_id": "of-ada", "metrics": "x"}),
        ("runs/log-metric", {"run_id": "of-ada", "key": "x", "model_id": "m-1"}),
        ("runs/log-inputs", {"run_id": "of-ada", "models": [{"model_id": "m-1"}]}),
        ("runs/log-metric", {"key": "x"}),
        ("runs/log-metric", {"run_id": 7, "key": "x"}),
    ],
)
def test_a_run_writes_nothing_about_a_version(path: str, body: dict[str, Any]) -> None:
    with pytest.raises(MalformedBody):
        check(path, body)


def test_graphql_answers_queries_alone() -> None:
    route = routes.find("POST", "/graphql")
    assert route is not None
    query = {"query": 'query A { test(inputString: "x") { output } }', "operationName": "A"}
    assert json.loads(checked(route, json.dumps(query).encode(), Stored())) == query
    for document in ("mutation { x }", "query A { x } mutation B { x }", "subscription { x }"):
        with pytest.raises(NotAllowed, match="only queries"):
            checked(route, json.dumps({"query": document}).encode(), Stored())
    with pytest.raises(MalformedBody, match="cannot be read"):
        checked(route, b'{"query": "{"}', Stored())
