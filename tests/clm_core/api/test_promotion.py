from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from fastapi.testclient import TestClient

from clm_core.domain.explanations import Section, VersionExplanation
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import Role
from clm_core.retraining.explaining import explanation_file
from clm_core.services import Services

Client = Callable[[Role | None], TestClient]
MakeVersion = Callable[..., ModelVersion]


def test_the_promotion_of_the_interface_s_description_works_as_it_stands(
    client: Client, make_version: MakeVersion, services: Services
) -> None:
    make_version("xgboost_btcusdt_1h", now=datetime(2025, 12, 4, 14, 30, 22, tzinfo=UTC))
    body = {
        "model_id": "xgboost_btcusdt_1h",
        "version": "v20251204_143022",
        "promoted_by": "admin@quantum.io",
        "reason": "Passed shadow testing with 1.8 Sharpe",
    }
    answer = client(Role.OPERATOR).post("/clm/promote", json=body)
    assert answer.status_code == 200
    done = answer.json()
    assert (done["actor"], done["role"], done["said_by"]) == ("operator", "operator", "admin@quantum.io")
    assert (done["state"], done["to_version"], done["reason"]) == (
        "committed",
        body["version"],
        body["reason"],
    )
    [entry] = [
        entry
        for entry in services.ledger.audit_after(0, 10**6)
        if (entry.action, entry.subject) == ("promotion_committed", body["model_id"])
    ]
    assert (entry.actor, entry.details["said_by"]) == ("operator", "admin@quantum.io")
    serving = client(Role.VIEWER).get("/clm/status").json()["production"]
    assert [each["to_version"] for each in serving if each["model_id"] == body["model_id"]] == [
        body["version"]
    ]


def test_a_rollback_returns_to_the_version_before(
    client: Client, make_version: MakeVersion, model_id: str
) -> None:
    first, second = (make_version(model_id).version for _ in range(2))
    for version in (first, second):
        body = {"model_id": model_id, "version": version}
        assert client(Role.OPERATOR).post("/clm/promote", json=body).status_code == 200
    back = {"model_id": model_id, "expected_champion": second, "reason": "drawdown"}
    assert client(Role.OPERATOR).post("/clm/rollback", json=back).json()["to_version"] == first
    # the champion it expects is gone
    stale = client(Role.OPERATOR).post("/clm/rollback", json=back)
    assert (stale.status_code, stale.json()["type"]) == (409, "urn:clm:problem:conflict-error")


def test_a_halt_takes_the_production_version_away_and_needs_a_reason(
    client: Client, make_version: MakeVersion, model_id: str
) -> None:
    version = make_version(model_id).version
    promote = {"model_id": model_id, "version": version}
    assert client(Role.OPERATOR).post("/clm/promote", json=promote).status_code == 200
    assert client(Role.OPERATOR).post("/clm/halt", json={"model_id": model_id}).status_code == 422
    halt = {"model_id": model_id, "reason": "exchange down", "expected_champion": version}
    assert client(Role.VIEWER).post("/clm/halt", json=halt).status_code == 403
    answer = client(Role.OPERATOR).post("/clm/halt", json=halt).json()
    assert (answer["kind"], answer["from_version"], answer["to_version"]) == ("halt", version, None)
    assert client(Role.OPERATOR).post("/clm/halt", json=halt).status_code == 409


def test_null_requires_no_production_version_and_omission_requires_nothing(
    client: Client, make_version: MakeVersion, model_id: str
) -> None:
    first, second = (make_version(model_id).version for _ in range(2))
    answers = [
        client(Role.OPERATOR).post("/clm/promote", json={"model_id": model_id, "version": version} | expected)
        for version, expected in (
            (first, {"expected_champion": None}),
            (second, {"expected_champion": None}),
            (second, {}),
        )
    ]
    assert [answer.status_code for answer in answers] == [200, 409, 200]


def test_a_version_that_failed_its_gate_is_refused_and_only_an_admin_can_force_it(
    client: Client, make_version: MakeVersion, model_id: str
) -> None:
    body = {"model_id": model_id, "version": make_version(model_id, sharpe=0.1).version}
    refused = client(Role.OPERATOR).post("/clm/promote", json=body)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:clm:problem:promotion-refused")
    assert refused.json()["reasons"] == [
        "the status is failed, not candidate or shadow",
        "the version did not pass the gate",
    ]
    forced = body | {"force": True, "reason": "the desk wants it"}
    assert client(Role.OPERATOR).post("/clm/promote", json=forced).status_code == 403
    assert client(Role.ADMIN).post("/clm/promote", json=body | {"force": True}).status_code == 403
    done = client(Role.ADMIN).post("/clm/promote", json=forced).json()
    assert (done["forced"], done["actor"]) == (True, "admin")


def test_a_version_has_its_lineage_and_evaluation(
    client: Client, make_version: MakeVersion, model_id: str, services: Services
) -> None:
    version = make_version(model_id)
    address = f"/clm/models/{model_id}/versions/{version.version}"
    details = client(Role.VIEWER).get(address).json()
    assert details["version"]["bundle_digest"] == version.bundle_digest
    assert details["job"]["id"] == str(version.training_job_id)
    assert (details["verdict"]["decision"], details["evaluation"]["trades"]) == ("pass", 120)
    assert details["verdict"]["legs"] == details["verdict"]["checks"]
    assert client(Role.VIEWER).get(f"{address}/report").status_code == 404
    page = services.reports / model_id / f"{version.version}.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("<h1>tear sheet</h1>")
    report = client(Role.VIEWER).get(f"{address}/report")
    assert (report.status_code, report.text) == (200, "<h1>tear sheet</h1>")
    assert "sandbox allow-scripts" in report.headers["content-security-policy"]
    assert "connect-src" not in report.headers["content-security-policy"]


def test_the_explanation_of_a_version_is_the_stored_one(
    client: Client, make_version: MakeVersion, model_id: str, services: Services
) -> None:
    version = make_version(model_id)
    address = f"/clm/models/{model_id}/versions/{version.version}"
    missing = client(Role.VIEWER).get(f"{address}/explanation")
    assert missing.status_code == 404
    assert f"clm explain {model_id}@{version.version}" in missing.text
    file = explanation_file(services.reports, model_id, version.version)
    section = Section(name="features", title="Features", sentences=("None.",))
    stored = VersionExplanation(model_id=model_id, version=version.version, sections=(section,))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(stored.model_dump_json(), encoding="utf-8")
    answer = client(Role.VIEWER).get(f"{address}/explanation")
    assert VersionExplanation.model_validate(answer.json()) == stored


@pytest.mark.parametrize(
    "address",
    [
        "..%2f..%2fetc/versions/v20200101_000000/report",
        "x/versions/..%2f..%2fpasswd/report",
        "%2e%2e/versions/x",
    ],
)
def test_no_path_leaves_the_folder_of_reports(address: str, client: Client) -> None:
    assert client(Role.VIEWER).get(f"/clm/models/{address}").status_code in {404, 422}


def test_a_version_is_retired_and_stays_retired(
    client: Client, make_version: MakeVersion, model_id: str
) -> None:
    version = make_version(model_id).version
    body = {"model_id": model_id, "version": version, "reason": "superseded"}
    assert client(Role.VIEWER).post("/clm/retire", json=body).status_code == 403
    for _ in range(2):
        assert client(Role.OPERATOR).post("/clm/retire", json=body).json()["status"] == "retired"
    champion = make_version(model_id).version
    client(Role.OPERATOR).post("/clm/promote", json={"model_id": model_id, "version": champion})
    serving = client(Role.OPERATOR).post("/clm/retire", json=body | {"version": champion})
    assert (serving.status_code, serving.json()["type"]) == (409, "urn:clm:problem:illegal-transition")


def test_an_admin_extends_a_forced_promotion(
    client: Client, make_version: MakeVersion, model_id: str
) -> None:
    version = make_version(model_id, sharpe=0.1).version
    confirm = {"model_id": model_id, "days": 30, "reason": "exchange audit"}
    assert client(Role.ADMIN).post("/clm/confirm", json=confirm).status_code == 404
    force = {"model_id": model_id, "version": version, "force": True, "reason": "launch"}
    forced = client(Role.ADMIN).post("/clm/promote", json=force).json()
    assert client(Role.OPERATOR).post("/clm/confirm", json=confirm).status_code == 403
    extended = client(Role.ADMIN).post("/clm/confirm", json=confirm).json()
    assert (extended["id"], extended["forced"]) == (forced["id"], True)
    assert extended["expires_at"] > forced["expires_at"]
