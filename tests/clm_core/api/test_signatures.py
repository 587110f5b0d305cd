"""Signatures of webhooks: accepted styles and refused forgeries."""

import base64
import hashlib
import hmac
import itertools
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from fastapi import Request
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from mlflow.webhooks.constants import (
    WEBHOOK_DELIVERY_ID_HEADER,
    WEBHOOK_SIGNATURE_HEADER,
    WEBHOOK_TIMESTAMP_HEADER,
)
from mlflow.webhooks.delivery import _generate_hmac_signature
from pydantic import SecretStr
from secret_servers import SecretServer
from sqlalchemy import Engine, text
from standardwebhooks import Webhook

from clm_core.api.app import create_app
from clm_core.api.signatures import github, sign, signed_with_time
from clm_core.domain.vocabulary import Role
from clm_core.domain.webhook_settings import signing_key
from clm_core.services import Services
from clm_core.settings import Settings
from clm_core.triggers.messages import DriftDetected, parse

Client = Callable[[Role | None], TestClient]
OLD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NEW = "whsec_plJ3nmyCDGBKInavdOK15jsl8nUjcLkM"
NOW = datetime(2026, 3, 4, 12, 0, 0, tzinfo=UTC)
DATA = b'{"model_type": "xgboost", "symbol": "NOSUCHTHING", "detector": "psi"}'
BODY = b'{"type": "model.drift_detected", "data": %s}' % DATA
FORGERIES = 2000 if "CHAOS_REPETITIONS" in os.environ else 300
SPELT = (b"+%s", b" %s.0", b"0x%s", b"%s000", b"-%s", b"%se0", b"nan", b"", b"\xd9\xa3")


@pytest.fixture(scope="module")
def secrets_of(wired: Services) -> tuple[str, ...]:
    return tuple(secret.get_secret_value() for secret in wired.settings.webhooks["monitor"].secrets)


@pytest.fixture(scope="module")
def receiver(wired: Services) -> TestClient:
    """At noon."""
    return TestClient(create_app(replace(wired, clock=lambda: NOW)), raise_server_exceptions=False)


def signed(secret: str, message_id: str, at: datetime = NOW, body: bytes = BODY) -> dict[str, str]:
    """Headers signed by the reference library."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, at, body.decode()),
        "Content-Type": "application/json",
    }


def test_the_published_example_is_signed_as_published() -> None:
    # https://docs.svix.com/receiving/verifying-payloads/how-manual
    key = signing_key(SecretStr("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
    signature = sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("number", [0, 1], ids=["old-secret", "new-secret"])
def test_a_message_signed_with_either_secret_is_stored_once(
    number: int, receiver: TestClient, secrets_of: tuple[str, ...], fresh_id: str, ledger_engine: Engine
) -> None:
    headers = signed(secrets_of[number], fresh_id)
    first, again = (receiver.post("/webhooks/monitor", content=BODY, headers=headers) for _ in range(2))
    assert (first.status_code, first.json()["delivery"]) == (202, "new")
    assert (again.status_code, again.json()["delivery"]) == (202, "known")
    with ledger_engine.connect() as connection:
        kept = connection.execute(
            text("SELECT source, body FROM inbox WHERE message_id = :id"), {"id": fresh_id}
        ).all()
    assert [(row.source, bytes(row.body)) for row in kept] == [("monitor", BODY)]


def test_another_body_under_a_known_id_is_refused(
    receiver: TestClient, secrets_of: tuple[str, ...], fresh_id: str
) -> None:
    statuses = [
        receiver.post(
            "/webhooks/monitor", content=body, headers=signed(secrets_of[0], fresh_id, body=body)
        ).status_code
        for body in (BODY, BODY.replace(b"psi", b"ks"))
    ]
    assert statuses == [202, 409]


@pytest.mark.parametrize(
    ("seconds", "status"),
    [(-301, 401), (-300, 202), (-299, 202), (0, 202), (299, 202), (300, 202), (301, 401)],
)
def test_a_message_may_be_five_minutes_old_or_early_and_not_more(
    seconds: int, status: int, receiver: TestClient, secrets_of: tuple[str, ...], fresh_id: str
) -> None:
    headers = signed(secrets_of[0], fresh_id, NOW + timedelta(seconds=seconds))
    answer = receiver.post("/webhooks/monitor", content=BODY, headers=headers)
    assert answer.status_code == status


def as_github(secret: str, body: bytes, delivery: str = "1") -> dict[str, str]:
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-GitHub-Delivery": delivery, "X-Hub-Signature-256": f"sha256={signature}"}
    return headers | {"Content-Type": "application/json"}


def as_mlflow(secret: str, message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    stamp = str(int(at.timestamp()))
    return {
        WEBHOOK_DELIVERY_ID_HEADER: message_id,
        WEBHOOK_TIMESTAMP_HEADER: stamp,
        WEBHOOK_SIGNATURE_HEADER: _generate_hmac_signature(secret, message_id, stamp, body.decode()),
        "Content-Type": "application/json",
    }


def test_githubs_published_example_is_signed_as_published() -> None:
    # https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
    published = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    request = Request({"type": "http", "headers": [(b"x-hub-signature-256", f"sha256={published}".encode())]})
    message = github(request, b"Hello, World!")
    assert message is not None
    assert message.is_signed_with([b"It's a Secret to Everybody"])
    assert not message.is_signed_with([b"it's a Secret to Everybody"])


def test_a_message_signed_by_github_is_stored_once_under_all_delivery_ids(
    receiver: TestClient, wired: Services, fresh_id: str
) -> None:
    [secret] = wired.settings.webhooks["github"].secrets
    body = json.dumps(
        {"action": "model.drift_detected", "client_payload": json.loads(DATA), "id": fresh_id}
    ).encode()
    answers = [
        receiver.post(
            "/webhooks/github", content=body, headers=as_github(secret.get_secret_value(), body, number)
        )
        for number in ("1", "2")
    ]
    assert [(each.status_code, each.json()["delivery"]) for each in answers] == [(202, "new"), (202, "known")]
    forged = as_github(secret.get_secret_value(), body + b" ")
    assert receiver.post("/webhooks/github", content=body, headers=forged).status_code == 401


@pytest.mark.parametrize(("seconds", "status"), [(-301, 401), (-299, 202), (301, 401)])
def test_a_message_signed_by_mlflow_is_stored_while_fresh(
    seconds: int, status: int, receiver: TestClient, wired: Services, fresh_id: str
) -> None:
    [secret] = wired.settings.webhooks["mlflow"].secrets
    at = NOW + timedelta(seconds=seconds)
    headers = as_mlflow(secret.get_secret_value(), fresh_id, at, BODY)
    assert receiver.post("/webhooks/mlflow", content=BODY, headers=headers).status_code == status
    assert receiver.post("/webhooks/mlflow", content=BODY + b" ", headers=headers).status_code == 401


def test_each_source_is_accepted_in_its_own_style_alone(
    receiver: TestClient, wired: Services, secrets_of: tuple[str, ...], fresh_id: str
) -> None:
    sources = {name: source.secrets[0].get_secret_value() for name, source in wired.settings.webhooks.items()}
    styles = {
        "monitor": signed(secrets_of[0], fresh_id),
        "github": as_github(sources["github"], BODY),
        "mlflow": as_mlflow(sources["mlflow"], fresh_id, NOW, BODY),
    }
    for source, style in itertools.permutations(styles, 2):
        answer = receiver.post(f"/webhooks/{source}", content=BODY, headers=styles[style])
        assert answer.status_code == 401


def fuzz(  # noqa: PLR0912 - a branch for each way to forge
    good: dict[str, str], rng: random.Random
) -> Iterator[tuple[str, list[tuple[bytes, bytes]], bytes]]:
    """Source, headers and body of a forged message."""
    while True:
        headers = {name: value.encode() for name, value in good.items()}
        body = BODY
        source = "monitor"
        extra = []
        match rng.randrange(12):
            case 0:
                headers.pop(rng.choice(["webhook-id", "webhook-timestamp", "webhook-signature"]))
            case 1:
                body = _with_a_byte_changed(body, rng)
            case 2:
                body += bytes([rng.randrange(256)])
            case 3:
                raw = bytearray(base64.b64decode(headers["webhook-signature"][3:]))
                raw[rng.randrange(32)] ^= 1 << rng.randrange(8)
                headers["webhook-signature"] = b"v1," + base64.b64encode(raw)
            case 4:
                cut = rng.randrange(len(headers["webhook-signature"]))
                headers["webhook-signature"] = headers["webhook-signature"][:cut]
            case 5:
                version = rng.choice([b"v0,", b"v2,", b"V1,", b"", b"v1a,", b"v1"])
                headers["webhook-signature"] = version + headers["webhook-signature"][3:]
            case 6:
                moved = int(headers["webhook-timestamp"]) + rng.choice([-1, 1]) * rng.randrange(1, 10**6)
                headers["webhook-timestamp"] = str(moved).encode()
            case 7:
                spelt = rng.choice(
                    [b"+%s", b" %s.0", b"0x%s", b"%s000", b"-%s", b"%se0", b"nan", b"", b"\xd9\xa3"]
                )
                headers["webhook-timestamp"] = spelt.replace(b"%s", headers["webhook-timestamp"])
            case 8:
                headers["webhook-id"] += bytes([rng.randrange(33, 127)])
            case 9:
                source = rng.choice(["nobody", "MONITOR", "monitor ", "%f0%28", "a" * 5000])
            case 10:
                extra = [(b"webhook-signature", bytes(rng.randrange(32, 256) for _ in range(40)))]
            case 11:
                headers["webhook-signature"] = bytes(rng.randrange(32, 256) for _ in range(rng.randrange(99)))
        yield source, [*((name.encode(), value) for name, value in headers.items()), *extra], body


def _with_a_byte_changed(body: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(body))
    return body[:at] + bytes([body[at] ^ (1 << rng.randrange(8))]) + body[at + 1 :]


def test_forgeries_are_all_refused_in_the_same_words(
    receiver: TestClient, secrets_of: tuple[str, ...]
) -> None:
    forged = fuzz(signed(secrets_of[0], "fuzzed"), random.Random(4))
    answers = []
    for _ in range(FORGERIES):
        source, headers, body = next(forged)
        answers.append(receiver.post(f"/webhooks/{source}", content=body, headers=headers))
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1


@given(
    st.binary(max_size=50),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20),
    st.lists(st.binary(min_size=24, max_size=64), min_size=1, max_size=3),
)
def test_a_message_is_valid_for_the_signing_keys_alone(
    body: bytes, message_id: str, keys: list[bytes]
) -> None:
    message = signed_with_time(message_id, "1", body, tuple(sign(key, message_id, "1", body) for key in keys))
    assert message.is_signed_with(keys[:1])
    assert not message.is_signed_with([keys[0] + b"0"])
    assert not message.is_signed_with([])


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"a": 1, "a": 2}', id="key-twice"),
        pytest.param(b'{"a": NaN}', id="nan"),
        pytest.param(b'{"a": -Infinity}', id="infinity"),
        pytest.param(b'{"a": 1e999}', id="float-too-large"),
        pytest.param(b'{"a": 9007199254740993}', id="beyond-2^53"),
        pytest.param(b"1" * 5000, id="huge-integer"),
        pytest.param(b"[" * 10_000 + b"]" * 10_000, id="10,000-deep"),
        pytest.param(b"[" * 33 + b"]" * 33, id="33-deep"),
        pytest.param(b'{"a":' * 10_000 + b"1" + b"}" * 10_000, id="10,000-objects-deep"),
        pytest.param(b'{"a": "\\ud800"}', id="lone-surrogate"),
        pytest.param(b'{"a": "\\u0000"}', id="nul"),
        pytest.param(b'{"\\udfff": 1}', id="lone-surrogate-as-key"),
        pytest.param(b"\xff\xfe{\x00}\x00", id="utf-16"),
        pytest.param(b"\xef\xbb\xbf{}", id="byte-order-mark"),
        pytest.param(b'{"a": 1', id="cut"),
        pytest.param(b"{} {}", id="two"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_ambiguous_json_is_refused_from_every_sender(
    body: bytes, receiver: TestClient, client: Client, secrets_of: tuple[str, ...], fresh_id: str
) -> None:
    key = signing_key(SecretStr(secrets_of[0]))
    stamp = str(int(NOW.timestamp()))
    headers = {
        "webhook-id": fresh_id,
        "webhook-timestamp": stamp,
        "webhook-signature": sign(key, fresh_id, stamp, body),
        "Content-Type": "application/json",
    }
    began = time.monotonic()
    webhook = receiver.post("/webhooks/monitor", content=body, headers=headers)
    assert webhook.status_code == 400
    order = client(Role.OPERATOR).post(
        "/clm/train", content=body, headers={"Content-Type": "application/json"}
    )
    assert order.status_code == (422 if body == b"" else 400)
    assert time.monotonic() - began < 30


def test_json_32_deep_and_numbers_up_to_2_to_the_53_are_taken(
    receiver: TestClient, secrets_of: tuple[str, ...], fresh_id: str
) -> None:
    params = b'{"deep": ' + b"[" * 29 + b"9007199254740992" + b"]" * 29 + b"}"
    body = BODY.replace(b'"detector"', b'"training_params": %s, "detector"' % params)
    answer = receiver.post(
        "/webhooks/monitor", content=body, headers=signed(secrets_of[0], fresh_id, body=body)
    )
    assert answer.status_code == 202


def test_a_sender_learns_nothing_about_internals(
    wired: Services, secrets_of: tuple[str, ...], fresh_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    def fail(*_: Any) -> None:
        raise OperationalError("INSERT INTO inbox", {}, Exception("10.0.0.1"))

    monkeypatch.setattr(type(wired.ledger.triggers), "receive", fail)
    app = create_app(replace(wired, clock=lambda: NOW))
    answer = TestClient(app, raise_server_exceptions=False).post(
        "/webhooks/monitor", content=BODY, headers=signed(secrets_of[0], fresh_id)
    )
    assert answer.status_code == 503
    assert "inbox" not in answer.text
    assert "10.0.0.1" not in json.dumps(answer.json())


def test_headers_of_svix_are_those_of_standard_webhooks(
    receiver: TestClient, secrets_of: tuple[str, ...], fresh_id: str
) -> None:
    named = {
        name.replace("webhook-", "svix-"): value for name, value in signed(secrets_of[0], fresh_id).items()
    }
    assert receiver.post("/webhooks/monitor", content=BODY, headers=named).status_code == 202
    assert receiver.post("/webhooks/monitor", content=BODY + b" ", headers=named).status_code == 401


@pytest.mark.parametrize("content_type", [None, "application/json; charset=utf-8"])
def test_a_cloudevent_in_binary_mode_is_read(
    content_type: str | None,
    receiver: TestClient,
    secrets_of: tuple[str, ...],
    fresh_id: str,
    ledger_engine: Engine,
) -> None:
    attributes = {
        "specversion": "1.0",
        "id": "7",
        "source": "/monitors/%C3%A9",
        "type": "model.drift_detected",
    }
    headers = signed(secrets_of[0], fresh_id, body=DATA) | {"Content-Type": content_type or ""}
    headers = {name: value for name, value in headers.items() if value}
    headers |= {f"Ce-{name.title()}": value for name, value in attributes.items()}
    answer = receiver.post("/webhooks/monitor", content=DATA, headers=headers)
    assert (answer.status_code, answer.json()["delivery"]) == (202, "new")
    with ledger_engine.connect() as connection:
        stored = connection.scalar(text("SELECT body FROM inbox WHERE message_id = :id"), {"id": fresh_id})
    read = attributes | {"source": "/monitors/é", "data": json.loads(DATA)}
    assert json.loads(bytes(stored or b"")) == read
    assert isinstance(parse(bytes(stored or b"")), DriftDetected)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"{}", "type: Field required"),
        (b"[]", "not a JSON object"),
        (b'{"type": "model.drift", "data": {}}', "'model.drift' is not a known event"),
        (BODY.replace(b"symbol", b"market"), "symbol: Field required"),
    ],
)
def test_a_message_that_can_never_be_read_is_refused_at_once(
    body: bytes,
    complaint: str,
    receiver: TestClient,
    secrets_of: tuple[str, ...],
    fresh_id: str,
    ledger_engine: Engine,
) -> None:
    headers = signed(secrets_of[0], fresh_id, body=body)
    answer = receiver.post("/webhooks/monitor", content=body, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:clm:problem:invalid-message")
    assert complaint in answer.json()["detail"]
    with ledger_engine.connect() as connection:
        kept = text("SELECT count(*) FROM inbox WHERE message_id = :id")
        assert connection.scalar(kept, {"id": fresh_id}) == 0


def test_content_of_another_type_is_refused(
    receiver: TestClient, secrets_of: tuple[str, ...], fresh_id: str
) -> None:
    headers = signed(secrets_of[0], fresh_id) | {"Content-Type": "text/plain"}
    assert receiver.post("/webhooks/monitor", content=BODY, headers=headers).status_code == 415


@pytest.mark.parametrize("is_form", [False, True], ids=["json", "form"])
def test_events_of_github_that_request_nothing_are_ignored_and_a_dispatch_is_stored(
    is_form: bool, receiver: TestClient, wired: Services, fresh_id: str
) -> None:
    [secret] = wired.settings.webhooks["github"].secrets
    dispatch = {"action": "model.drift_detected", "client_payload": json.loads(DATA), "branch": fresh_id}

    def post(content: dict[str, Any]) -> tuple[int, str]:
        body = json.dumps(content).encode()
        headers = {}
        if is_form:
            body = urlencode({"payload": body.decode()}).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        headers = as_github(secret.get_secret_value(), body) | headers
        answer = receiver.post("/webhooks/github", content=body, headers=headers)
        return answer.status_code, answer.json()["delivery"] if answer.is_success else answer.text

    assert post({"zen": "Keep it logically awesome.", "hook_id": 1}) == (202, "ignored")
    assert post({"ref": "refs/heads/main", "repository": {}, "commits": []}) == (202, "ignored")
    assert post(dispatch) == (202, "new")
    status, complaint = post(dispatch | {"action": "deploy"})
    assert status == 422
    assert "'deploy' is not a known event" in complaint


@pytest.fixture
def source_in_vault(
    wired: Services, bao: SecretServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> tuple[TestClient, str]:
    """API whose source has its secret in the server of secrets, and the path of the secret there."""
    monkeypatch.setenv("VAULT_TOKEN", bao.token())
    monkeypatch.setenv("CLM_HOME", str(tmp_path))
    path = bao.new_path(webhook=OLD)
    monitor = {"secrets": [f"vault://{path}#webhook"]}
    settings = Settings(vault=bao.settings(), webhooks={"monitor": monitor})
    kept = wired.settings.model_copy(update={"webhooks": settings.webhooks})
    app = create_app(replace(wired, settings=kept, clock=lambda: NOW))
    return TestClient(app, raise_server_exceptions=False), path


def test_a_rotated_secret_is_accepted_at_once_and_the_old_one_refused(
    source_in_vault: tuple[TestClient, str], bao: SecretServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, path = source_in_vault
    monkeypatch.setattr("clm_core.platform.secrets.REREAD_AFTER_SECONDS", 0.0)

    def status(secret: str, number: int) -> int:
        headers = signed(secret, f"{path}-{number}")
        return receiver.post("/webhooks/monitor", content=BODY, headers=headers).status_code

    assert [status(OLD, 1), status(NEW, 2)] == [202, 401]
    bao.write(path, webhook=NEW)
    assert [status(NEW, 3), status(OLD, 4)] == [202, 401]


def test_a_secret_that_cannot_be_read_is_answered_503_without_a_reason(
    source_in_vault: tuple[TestClient, str], bao: SecretServer, caplog: pytest.LogCaptureFixture
) -> None:
    receiver, path = source_in_vault
    bao.delete(path)
    answer = receiver.post("/webhooks/monitor", content=BODY, headers=signed(OLD, path))
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    assert "vault" not in answer.json()["detail"]
    assert path not in answer.text
    assert f"webhooks.monitor.secrets.0 is vault://{path}#webhook, which cannot be read" in caplog.text
