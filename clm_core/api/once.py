"""`Idempotency-Key`: a request that is sent again, because its answer was lost, is not done again."""

import hashlib
import json
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel

from clm_core.api.auth import Authenticated
from clm_core.api.context import Connected
from clm_core.api.errors import of_ours
from clm_core.domain.errors import CLMError
from clm_core.ledger.replies import KeptReply
from clm_core.services import Services

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=100,
        pattern=r"^[\x21-\x7e]+$",
        description="Made up by you, one for each thing you want done. Sent again with the same body within "
        "24 hours, the request is answered as it was, and nothing is done again.",
    ),
]
Work = Callable[[], Response]
"""Does what was asked for, and writes the answer."""


class Once:
    def __init__(self, services: Services, caller: str, path: str, key: str | None) -> None:
        self._services, self._caller, self._path, self._key = services, caller, path, key

    @property
    def key(self) -> str | None:
        """The key, unlike that of any other caller; None: the request came without."""
        return f"{self._caller}/{self._key}" if self._key else None

    def __call__(self, asked: BaseModel, work: Work) -> Response:
        """The answer of the work, or the one it had the first time.

        Failures of ours are not kept: with the same key, the request may be tried again.

        Raises:
            KeyReused: the key came with another request.
            ConflictError: the same request has been under way for too long.
        """
        if self._key is None:
            return work()
        replies, now = self._services.ledger.replies, self._services.clock()
        request_hash = self._hash(asked)
        with replies.lock(self._caller, self._key):
            kept = replies.find(self._caller, self._key, request_hash, now)
            if kept is not None:
                return Response(kept.body, kept.status, {"Idempotency-Replayed": "true"}, kept.media_type)
            response = _tried(work)
            if response.status_code < 500:
                replies.keep(self._to_keep(response, request_hash))
        return response

    def _hash(self, asked: BaseModel) -> str:
        said = json.dumps([self._path, asked.model_dump(mode="json")], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()

    def _to_keep(self, response: Response, request_hash: str) -> KeptReply:
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


def _once(request: Request, token: Authenticated, clm: Connected, key: Key = None) -> Once:
    return Once(clm, token.id, request.url.path, key)


def written(answer: BaseModel, status: int = 200) -> Response:
    return Response(answer.model_dump_json(), status, media_type="application/json")


DoneOnce = Annotated[Once, Depends(_once)]


def _tried(work: Work) -> Response:
    try:
        return work()
    except CLMError as error:
        return of_ours(error)
