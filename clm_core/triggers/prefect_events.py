"""Events emitted to Prefect by other systems, stored in the inbox under their Prefect ids.

The watch requests the retrains for a changed regime itself: its event of the same name is passed over."""

import json
from datetime import datetime, timedelta

from clm_core.domain.errors import AlreadyExists
from clm_core.domain.events import MODEL_RESOURCE
from clm_core.domain.triggers import MessageDelivery
from clm_core.platform.prefect_runs import PrefectEvent, knows_prefect, prefect_runs
from clm_core.services import Services
from clm_core.triggers import inbox
from clm_core.triggers.messages import IncomingType

SOURCE = "prefect"
FIRST_LOOKBACK = timedelta(days=7)
"""Period of the first collection; Prefect stores events no longer."""
OVERLAP = timedelta(hours=1)
"""Overlap of two collections: an event may reach the server late, after a network outage of the emitter."""


def collect(services: Services) -> int:
    """Stores the events since the last collection for dispatch; the number of new events.

    Raises:
        ServerUnavailable: Prefect does not answer; the events stay in Prefect.
    """
    if not knows_prefect(services.settings.home):
        return 0
    newest = services.ledger.triggers.last_received(SOURCE)
    now = services.clock()
    # the newest message may be from before the clock was put back
    since = now - FIRST_LOOKBACK if newest is None else min(newest, now) - OVERLAP
    with prefect_runs(services.settings.home) as prefect:
        events = prefect.events([*IncomingType], since)
    others = (event for event in events if not event.resource.startswith(MODEL_RESOURCE))
    return sum(_keep(services, event, now) for event in others)


def _keep(services: Services, event: PrefectEvent, now: datetime) -> bool:
    """True if the event is new."""
    body = json.dumps({"type": event.name, "data": event.payload}, sort_keys=True).encode()
    try:
        return inbox.receive(services, SOURCE, event.id, body, now).delivery is MessageDelivery.NEW
    except AlreadyExists:
        # stored by another release in another form; later events must not wait
        return False
