"""Export of the audit log for copies kept elsewhere."""

from typing import Annotated

from fastapi import Query
from pydantic import BaseModel

from clm_core.api.context import Connected
from clm_core.ledger.hash_chain import Recorded

MAX_SEQ = 2**53


class AuditPage(BaseModel):
    entries: list[Recorded]
    """Entries, oldest first, each with its hash and the hash of the entry before."""
    next: int | None
    """`after` of the next page; null on the last page."""


def export_audit(
    clm: Connected,
    after: Annotated[int, Query(ge=0, le=MAX_SEQ, description="Only entries after this number.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000, description="Maximum number of entries.")] = 500,
) -> AuditPage:
    """Audit log, page by page; `clm audit verify --file` verifies a copy with an entry a line."""
    entries = clm.ledger.audit_after(after, limit)
    return AuditPage(entries=entries, next=entries[-1].seq if len(entries) == limit else None)
