import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import jsonschema
import promoting
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator

from clm_core.api.app import create_app
from clm_core.domain.actors import Actor
from clm_core.domain.published_events import event_schema
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import Role
from clm_core.services import Services

MakeToken = Callable[..., str]
MakeVersion = Callable[..., ModelVersion]
OPERATOR = Actor(name="ada", role=Role.OPERATOR)


def follow(url: str, token: str, **headers: str) -> Iterator[dict[str, Any]]:
    """Events received by a subscriber, until the stream is closed."""
    all_headers = {"Authorization": f"Bearer {token}", "Host": "testserver"} | headers
    with httpx.stream("GET", f"{url}/clm/events", headers=all_headers, timeout=120) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        event: dict[str, Any] = {}
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if not line and "data" in event:
                yield event | {"data": json.loads(event["data"])}
                event = {}
            elif name:
                event[name] = value


def promote(services: Services, version: ModelVersion) -> None:
    promoting.promote(services, version.model_id, version.version, OPERATOR, "", services.clock())


def test_a_subscriber_receives_a_promotion_and_resumes_after_the_last_event(
    server: Any, make_token: MakeToken, make_version: MakeVersion, model_id: str, services: Services
) -> None:
    versions = [make_version(model_id) for _ in range(3)]
    token = make_token(Role.VIEWER)
    promote(services, versions[0])
    later = threading.Timer(1.0, lambda: [promote(services, version) for version in versions[1:]])
    later.start()
    live = follow(server.url, token)
    first = next(event for event in live if event["data"]["payload"]["model_id"] == model_id)
    live.close()
    later.join()
    assert (first["event"], first["data"]["payload"]["version"]) == (
        "clm.model_promoted",
        versions[1].version,
    )
    resumed = follow(server.url, token, **{"Last-Event-ID": first["id"]})
    second = next(event for event in resumed if event["data"]["payload"]["model_id"] == model_id)
    resumed.close()
    assert second["data"]["payload"]["version"] == versions[2].version
    for received in (first, second):
        jsonschema.validate(received["data"], event_schema(), cls=Draft202012Validator)
        assert received["data"]["data"] == received["data"]["payload"]
    assert int(second["id"]) > int(first["id"])


def test_the_number_of_subscribers_is_limited(wired: Services, make_token: MakeToken) -> None:
    api = wired.settings.api.model_copy(update={"max_event_streams": 1})
    app = create_app(replace(wired, settings=wired.settings.model_copy(update={"api": api})))
    app.state.streams = 1
    headers = {"Authorization": f"Bearer {make_token(Role.VIEWER)}"}
    refused = TestClient(app).get("/clm/events", headers=headers)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "10")


@pytest.mark.parametrize("bad", ["-1", "x", "1e3", str(2**70)])
def test_a_last_event_that_is_no_number_is_refused(bad: str, api: FastAPI, make_token: MakeToken) -> None:
    headers = {"Authorization": f"Bearer {make_token(Role.VIEWER)}", "Last-Event-ID": bad}
    assert TestClient(api).get("/clm/events", headers=headers).status_code == 422


def test_a_subscription_needs_a_token(api: FastAPI) -> None:
    assert TestClient(api).get("/clm/events").status_code == 401
