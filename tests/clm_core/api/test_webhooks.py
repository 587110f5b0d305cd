import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
from sqlalchemy import Engine, create_engine, text
from webhooks import signed

from clm_core.ledger.store import Ledger
from clm_core.services import Services

DELIVERIES = 200
CONNECTIONS = 16
DATA = '{"model_type": "xgboost", "symbol": "NOSUCHTHING", "detector": "psi"}'
BODY = f'{{"type": "model.drift_detected", "data": {DATA}}}'
Serve = Callable[[Services], AbstractContextManager[Any]]


def headers(clm: Services, message_id: str) -> dict[str, str]:
    secret = clm.settings.webhooks["monitor"].secrets[0].get_secret_value()
    return signed(secret, message_id, BODY, datetime.now(UTC))


def test_a_message_delivered_200_times_over_16_connections_is_one_message(
    serve: Serve, wired: Services, ledger_engine: Engine
) -> None:
    # its senders share this process: on a busy machine half a second is soon over
    slow_bodies = wired.settings.api.model_copy(update={"body_seconds": 20.0})
    clm = replace(wired, settings=wired.settings.model_copy(update={"api": slow_bodies}))
    message_id = uuid.uuid4().hex
    limits = httpx.Limits(max_connections=CONNECTIONS)
    with (
        serve(clm) as server,
        httpx.Client(
            base_url=server.url, headers=headers(clm, message_id), limits=limits, timeout=120
        ) as sender,
    ):

        def deliver(_: int) -> Any:
            answer = sender.post("/webhooks/monitor", content=BODY)
            assert answer.status_code == 202, answer.text
            return answer.json()["delivery"]

        with ThreadPoolExecutor(CONNECTIONS) as pool:
            answers = list(pool.map(deliver, range(DELIVERIES)))
    assert Counter(answers) == {"new": 1, "known": DELIVERIES - 1}
    with ledger_engine.connect() as connection:
        kept = text("SELECT count(*) FROM inbox WHERE message_id = :id")
        assert connection.scalar(kept, {"id": message_id}) == 1


def test_while_all_database_connections_are_in_use_a_sender_gets_retry_after(
    serve: Serve, wired: Services
) -> None:
    url = wired.database.url("ledger")
    engine = create_engine(url, pool_size=1, max_overflow=0, pool_timeout=0.1)
    clm = replace(wired, ledger=Ledger(engine))
    with serve(clm) as server, httpx.Client(base_url=server.url, timeout=120) as sender:

        def deliver() -> httpx.Response:
            named = headers(clm, uuid.uuid4().hex)
            return sender.post("/webhooks/monitor", content=BODY, headers=named)

        with engine.connect():
            refused = deliver()
        assert deliver().status_code == 202
    engine.dispose()
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    assert refused.json()["type"] == "urn:clm:problem:database-unavailable"
