"""The audit, for whoever keeps a copy of it elsewhere."""

from typing import Annotated

from fastapi import Query
from pydantic import BaseModel

from clm_core.api.context import Connected
from clm_core.ledger.hash_chain import Recorded

LONGEST_SEQ = 2**53


class AuditPage(BaseModel):
    entries: list[Recorded]
    """Oldest first, each with its hash and that of the one before."""
    next: int | None
    """`after` of the next page; null: there is none yet."""


def export_audit(
    clm: Connected,
    after: Annotated[int, Query(ge=0, le=LONGEST_SEQ, description="Only entries after this number.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000, description="How many at most.")] = 500,
) -> AuditPage:
    """Who did what and when, page by page; `clm audit verify --file` checks a copy, one entry a line."""
    found = clm.ledger.audit_after(after, limit)
    return AuditPage(entries=found, next=found[-1].seq if len(found) == limit else None)
