import re
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from clm_core.api.app import create_app
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import Role
from clm_core.services import Services

Client = Callable[[Role | None], TestClient]
MakeVersion = Callable[..., ModelVersion]


@pytest.fixture(scope="module")
def client(wired: Services, services: Services, make_token: Callable[..., str]) -> Client:
    """Client under the shipped policy, which asks for evidence."""
    api = create_app(replace(wired, policies=services.policies))
    headers = {role: {"Authorization": f"Bearer {make_token(role, role.value)}"} for role in Role}
    return lambda role: TestClient(
        api, headers=None if role is None else headers[role], raise_server_exceptions=False
    )


@pytest.fixture(scope="module")
def btcusdt(services: Services, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("bars") / "btcusdt.csv"
    services.market.bars("BTCUSD", "1h", days=100, closed_by=services.clock()).to_frame().to_csv(
        file, index_label="timestamp"
    )
    services.market.import_file(Path(file), "BTCUSDT", "1h", now=services.clock())


def test_the_training_of_the_interface_s_description_works_as_it_stands(
    btcusdt: None, client: Client, services: Services
) -> None:
    body = {
        "model_type": "xgboost",
        "symbol": "BTCUSDT",
        "timeframe": "1h",
        "dataset_span_days": 90,
        "training_params": {"max_depth": 5},
    }
    answer = client(Role.OPERATOR).post("/clm/train", json=body)
    assert (answer.status_code, answer.json()["reply"]) == (202, "accepted")
    assert answer.json()["request"]["actor"] == {"name": "operator", "role": "operator"}
    window = answer.json()["evidence_window"]
    assert (window["days"], window["longer_days"]) == (90, 1825)
    assert window["required_sharpe"] > window["longer_sharpe"] > 1
    job = client(Role.VIEWER).get(f"/clm/jobs/{answer.json()['job_id']}").json()
    assert (job["status"], job["requested_by"]) == ("pending", "operator")
    # with the values of the time that later defaults must not change
    assert job["training_params"].keys() == {"max_depth", "label", "leaf_share", "sizing", "execution"}
    assert job["training_params"]["max_depth"] == 5
    again = client(Role.OPERATOR).post("/clm/train", json=body | {"requested_by": "the desk"})
    assert (again.status_code, again.json()["reply"]) == (202, "coalesced")
    assert again.json()["request"]["training"]["requested_by"] == "the desk"
    entry = next(
        entry
        for entry in reversed(services.ledger.audit_after(0, 10**6))
        if (entry.action, entry.subject) == ("job_created", job["id"])
    )
    assert (entry.actor, entry.role) == ("operator", "operator")


def test_a_rule_strategy_is_requested_by_name(btcusdt: None, client: Client) -> None:
    body = {"model_type": "momentum", "symbol": "BTCUSDT", "training_params": {"look_back": 50}}
    answer = client(Role.OPERATOR).post("/clm/train", json=body)
    assert (answer.status_code, answer.json()["reply"]) == (202, "accepted")
    job = client(Role.VIEWER).get(f"/clm/jobs/{answer.json()['job_id']}").json()
    assert (job["model_type"], job["plugin"]) == ("other", "momentum")
    assert job["training_params"].keys() == {"look_back", "sizing", "execution"}
    refused = client(Role.OPERATOR).post("/clm/train", json=body | {"training_params": {"stop_loss": 7}})
    assert refused.status_code == 422
    assert "stop_loss" in refused.text


@pytest.mark.parametrize(
    ("reason", "observed", "status"),
    [
        ("performance_degraded", None, 409),
        ("performance_degraded", {"sharpe_ratio": 0.8}, 409),
        ("performance_degraded", {"sharpe_ratio": -0.4}, 202),
        ("data_threshold", {"new_samples": 5}, 409),
        ("data_threshold", {"new_samples": 500}, 202),
        ("data_threshold", {"new_samples": -1}, 422),
        ("data_threshold", {"samples": 500}, 422),
    ],
)
def test_a_reason_that_rests_on_a_measurement_is_answered_by_the_observation(
    reason: str, observed: dict[str, float] | None, status: int, btcusdt: None, client: Client
) -> None:
    body = {"model_type": "patchtst", "symbol": "BTCUSDT", "trigger_reason": reason, "observed": observed}
    answer = client(Role.OPERATOR).post("/clm/train", json=body)
    assert answer.status_code == status
    if status == 202:
        assert observed is not None
        assert answer.json()["request"]["observed"].items() >= observed.items()


def test_a_repeated_request_is_answered_with_the_window_of_the_recorded_job(
    btcusdt: None, client: Client, services: Services
) -> None:
    body = {"model_type": "lightgbm", "symbol": "BTCUSDT", "dataset_span_days": 90}
    first = client(Role.OPERATOR).post("/clm/train", json=body)
    assert first.json()["reply"] == "accepted"
    # looks at the market ask more of every later job
    for _ in range(100):
        services.ledger.trials.begin(uuid.uuid4(), "BTCUSDT", "1h", 17_000, services.clock())
    for changes in ({}, {"dataset_span_days": 80, "trigger_reason": "periodic"}):
        again = client(Role.OPERATOR).post("/clm/train", json=body | changes)
        assert (again.status_code, again.json()["reply"]) == (202, "coalesced")
        assert again.json()["job_id"] == first.json()["job_id"]
        assert again.json()["evidence_window"] == first.json()["evidence_window"]


def test_a_window_too_short_for_the_kind_is_refused_with_the_days_to_request(
    btcusdt: None, client: Client
) -> None:
    body = {"model_type": "nhits", "symbol": "BTCUSDT", "dataset_span_days": 14}
    answer = client(Role.OPERATOR).post("/clm/train", json=body)
    assert answer.status_code == 422
    words = re.fullmatch(
        r"BTCUSDT 1h cannot be trained: A fit of nhits needs ([\d,]+) bars, and the shortest fold trains on "
        r"(\d+): pass --days (\d+) \(dataset_span_days\), and import older bars where the series is shorter",
        answer.json()["detail"],
    )
    assert words is not None
    needed, bars, days = (int(word.replace(",", "")) for word in words.groups())
    # 40 % of 14 days less the embargo
    assert bars == pytest.approx(134 - 24, abs=1)
    assert needed > bars
    assert days > 14


def test_a_pool_is_requested_with_its_symbols(btcusdt: None, client: Client, services: Services) -> None:
    body = {
        "model_type": "lightgbm",
        "symbol": "duo",
        "symbols": ["BTC/USDT", "BTCUSD"],
        "dataset_span_days": 90,
    }
    answer = client(Role.OPERATOR).post("/clm/train", json=body)
    assert (answer.status_code, answer.json()["reply"]) == (202, "accepted")
    assert answer.json()["evidence_window"]["days"] >= 90
    job = client(Role.VIEWER).get(f"/clm/jobs/{answer.json()['job_id']}").json()
    assert (job["symbol"], job["symbols"], len(job["data_snapshots"])) == ("DUO", ["BTCUSDT", "BTCUSD"], 2)
    assert answer.json()["model_id"] == "lightgbm_duo_1h"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"symbol": "DUO", "symbols": ["BTCUSDT"]}, "at least 2 symbols"),
        ({"symbol": "BTCUSD", "symbols": ["BTCUSDT", "BTCUSD"]}, "BTCUSD is a member of the pool"),
        ({"symbol": "EURUSD", "symbols": ["BTCUSDT", "BTCUSD"]}, "EURUSD is the symbol of a stored market"),
        ({"symbol": "PAIR", "symbols": ["BTCUSDT", "EURUSD"]}, "members of a pool share the calendar"),
        (
            {"symbol": "PAIR", "symbols": ["BTCUSDT", "BTCUSD"], "model_type": "rl_v3"},
            "choose one of xgboost",
        ),
    ],
    ids=["one symbol", "named like a member", "named like a market", "calendars", "kind"],
)
def test_a_pool_that_cannot_be_is_refused_with_the_reason(
    btcusdt: None, client: Client, body: dict[str, object], words: str
) -> None:
    request = {"model_type": "xgboost", "dataset_span_days": 90} | body
    answer = client(Role.OPERATOR).post("/clm/train", json=request)
    assert answer.status_code == 422
    assert words in answer.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"symbol": "NOSUCHTHING"}, "there is no series NOSUCHTHING", id="unknown-series"),
        pytest.param({"training_params": {"max_dept": 5}}, "max_depth", id="misspelt-parameter"),
        pytest.param({"model_type": "prophet"}, "body.model_type", id="unknown-type"),
        pytest.param({"dataset_span_days": 0}, "body.dataset_span_days", id="no-days"),
        pytest.param({"dataset_span_day": 90}, "body.dataset_span_day", id="misspelt-field"),
    ],
)
def test_an_invalid_request_to_train_is_refused_with_a_message(
    change: dict[str, object], words: str, client: Client
) -> None:
    body = {"model_type": "xgboost", "symbol": "BTCUSD"} | change
    answer = client(Role.OPERATOR).post("/clm/train", json=body)
    assert answer.status_code == 422
    assert words in answer.json()["detail"]


def test_versions_are_filtered_ordered_and_read_page_by_page(
    client: Client, make_version: MakeVersion, model_id: str
) -> None:
    day = datetime(2026, 1, 1, tzinfo=UTC)
    for number, sharpe in enumerate((1.5, 3.0, 0.2)):
        make_version(model_id, sharpe=sharpe, now=day + timedelta(days=number))
    query = {"model_id": model_id, "min_sharpe": "1", "order": "sharpe_ratio", "limit": "1"}
    first = client(Role.VIEWER).get("/clm/models", params=query).json()
    second = client(Role.VIEWER).get("/clm/models", params=query | {"after": first["next"]}).json()
    listed = [*first["items"], *second["items"]]
    assert [each["evaluation"]["sharpe_ratio"] for each in listed] == [3.0, 1.5]
    assert second["next"] is None
    other_list = client(Role.VIEWER).get("/clm/models", params={"after": first["next"]})
    assert (other_list.status_code, other_list.json()["type"]) == (422, "urn:clm:problem:invalid-cursor")
    since = {"model_id": model_id, "since": "2026-01-02", "until": "2026-01-03T00:00:00Z"}
    recent = client(Role.VIEWER).get("/clm/models", params=since).json()["items"]
    assert [each["version"]["version"] for each in recent] == ["v20260102_000000"]
    measured = {"model_id": model_id, "metric": ["auc>0.5", "trades>=10"]}
    assert client(Role.VIEWER).get("/clm/models", params=measured).json()["items"] == []


@pytest.mark.parametrize(
    "question", ["min_sharpe=nan", "sharpe=1", "since=2026-01-01T00:00:00", "limit=1001", "metric=auc"]
)
def test_an_invalid_query_is_refused(question: str, client: Client) -> None:
    assert client(Role.VIEWER).get(f"/clm/models?{question}").status_code == 422
