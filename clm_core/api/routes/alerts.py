"""Recorded alerts."""

from typing import Annotated

from fastapi import Query

from clm_core.api.context import Connected
from clm_core.api.parameters import Limit, Number
from clm_core.domain.alerts import AlertKind, RaisedAlert
from clm_core.domain.listings import Page


def list_alerts(
    clm: Connected,
    kind: Annotated[AlertKind | None, Query(description="Only alerts of this kind.")] = None,
    lasting: Annotated[bool, Query(description="Only conditions that last.")] = False,
    limit: Limit = 50,
    after: Number | None = None,
) -> Page[RaisedAlert]:
    """Recorded alerts with the ends of conditions, newest first."""
    alerts = clm.alerts.newest(limit, kind=kind, lasting=lasting, before=after)
    following = str(alerts[-1].seq) if len(alerts) == limit else None
    return Page(items=tuple(alerts), next=following)
