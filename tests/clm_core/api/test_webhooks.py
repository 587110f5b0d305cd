import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
from sqlalchemy import Engine, text
from webhooks import signed

from clm_core.services import Services

DELIVERIES, CONNECTIONS = 200, 16
BODY = '{"type": "model.drift_detected"}'


def test_a_message_delivered_200_times_over_16_connections_is_one_message(
    server: Any, wired: Services, ledger_engine: Engine
) -> None:
    message_id, now = uuid.uuid4().hex, datetime.now(UTC)
    secret = wired.settings.webhooks["monitor"].secrets[0].get_secret_value()
    headers = signed(secret, message_id, BODY, now)
    limits = httpx.Limits(max_connections=CONNECTIONS)
    with httpx.Client(base_url=server.url, headers=headers, limits=limits, timeout=30) as sender:

        def deliver(_: int) -> Any:
            answer = sender.post("/clm/webhooks/monitor", content=BODY)
            assert answer.status_code == 202, answer.text
            return answer.json()["delivery"]

        with ThreadPoolExecutor(CONNECTIONS) as pool:
            answers = list(pool.map(deliver, range(DELIVERIES)))
    assert Counter(answers) == {"new": 1, "known": DELIVERIES - 1}
    with ledger_engine.connect() as connection:
        kept = text("SELECT count(*) FROM inbox WHERE message_id = :id")
        assert connection.scalar(kept, {"id": message_id}) == 1
