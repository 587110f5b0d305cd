"""`Idempotency-Key`: a request repeated after a lost response is answered from the stored response."""

import hashlib
import json
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel

from clm_core.api.auth import Authenticated
from clm_core.api.context import Connected
from clm_core.api.errors import problem_of
from clm_core.domain.errors import CLMError
from clm_core.domain.faults import Fault, crash_at
from clm_core.ledger.replies import KeptReply
from clm_core.services import Services

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=100,
        pattern=r"^[\x21-\x7e]+$",
        description="Unique key of the request, chosen by the client. A repetition with the same key and "
        "body within 24 hours returns the stored response without doing the work again.",
    ),
]
Action = Callable[[], Response]
"""Does the work of a request and returns the response."""


class IdempotentRequest:
    def __init__(self, services: Services, caller: str, path: str, key: str | None) -> None:
        self._services = services
        self._caller = caller
        self._path = path
        self._key = key

    @property
    def key(self) -> str | None:
        """Key prefixed with the caller, so that callers cannot collide; None without a key."""
        return f"{self._caller}/{self._key}" if self._key else None

    def __call__(self, body: BaseModel, action: Action) -> Response:
        """Response of the action, or the stored response of an earlier request with the same key.

        Responses of 500 and above are not stored: the request may be repeated with the same key. After a
        crash that prevented the response, the action runs again; it finds by `key` what it had done.

        Raises:
            KeyReused: the key was used for another request.
            ConflictError: the same request is in progress for too long.
        """
        if self._key is None:
            return action()
        replies = self._services.ledger.replies
        now = self._services.clock()
        request_hash = self._hash(body)
        with replies.lock(self._caller, self._key):
            stored = replies.begin(self._caller, self._key, request_hash, now)
            if stored is not None:
                return Response(
                    stored.body, stored.status, {"Idempotency-Replayed": "true"}, stored.media_type
                )
            response = _attempt(action)
            crash_at(Fault.BEFORE_REPLY, self._services.settings.fault)
            if response.status_code < 500:
                replies.keep(self._reply(response, request_hash))
                crash_at(Fault.AFTER_REPLY, self._services.settings.fault)
        return response

    def _hash(self, body: BaseModel) -> str:
        content = json.dumps([self._path, body.model_dump(mode="json")], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def _reply(self, response: Response, request_hash: str) -> KeptReply:
        assert self._key is not None
        return KeptReply(
            caller=self._caller,
            key=self._key,
            request_hash=request_hash,
            status=response.status_code,
            media_type=response.headers["content-type"],
            body=bytes(response.body).decode(),
            at=self._services.clock(),
        )


def _idempotent(
    request: Request, token: Authenticated, clm: Connected, key: IdempotencyKey = None
) -> IdempotentRequest:
    return IdempotentRequest(clm, token.id, request.url.path, key)


def json_response(answer: BaseModel, status: int = 200) -> Response:
    return Response(answer.model_dump_json(), status, media_type="application/json")


Idempotent = Annotated[IdempotentRequest, Depends(_idempotent)]


def _attempt(action: Action) -> Response:
    try:
        return action()
    except CLMError as error:
        return problem_of(error)
