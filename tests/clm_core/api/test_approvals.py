from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from clm_core.domain.shadow_decisions import ShadowAction, ShadowDecision
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import Role
from clm_core.lifecycle import approvals
from clm_core.services import Services

Client = Callable[[Role | None], TestClient]
MakeVersion = Callable[..., ModelVersion]


@pytest.fixture
def waiting(services: Services, make_version: MakeVersion, model_id: str) -> str:
    """Label of a version that waits for an approval."""
    label = make_version(model_id).version
    decision = ShadowDecision(
        action=ShadowAction.PROMOTE,
        reasons=("120 trades confirm",),
        progress="60 of 60 days",
        waits_for="promotion = approval in the policy",
        needs_approval=True,
    )
    services.ledger.shadow_decisions.record(None, model_id, label, None, decision, services.clock())
    return label


def listed(client: Client, model_id: str) -> list[dict[str, object]]:
    answer = client(Role.VIEWER).get("/clm/approvals").json()
    return [each for each in answer if each["model_id"] == model_id]


def test_an_approval_is_listed_and_given(client: Client, waiting: str, model_id: str) -> None:
    [shown] = listed(client, model_id)
    assert (shown["version"], shown["champion"], shown["reasons"]) == (waiting, None, ["120 trades confirm"])
    address = f"/clm/approvals/{model_id}"
    body = {"version": waiting, "approve": True, "said_by": "ada"}
    stale = client(Role.OPERATOR).post(address, json=body | {"expected_champion": "v20200101_000000"})
    assert (stale.status_code, stale.json()["type"]) == (409, "urn:clm:problem:conflict-error")
    given = client(Role.OPERATOR).post(address, json=body)
    assert (given.status_code, given.json()["status"]) == (200, "production")
    assert listed(client, model_id) == []
    again = client(Role.OPERATOR).post(address, json=body)
    assert (again.status_code, again.json()["type"]) == (409, "urn:clm:problem:approval-refused")


def test_a_refusal_by_rest_needs_a_reason_and_retires(client: Client, waiting: str, model_id: str) -> None:
    address = f"/clm/approvals/{model_id}"
    body = {"version": waiting, "approve": False}
    assert client(Role.OPERATOR).post(address, json=body).status_code == 422
    refused = client(Role.OPERATOR).post(address, json=body | {"reason": "a fee error"})
    assert (refused.json()["approved"], refused.json()["status"]) == (False, "retired")


def test_a_promotion_by_rest_ends_the_alert_about_the_approval(
    client: Client, waiting: str, model_id: str, services: Services
) -> None:
    approvals.keep_forms(services)
    assert f"{model_id}@{waiting}" in [each.subject for each in services.alerts.lasting()]
    body = {"model_id": model_id, "version": waiting}
    assert client(Role.OPERATOR).post("/clm/promote", json=body).status_code == 200
    assert f"{model_id}@{waiting}" not in [each.subject for each in services.alerts.lasting()]
