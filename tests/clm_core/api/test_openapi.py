"""The OpenAPI description as a contract for generated clients."""

import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator

from clm_core.api import description
from clm_core.api.description import ProblemDetails
from clm_core.domain.vocabulary import Role
from clm_core.services import Services

Client = Callable[[Role | None], TestClient]


@pytest.fixture(scope="module")
def document(api: FastAPI) -> dict[str, Any]:
    return api.openapi()


def operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from path.values()


def test_operations_have_short_names_and_a_group_with_words(document: dict[str, Any]) -> None:
    names = [each["operationId"] for each in operations(document)]
    assert len(names) == len(set(names)) > 50
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+){0,3}", name) for name in names)
    groups = {each["name"]: each["description"] for each in document["tags"]}
    assert {tag for each in operations(document) for tag in each["tags"]} == set(groups)
    assert all(groups.values())
    assert document["servers"] == [{"url": "/"}]


def test_a_request_may_leave_out_every_field_with_a_default(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    train = schemas["TrainRequest"]
    assert train["required"] == ["model_type", "symbol"]
    assert 'Default: "1h".' in train["properties"]["timeframe"]["description"]
    assert "Default: the owner of the token." in train["properties"]["requested_by"]["description"]
    bodies = [each["requestBody"] for each in operations(document) if "requestBody" in each]
    sent = description._reachable(schemas, bodies)
    fields = [(name, field) for name in sent for field in schemas[name].get("properties", {}).items()]
    assert [(name, field) for name, (field, facts) in fields if "default" in facts] == []


def test_a_request_states_the_limits_of_every_body(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    seed, symbol = (schemas["TrainRequest"]["properties"][name] for name in ("seed", "symbol"))
    assert (seed["minimum"], seed["maximum"]) == (0, 2**53)
    assert (symbol["minLength"], symbol["pattern"]) == (1, "^[^\\x00]*$")
    listed = document["paths"]["/clm/models"]["get"]["parameters"]
    lengths = {each["name"]: each["schema"].get("minLength") for each in listed}
    assert (lengths["symbol"], lengths["after"]) == (1, 1)


def test_a_response_has_every_field(document: dict[str, Any]) -> None:
    job = document["components"]["schemas"]["TrainingJob"]
    assert set(job["required"]) == set(job["properties"])


@pytest.mark.parametrize(
    ("method", "path", "body", "more"),
    [
        ("POST", "/clm/train", {"model_type": 7}, {"errors"}),
        ("GET", "/clm/jobs?since=0.5", None, {"errors"}),
        ("GET", f"/clm/jobs/{UUID(int=9)}", None, set()),
        ("PATCH", "/clm/jobs", None, set()),
    ],
    ids=["an invalid body", "an invalid query", "not found", "another method"],
)
def test_a_problem_is_as_described(
    method: str, path: str, body: Any, more: set[str], client: Client, document: dict[str, Any]
) -> None:
    answer = client(Role.ADMIN).request(method, path, json=body)
    problem = answer.json()
    schema = {"$ref": "#/components/schemas/ProblemDetails", "components": document["components"]}
    Draft202012Validator(schema).validate(problem)
    assert set(problem) == {"type", "title", "status", "detail"} | more
    assert set(problem) <= set(ProblemDetails.model_fields)


@pytest.mark.parametrize("sent", [{"seed": 1}, {"requested_by": "unknown"}, {"requested_by": ""}], ids=str)
def test_a_default_that_a_generated_client_sends_is_no_name(
    sent: dict[str, str], client: Client, services: Services
) -> None:
    body = {"model_type": "xgboost", "symbol": "BTCUSD", "seed": 4711 + len(str(sent)), **sent}
    answer = client(Role.OPERATOR).post("/clm/train", json=body)
    assert answer.status_code == 202, answer.text
    job = services.ledger.job(UUID(answer.json()["job_id"]))
    client(Role.OPERATOR).post(f"/clm/jobs/{job.id}/cancel")
    assert job.requested_by == "operator"
