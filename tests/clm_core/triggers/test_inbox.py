"""Messages from outside, on a real ledger."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from clm_core.domain.errors import AlreadyExists
from clm_core.domain.triggers import Delivery
from clm_core.services import Services
from clm_core.triggers import inbox

pytestmark = pytest.mark.xdist_group("servers")

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("after", [timedelta(minutes=6), timedelta(hours=24), timedelta(hours=76)], ids=str)
def test_a_message_is_known_again_however_late_it_comes(after: timedelta, clm: Services) -> None:
    first = inbox.receive(clm, "monitor", "evt_1", b"{}", NOW)
    again = inbox.receive(clm, "monitor", "evt_1", b"{}", NOW + after)
    assert (first.delivery, again.delivery) == (Delivery.NEW, Delivery.KNOWN)
    assert first.received_at == again.received_at == NOW


def test_the_same_id_from_another_source_is_another_message(clm: Services) -> None:
    inbox.receive(clm, "monitor", "evt_1", b"{}", NOW)
    assert inbox.receive(clm, "risk", "evt_1", b"{}", NOW).delivery is Delivery.NEW


def test_the_same_id_with_another_body_is_refused_and_the_first_is_kept(clm: Services) -> None:
    inbox.receive(clm, "monitor", "evt_1", b"{}", NOW)
    with pytest.raises(AlreadyExists, match="another message under the id evt_1 at 2026-03-01 12:00:00"):
        inbox.receive(clm, "monitor", "evt_1", b'{"a": 1}', NOW)
    assert [message.body for message in clm.ledger.triggers.messages()] == [b"{}"]


def test_1000_deliveries_of_one_message_over_32_threads_are_one(clm: Services) -> None:
    with ThreadPoolExecutor(32) as pool:
        receipts = list(pool.map(lambda _: inbox.receive(clm, "monitor", "evt_1", b"{}", NOW), range(1000)))
    assert Counter(receipt.delivery for receipt in receipts) == {Delivery.NEW: 1, Delivery.KNOWN: 999}
    assert len(clm.ledger.triggers.messages()) == 1
