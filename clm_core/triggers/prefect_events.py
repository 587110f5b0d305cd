"""Events that others emit on Prefect's own bus: each comes into the inbox, under the id it has there."""

import json
from datetime import datetime, timedelta

from clm_core.domain.errors import AlreadyExists
from clm_core.domain.triggers import MessageDelivery
from clm_core.platform.prefect_runs import BusEvent, knows_prefect, prefect_runs
from clm_core.services import Services
from clm_core.triggers import inbox
from clm_core.triggers.messages import IncomingType

SOURCE = "prefect"
LOOKS_BACK = timedelta(days=7)
"""At first; Prefect keeps its events no longer."""
OVERLAP = timedelta(hours=1)
"""An event may come to the server long after it occurred: its emitter was cut off for a while."""


def collect(services: Services) -> int:
    """Keep what was emitted since the last look, for the drain to answer; how many were new.

    Raises:
        ServerUnavailable: Prefect does not answer; its events stay there.
    """
    if not knows_prefect(services.settings.home):
        return 0
    newest, now = services.ledger.triggers.last_received(SOURCE), services.clock()
    since = now - LOOKS_BACK if newest is None else newest - OVERLAP
    with prefect_runs(services.settings.home) as prefect:
        events = prefect.events([*IncomingType], since)
    return sum(_keep(services, event, now) for event in events)


def _keep(services: Services, event: BusEvent, now: datetime) -> bool:
    """Whether it is new."""
    body = json.dumps({"type": event.name, "data": event.payload}, sort_keys=True).encode()
    try:
        return inbox.receive(services, SOURCE, event.id, body, now).delivery is MessageDelivery.NEW
    except AlreadyExists:
        # another release wrote it down in other words; those behind it must not wait for that
        return False
