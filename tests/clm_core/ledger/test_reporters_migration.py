"""Revision 0036 in ledgers that hold data: tokens that may report fills alone."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from revisions import move
from sqlalchemy.exc import IntegrityError

from clm_core.domain.actors import Actor
from clm_core.domain.tokens import Secret, new_token
from clm_core.domain.vocabulary import Role
from clm_core.ledger.engine import open_engine
from clm_core.ledger.migrations import upgrade
from clm_core.ledger.store import Ledger

FORMER = "0035"
NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
EVE = Actor(name="eve", role=Role.ADMIN)


def test_revision_0036_keeps_the_tokens_and_accepts_reporters(empty_database: Callable[[], str]) -> None:
    url = empty_database()
    upgrade(url)
    move(url, FORMER, down=True)
    engine = open_engine(url)
    ledger = Ledger(engine)

    def issue(role: Role, number: int) -> None:
        secret = Secret.generate(lambda length: bytes([number]) * length)
        ledger.tokens.issue(new_token(secret, f"a {role}", role, EVE, NOW, timedelta(days=1)), secret, EVE)

    def roles() -> set[Role]:
        return {token.role for token in ledger.tokens.tokens()}

    issue(Role.VIEWER, 1)
    with pytest.raises(IntegrityError, match="ck_api_tokens_role"):
        issue(Role.REPORTER, 2)
    move(url, "0036")
    issue(Role.REPORTER, 3)
    assert roles() == {Role.VIEWER, Role.REPORTER}
    # the audit keeps the creation of a token that the downgrade removes
    entries = len(ledger.audit_after(0, 10))
    engine.dispose()
    move(url, FORMER, down=True)
    assert roles() == {Role.VIEWER}
    assert len(ledger.audit_after(0, 10)) == entries
    engine.dispose()
