"""Official senders and receivers of webhooks in Python: runs in the environment of scripts/clients.txt.

python senders.py send API SECRET       messages that request a retrain, by each library; JSON of the answers
python senders.py verify SECRET FILE    deliveries to a subscriber, verified by each library
"""

import json
import sys
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import standardwebhooks
import svix
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

TYPE = "model.drift_detected"


def data(number: int) -> dict[str, Any]:
    return {"model_type": "lightgbm", "symbol": "BTCUSD", "detector": "psi", "score": 0.2 + number}


def signed(secret: str, body: bytes, library: Any, prefix: str) -> dict[str, str]:
    """Headers of a signed message.

    Args:
        library: class `Webhook` of an official library.
        prefix: beginning of the names of the headers: webhook, or svix.
    """
    message_id = f"msg_{uuid.uuid4().hex}"
    now = datetime.now(UTC)
    return {
        f"{prefix}-id": message_id,
        f"{prefix}-timestamp": str(int(now.timestamp())),
        f"{prefix}-signature": library(secret).sign(message_id, now, body.decode()),
    }


def messages(secret: str) -> dict[str, tuple[dict[str, str], bytes]]:
    """Headers and body of a message by each library."""
    plain = {"content-type": "application/json"}
    made: dict[str, tuple[dict[str, str], bytes]] = {}
    for number, (name, library, prefix) in enumerate(
        [
            ("standardwebhooks", standardwebhooks.Webhook, "webhook"),
            ("svix", svix.webhooks.Webhook, "webhook"),
            ("svix, headers svix-*", svix.webhooks.Webhook, "svix"),
        ]
    ):
        body = json.dumps({"type": TYPE, "data": data(number)}).encode()
        made[name] = (plain | signed(secret, body, library, prefix), body)
    modes: Mapping[str, Callable[[CloudEvent], Any]] = {
        "binary": to_binary_event,
        "structured": to_structured_event,
    }
    for number, (mode, encode) in enumerate(modes.items(), start=3):
        attributes = {"type": TYPE, "source": "/drill", "datacontenttype": "application/json"}
        message = encode(CloudEvent(attributes, data(number)))
        headers = signed(secret, message.body, standardwebhooks.Webhook, "webhook")
        made[f"cloudevents, {mode}"] = (dict(message.headers) | headers, message.body)
    return made


def send(api: str, secret: str) -> list[dict[str, Any]]:
    answers = []
    for name, (headers, body) in messages(secret).items():
        answer = httpx.post(f"{api}/webhooks/monitor", content=body, headers=headers, timeout=60)
        package = name.partition(",")[0]
        answers.append(
            {"client": name, "version": version(package), "status": answer.status_code, "said": answer.json()}
        )
    return answers


def verify(secret: str, file: Path) -> list[dict[str, Any]]:
    deliveries = json.loads(file.read_text())
    libraries = {"standardwebhooks": standardwebhooks.Webhook, "svix": svix.webhooks.Webhook}
    verified = []
    for name, library in libraries.items():
        for each in deliveries:
            # raises an error for a wrong signature; the answer differs between the libraries
            library(secret).verify(each["body"], each["headers"])
        types = [json.loads(each["body"])["type"] for each in deliveries]
        verified.append({"client": name, "version": version(name), "types": types})
    return verified


if __name__ == "__main__":
    if sys.argv[1] == "send":
        print(json.dumps(send(sys.argv[2], sys.argv[3])))
    else:
        print(json.dumps(verify(sys.argv[2], Path(sys.argv[3]))))
