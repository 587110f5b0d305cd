"""Tokens of the REST API, with a hash of each secret."""

import hmac
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, func, insert, or_, select, update

from clm_core.domain.actors import Actor
from clm_core.domain.audit import Action
from clm_core.domain.errors import NotAuthenticated, NotFound
from clm_core.domain.tokens import Secret, Token
from clm_core.ledger import audit_records
from clm_core.ledger.tables import Base, TokenRow

_TOKENS = Base.metadata.tables[TokenRow.__tablename__]
_USE_NOTED_EVERY = timedelta(minutes=1)
_ASK = "ask an admin for a new token (`clm tokens create`)"


class TokenStore:
    """Tokens of the REST API. Every method is a transaction, every change an entry of the audit."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def issue(self, token: Token, secret: Secret, actor: Actor) -> Token:
        with self._engine.begin() as connection:
            connection.execute(insert(_TOKENS).values(token.model_dump() | {"digest": secret.digest}))
            _audit(connection, Action.TOKEN_CREATED, token, actor, token.created_at)
        return token

    def authenticate(self, presented: str, now: datetime | None = None) -> Token:
        """Token that belongs to the presented secret.

        Args:
            now: None for the present time of the database, read in the same query.

        Raises:
            NotAuthenticated: the secret is unknown, or the token has expired or was revoked. Only the holder
                of the secret learns the reason.
        """
        secret = Secret.parse(presented)
        if secret is None:
            raise NotAuthenticated(
                f"The secret is malformed: check that the whole secret was copied, or {_ASK}."
            )
        row = self._row(secret.token_id)
        if row is None or not hmac.compare_digest(row["digest"], secret.digest):
            raise NotAuthenticated(f"The token is unknown: {_ASK}.")
        now = now or row["now"]
        token = _valid(row, now)
        if token.last_used_at is None or token.last_used_at <= now - _USE_NOTED_EVERY:
            with self._engine.begin() as connection:
                _note_use(connection, token, now)
        return token

    def valid(self, token_id: str) -> Token:
        """Token of a session that began with the token's secret, by the time of the database.

        Raises:
            NotAuthenticated: the token is unknown, has expired or was revoked.
        """
        row = self._row(token_id)
        if row is None:
            raise NotAuthenticated(f"The token is unknown: {_ASK}.")
        return _valid(row, row["now"])

    def _row(self, token_id: str) -> RowMapping | None:
        """Row of a token with the time of the database, in one round trip: every request asks for it."""
        query = select(*_TOKENS.c, func.clock_timestamp().label("now")).where(_TOKENS.c.id == token_id)
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            return connection.execute(query).mappings().one_or_none()

    def tokens(self) -> list[Token]:
        """All tokens, expired and revoked tokens included, newest first."""
        with self._engine.begin() as connection:
            query = select(_TOKENS).order_by(_TOKENS.c.created_at.desc(), _TOKENS.c.id)
            return [_token(row) for row in connection.execute(query).mappings()]

    def revoke(self, token_id: str, actor: Actor, now: datetime) -> Token:
        """Revoke a token at once; a second revocation changes nothing.

        Raises:
            NotFound: the token does not exist.
        """
        revoked = (
            update(_TOKENS)
            .where(_TOKENS.c.id == token_id, _TOKENS.c.revoked_at.is_(None))
            .values(revoked_at=now)
            .returning(*_TOKENS.c)
        )
        with self._engine.begin() as connection:
            row = connection.execute(revoked).mappings().one_or_none()
            if row is not None:
                _audit(connection, Action.TOKEN_REVOKED, _token(row), actor, now)
                return _token(row)
            row = connection.execute(select(_TOKENS).where(_TOKENS.c.id == token_id)).mappings().one_or_none()
        if row is None:
            raise NotFound(f"There is no token {token_id}. `clm tokens list` shows the tokens.")
        return _token(row)


def _token(row: Mapping[Any, Any]) -> Token:
    return Token.model_validate({name: row[name] for name in Token.model_fields})


def _valid(row: RowMapping, now: datetime) -> Token:
    token = _token(row)
    if refusal := token.refusal(now):
        raise NotAuthenticated(f"The token {token.id} {refusal}: {_ASK}.")
    return token


def _note_use(connection: Connection, token: Token, now: datetime) -> None:
    """Record the last use, at most once a minute: an update at every request would slow reading."""
    stale = or_(_TOKENS.c.last_used_at.is_(None), _TOKENS.c.last_used_at <= now - _USE_NOTED_EVERY)
    connection.execute(update(_TOKENS).where(_TOKENS.c.id == token.id, stale).values(last_used_at=now))


def _audit(connection: Connection, action: Action, token: Token, actor: Actor, now: datetime) -> None:
    details = token.model_dump(mode="json", include={"name", "role", "expires_at"})
    audit_records.record(connection, action, f"token {token.id}", now, details, actor)
