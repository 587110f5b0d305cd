"""Requests to an API process that is killed at each point between their effect and their reply."""

import os
import signal
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import promoting
import pytest
from patience import PATIENT_SECONDS
from processes import PROMOTION_FAULTS

from clm_core.domain.actors import Actor
from clm_core.domain.faults import Fault
from clm_core.domain.promotions import PromotionState
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import Role
from clm_core.services import Services

MakeToken = Callable[..., str]
MakeVersion = Callable[..., ModelVersion]
ADA = Actor(name="ada", role=Role.OPERATOR)
SERVE = """
import promoting
import uvicorn
from clm_core.api.__main__ import configuration
from clm_core.api.app import create_app
from clm_core.services import open_services
settings = settings.model_copy(update={"api": api})
with open_services(settings) as services:
    judging = promoting.by_thresholds(services)
    uvicorn.Server(configuration(create_app(judging), api, port)).run()
"""
INTERRUPTIONS = [*PROMOTION_FAULTS, Fault.BEFORE_REPLY, Fault.AFTER_REPLY]


@pytest.fixture(scope="module")
def served(services: Services, make_version: MakeVersion) -> list[ModelVersion]:
    """Versions of a model that were in production, one after the other."""
    versions = [make_version("lightgbm_keptusd_1h") for _ in range(3)]
    for version in versions:
        promoting.promote(services, version.model_id, version.version, ADA, "", services.clock())
    return versions


class Interrupted:
    """Sends requests to API processes that kill themselves, then to one that does not."""

    def __init__(self, parent: Any, wired: Services, server: Any, token: str) -> None:
        self._parent = parent
        self._api = wired.settings.api
        self._server = server
        self._token = token

    def send(self, fault: Fault, path: str, body: dict[str, Any]) -> tuple[httpx.Response, str]:
        """Response to a repetition of the request whose process was killed, and the key."""
        key = uuid.uuid4().hex
        assert self.killed_by(fault, path, body, key)
        return self.repeat(path, body, key), key

    def repeat(self, path: str, body: dict[str, Any], key: str) -> httpx.Response:
        return self._post(self._server.url, path, body, key)

    def killed_by(self, fault: Fault, path: str, body: dict[str, Any], key: str) -> bool:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = self._parent.start(SERVE, fault, api=self._api, port=port)
        url = f"http://127.0.0.1:{port}"
        try:
            wait_until_ready(url)
            with pytest.raises(httpx.TransportError):
                self._post(url, path, body, key)
        except BaseException:
            os.kill(process, signal.SIGKILL)
            raise
        return bool(self._parent.wait(process) == -signal.SIGKILL)

    def _post(self, url: str, path: str, body: dict[str, Any], key: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._token}", "Host": "testserver", "Idempotency-Key": key}
        return httpx.post(f"{url}{path}", json=body, headers=headers, timeout=PATIENT_SECONDS)


def wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + PATIENT_SECONDS
    while True:
        try:
            httpx.get(f"{url}/openapi.json", headers={"Host": "testserver"}, timeout=PATIENT_SECONDS)
            return
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture(scope="module")
def interrupted(parent: Any, wired: Services, server: Any, make_token: MakeToken) -> Interrupted:
    return Interrupted(parent, wired, server, make_token(Role.OPERATOR))


@pytest.mark.parametrize("fault", INTERRUPTIONS, ids=str)
def test_a_rollback_killed_at_any_point_is_done_once_and_its_key_answers_the_success(
    fault: Fault, interrupted: Interrupted, services: Services, served: Sequence[ModelVersion]
) -> None:
    model_id = served[0].model_id
    store = services.ledger.promotions
    before = store.champion(model_id)
    count = len(store.committed(model_id))
    to = next(version.version for version in served if version.version != before)
    body = {"model_id": model_id, "to": to}
    answer, key = interrupted.send(fault, "/clm/rollback", body)
    assert answer.status_code == 200, answer.text
    [done] = store.committed(model_id)[count:]
    assert answer.json() == done.model_dump(mode="json")
    assert (done.from_version, done.to_version, done.state) == (before, to, PromotionState.COMMITTED)
    again = interrupted.repeat("/clm/rollback", body, key)
    assert (again.status_code, again.content) == (200, answer.content)
    assert len(store.committed(model_id)) == count + 1


def test_a_promotion_finished_by_maintenance_answers_the_success(
    interrupted: Interrupted, services: Services, make_version: MakeVersion, model_id: str
) -> None:
    version, other = (make_version(model_id).version for _ in range(2))
    body = {"model_id": model_id, "version": version}
    key = uuid.uuid4().hex
    assert interrupted.killed_by(Fault.AFTER_ALIAS, "/clm/promote", body, key)
    services.promotions.reconcile(model_id, ADA, services.clock())
    promoting.promote(services, model_id, other, ADA, "", services.clock())
    answer = interrupted.repeat("/clm/promote", body, key)
    assert (answer.status_code, answer.json()["to_version"]) == (200, version)
    assert services.ledger.promotions.champion(model_id) == other


def test_the_key_of_an_interrupted_request_is_refused_for_another_request(
    interrupted: Interrupted, make_version: MakeVersion, model_id: str
) -> None:
    version, other = (make_version(model_id).version for _ in range(2))
    key = uuid.uuid4().hex
    body = {"model_id": model_id, "version": version}
    assert interrupted.killed_by(Fault.AFTER_ALIAS, "/clm/promote", body, key)
    answer = interrupted.repeat("/clm/promote", body | {"version": other}, key)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:clm:problem:key-reused")
    assert interrupted.repeat("/clm/promote", body, key).status_code == 200


def test_a_rollback_to_the_version_before_goes_back_once(
    interrupted: Interrupted, services: Services, make_version: MakeVersion, model_id: str
) -> None:
    first, second, third = (make_version(model_id).version for _ in range(3))
    for version in (first, second, third):
        promoting.promote(services, model_id, version, ADA, "", services.clock())
    answer, _ = interrupted.send(Fault.BEFORE_REPLY, "/clm/rollback", {"model_id": model_id})
    assert (answer.status_code, answer.json()["to_version"]) == (200, second)
    assert services.ledger.promotions.champion(model_id) == second


@pytest.mark.parametrize("fault", [Fault.BEFORE_REPLY, Fault.AFTER_REPLY], ids=str)
def test_a_request_to_train_killed_before_its_reply_has_one_job_and_the_same_answer(
    fault: Fault, interrupted: Interrupted, services: Services
) -> None:
    body = {"model_type": "lightgbm", "symbol": "BTCUSD", "training_params": {"rounds": 2}}
    answer, key = interrupted.send(fault, "/clm/train", body)
    assert answer.status_code == 202, answer.text
    answers = services.ledger.triggers.answers(limit=20)
    [recorded] = [each for each in answers if (each.request.key or "").endswith(key)]
    # the window of the job is worked out for each answer, and recorded nowhere
    window = {"evidence_window": answer.json()["evidence_window"]}
    assert answer.json() == recorded.model_dump(mode="json") | window
