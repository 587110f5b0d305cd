import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
from sqlalchemy import Engine, text
from standardwebhooks import Webhook

from clm_core.services import Services

DELIVERIES, CONNECTIONS = 200, 16
BODY = '{"type": "model.drift_detected"}'


def test_a_message_delivered_200_times_over_16_connections_is_one_message(
    server: Any, wired: Services, ledger_engine: Engine
) -> None:
    message_id, now = uuid.uuid4().hex, datetime.now(UTC)
    secret = wired.settings.webhooks["monitor"].secrets[0].get_secret_value()
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, now, BODY),
        "Content-Type": "application/json",
    }
    limits = httpx.Limits(max_connections=CONNECTIONS)
    with httpx.Client(base_url=server.url, headers=headers, limits=limits, timeout=30) as sender:

        def deliver(_: int) -> tuple[int, str]:
            answer = sender.post("/clm/webhooks/monitor", content=BODY)
            return answer.status_code, answer.json()["delivery"]

        with ThreadPoolExecutor(CONNECTIONS) as pool:
            answers = list(pool.map(deliver, range(DELIVERIES)))
    assert {status for status, _ in answers} == {202}
    assert [delivery for _, delivery in answers].count("new") == 1
    with ledger_engine.connect() as connection:
        kept = text("SELECT count(*) FROM inbox WHERE message_id = :id")
        assert connection.scalar(kept, {"id": message_id}) == 1
