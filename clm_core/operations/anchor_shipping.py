"""Shipping of the audit's anchors to places outside the home, and comparison of the audit with the places.

Each place is independent of the others. A place that cannot be reached raises an alert and gets everything it
missed later; a place that contradicts the audit raises another alert, and gets nothing.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from clm_core.domain.alerts import Alert, AlertKind
from clm_core.domain.audit_settings import AuditSettings
from clm_core.domain.errors import AuditBroken, DeliveryFailed, SettingsError
from clm_core.domain.events import AuditAnchored
from clm_core.ledger import timestamps
from clm_core.ledger.anchor_copies import AnchorCopy, FolderCopy, GitCopy
from clm_core.ledger.audit_log import anchor_folder, read_anchors
from clm_core.ledger.hash_chain import Anchor
from clm_core.ledger.timestamps import Authority, authority_of
from clm_core.services import Services

TIMESTAMP = "timestamp"
WEBHOOK = "webhook"
ALERTS = (AlertKind.AUDIT_BROKEN, AlertKind.ANCHORS_NOT_SHIPPED)
"""Kinds of the alerts about a place; the subject is the name of the place."""


@dataclass(frozen=True)
class ComparedPlace:
    """Anchors of one place, for a comparison with the audit."""

    place: str
    anchors: tuple[Anchor, ...]
    stamped: int
    """Number of verified timestamps among the anchors."""
    problem: str | None = None
    """Cause that kept the place from being read, or the defect of the place."""


def steps(services: Services) -> Iterable[tuple[str, Callable[[], list[str]]]]:
    """Place, and the step that ships to the place and returns a sentence for each change or failure.

    Timestamps come first, so that copies get the newest.
    """
    audit = services.settings.audit
    authority = authority_of(audit)
    if authority is not None:
        yield TIMESTAMP, partial(_step, services, TIMESTAMP, partial(_stamp, services, authority))
    for copy in copies(audit, services.settings.home):
        yield copy.name, partial(_step, services, copy.name, partial(_copy, services, copy))
    if audit.webhook is not None:
        yield WEBHOOK, partial(_announce, services)


def copies(audit: AuditSettings, home: Path) -> list[AnchorCopy]:
    """Places that can be read back."""
    places = list[AnchorCopy]()
    if audit.folder is not None:
        places.append(FolderCopy(audit.folder))
    if audit.git is not None:
        places.append(GitCopy(audit.git, audit.git_branch, home / "audit" / "git"))
    return places


def compare(audit: AuditSettings, home: Path) -> list[ComparedPlace]:
    """Anchors and timestamps of every place that can be read back, and the timestamps of the home."""
    authority = authority_of(audit)
    own = [] if authority is None else [_own_timestamps(authority, anchor_folder(home))]
    return [*own, *(_read(copy, authority) for copy in copies(audit, home))]


def _own_timestamps(authority: Authority, folder: Path) -> ComparedPlace:
    place = "timestamps of the home"
    try:
        stamped = tuple(_stamped(authority, folder))
    except (AuditBroken, SettingsError) as error:
        return ComparedPlace(place, (), 0, str(error))
    return ComparedPlace(place, stamped, len(stamped))


def _read(copy: AnchorCopy, authority: Authority | None) -> ComparedPlace:
    try:
        folder = copy.folder()
        anchors = read_anchors(folder)
        stamped = [] if authority is None else list(_stamped(authority, folder))
    except (AuditBroken, DeliveryFailed, SettingsError) as error:
        return ComparedPlace(copy.name, (), 0, str(error))
    return ComparedPlace(copy.name, (*anchors, *stamped), len(stamped))


def _stamped(authority: Authority, folder: Path) -> Iterator[Anchor]:
    """Anchors that the timestamps prove; entries are numbered 1, 2, 3, ..., so that number and count agree.

    Raises:
        AuditBroken: a token is invalid.
    """
    for token in timestamps.tokens(folder):
        try:
            signed_at = authority.verify(token.file.read_bytes(), token.hash)
        except AuditBroken as error:
            raise AuditBroken(f"{token.file}: {error}") from error
        yield Anchor(at=signed_at, seq=token.seq, hash=token.hash, count=token.seq)


def _step(services: Services, place: str, ship: Callable[[], list[str]]) -> list[str]:
    """Ship to a place; failures become alerts and sentences, since no other work may wait for a place."""
    broken, unreachable = ALERTS
    try:
        sentences = ship()
    except AuditBroken as error:
        return _alert(services, broken, place, f"{error}")
    except (DeliveryFailed, SettingsError) as error:
        message = f"Anchors of the audit do not reach the {place}, and follow once they do: {error}."
        return _alert(services, unreachable, place, message)
    for kind in ALERTS:
        services.alerts.end(kind, place, services.clock())
    return sentences


def _alert(services: Services, kind: AlertKind, place: str, message: str) -> list[str]:
    services.alerts.record(Alert(kind=kind, subject=place, message=message, at=services.clock()))
    return [message]


def _stamp(services: Services, authority: Authority) -> list[str]:
    """Have the newest anchor stamped: the chain of hashes covers the anchors before."""
    folder = anchor_folder(services.settings.home)
    anchors = read_anchors(folder)
    stamped = {token.hash for token in timestamps.tokens(folder)}
    if not anchors or anchors[-1].hash in stamped:
        return []
    signed_at = authority.stamp(anchors[-1], folder)
    return [f"entry {anchors[-1].seq} is stamped with {signed_at:%Y-%m-%d %H:%M:%S} UTC"]


def _copy(services: Services, copy: AnchorCopy) -> list[str]:
    services.ledger.require_anchored(read_anchors(copy.folder()), copy.name)
    shipped = copy.ship(anchor_folder(services.settings.home))
    return [f"{shipped} anchors were shipped to {copy.name}"] if shipped else []


def _announce(services: Services) -> list[str]:
    """Put the newest anchor into the outbox, for the receiver of anchors."""
    anchors = read_anchors(anchor_folder(services.settings.home))
    if not anchors:
        return []
    payload = AuditAnchored.model_validate(anchors[-1].model_dump())
    new = services.ledger.announce_anchor(payload, services.clock())
    return [f"entry {payload.seq} is announced"] if new else []
