"""Signed webhooks."""

from datetime import datetime

from standardwebhooks import Webhook


def signed(secret: str, message_id: str, body: str, now: datetime) -> dict[str, str]:
    """Headers of a signed delivery."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, now, body),
        "Content-Type": "application/json",
    }
