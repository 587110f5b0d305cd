"""Revisions 0036 and 0044 in ledgers that hold data: roles with a single right."""

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

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
EVE = Actor(name="eve", role=Role.ADMIN)


@pytest.mark.parametrize(
    ("before", "after", "new"), [("0035", "0036", Role.REPORTER), ("0043", "0044", Role.SCRAPER)]
)
def test_a_revision_keeps_the_tokens_and_accepts_the_new_role(
    before: str, after: str, new: Role, empty_database: Callable[[], str]
) -> None:
    url = empty_database()
    upgrade(url)
    move(url, before, down=True)
    engine = open_engine(url)
    ledger = Ledger(engine)

    def issue(role: Role, number: int) -> None:
        secret = Secret.generate(lambda length: bytes([number]) * length)
        ledger.tokens.issue(new_token(secret, f"a {role}", role, EVE, NOW, timedelta(days=1)), secret, EVE)

    def roles() -> set[Role]:
        return {token.role for token in ledger.tokens.tokens()}

    issue(Role.VIEWER, 1)
    with pytest.raises(IntegrityError, match="ck_api_tokens_role"):
        issue(new, 2)
    move(url, after)
    issue(new, 3)
    assert roles() == {Role.VIEWER, new}
    # the audit keeps the creation of a token that the downgrade removes
    entries = len(ledger.audit_after(0, 10))
    engine.dispose()
    move(url, before, down=True)
    assert roles() == {Role.VIEWER}
    assert len(ledger.audit_after(0, 10)) == entries
    engine.dispose()
