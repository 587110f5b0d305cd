"""Bodies of webhooks in the encodings of their senders, turned into the JSON of a message.

    JSON                           as it is
    CloudEvents in binary mode     attributes in headers `ce-…`, data in the body
    GitHub's form encoding         `payload=…` with the JSON

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
https://docs.github.com/en/webhooks/webhook-events-and-payloads
"""

import json
from urllib.parse import parse_qs, unquote

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from clm_core.api.bodies import FORM, content_type, is_json, parse_json
from clm_core.domain.webhook_settings import SigningStyle

ATTRIBUTES = "ce-"


def message_body(headers: Headers, body: bytes, style: SigningStyle) -> bytes:
    """JSON of the message in a verified body.

    Raises:
        HTTPException: the body is not unambiguous JSON, or the encoding is none of the above.
    """
    if f"{ATTRIBUTES}specversion" in headers:
        return _structured(headers, body)
    kind = content_type(headers)
    if kind == FORM and style is SigningStyle.GITHUB:
        body = _payload(body)
    elif not is_json(kind):
        raise HTTPException(415, "Send JSON, with Content-Type: application/json.")
    parse_json(body)
    return body


def _structured(headers: Headers, body: bytes) -> bytes:
    """CloudEvent in structured mode of an event in binary mode, whose data are JSON."""
    kind = content_type(headers)
    if kind and not is_json(kind):
        raise HTTPException(
            415, "Send the data of the CloudEvent as JSON, with Content-Type: application/json."
        )
    named = {
        name.removeprefix(ATTRIBUTES): unquote(value)
        for name, value in sorted(headers.items())
        if name.startswith(ATTRIBUTES)
    }
    return json.dumps(named | {"data": parse_json(body)}).encode()


def _payload(body: bytes) -> bytes:
    fields = parse_qs(body.decode("ascii", errors="replace"))
    if list(fields) != ["payload"] or len(fields["payload"]) != 1:
        raise HTTPException(400, "Send the JSON as the field payload of the form, and no other field.")
    return fields["payload"][0].encode()
