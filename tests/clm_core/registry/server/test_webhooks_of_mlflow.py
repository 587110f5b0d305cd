"""Webhooks of MLflow to a local address, created by one process and sent by another."""

import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from fastapi import Request
from installations import CLM, wait_until
from sqlalchemy import create_engine, text

from clm_core.api.signatures import mlflow
from clm_core.domain.errors import SecretExposed
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import Role
from clm_core.registry.mlflow_webhooks import KEY, webhook_variables
from clm_core.services import Services
from clm_core.triggers.messages import RetrainTagged, parse

SECRET = "a secret of twenty-four characters"
CREATE = """
import sys
from mlflow import MlflowClient
from mlflow.entities.webhook import WebhookEvent
events = [WebhookEvent.from_str("model_version_tag.set")]
MlflowClient().create_webhook("retrain", sys.argv[1], events, secret=sys.argv[2])
"""


def test_the_key_of_a_home_stays_and_a_key_of_the_user_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY, raising=False)
    first = webhook_variables(tmp_path)[KEY]
    assert webhook_variables(tmp_path)[KEY] == first
    monkeypatch.setenv(KEY, "another")
    assert webhook_variables(tmp_path)[KEY] == "another"
    monkeypatch.delenv(KEY)
    (tmp_path / "mlflow" / "webhooks.key").chmod(0o644)
    with pytest.raises(SecretExposed, match="create MLflow's webhooks anew"):
        webhook_variables(tmp_path)


def test_a_webhook_created_by_clm_exec_is_sent_by_the_server_to_a_local_address(
    services: Services,
    clients: Mapping[Role | None, httpx.Client],
    make_version: Callable[..., ModelVersion],
    model_id: str,
) -> None:
    version = make_version(model_id)
    with local_receiver() as (url, received):
        environment = os.environ | {"CLM_HOME": str(services.settings.home)}
        command = [str(CLM), "exec", "--", "python", "-c", CREATE, f"{url}/webhooks/mlflow", SECRET]
        subprocess.run(command, env=environment, check=True)
        tag = {"name": model_id, "version": str(version.mlflow_version), "key": "clm.retrain", "value": "yes"}
        try:
            path = "/api/2.0/mlflow/model-versions/set-tag"
            assert clients[Role.OPERATOR].post(path, json=tag).status_code == httpx.codes.OK
            wait_until(lambda: bool(received))
        finally:
            forget_webhooks(services)
    request, body = received[0]
    message = mlflow(request, body)
    assert message is not None
    assert message.is_signed_with([SECRET.encode()])
    assert parse(body) == RetrainTagged(name=model_id, version=str(version.mlflow_version))


@contextmanager
def local_receiver() -> Iterator[tuple[str, list[tuple[Request, bytes]]]]:
    received: list[tuple[Request, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]
            received.append((Request({"type": "http", "headers": headers}), body))
            self.send_response(202)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", received
    finally:
        server.shutdown()
        server.server_close()


def forget_webhooks(services: Services) -> None:
    """Delete the webhooks, which the server would also send for other tests."""
    engine = create_engine(services.database.url("mlflow"))
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM webhook_events"))
        connection.execute(text("DELETE FROM webhooks"))
    engine.dispose()
