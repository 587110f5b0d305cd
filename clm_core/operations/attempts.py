"""What runs while nobody looks: an error of any kind is kept from the rest, and told of once."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from clm_core.domain.alerts import Alert, AlertKind
from clm_core.domain.errors import CLMError
from clm_core.ledger.tables import storable
from clm_core.services import Services

R = TypeVar("R")


def attempt(subject: str, step: Callable[[], R]) -> tuple[R | None, list[str]]:
    """What came of it, and what went wrong in a sentence."""
    try:
        return step(), []
    except Exception as error:  # noqa: BLE001 - whatever it is, the rest has to be kept right all the same
        said = str(error) if isinstance(error, CLMError) else f"{type(error).__name__}: {error}"
        return None, [storable(f"{subject}: {said}")]


def report_problems(services: Services, part: str, command: str, problems: Sequence[str]) -> None:
    """Alert that a part fails, once; and that it no longer does.

    Args:
        command: shows what the matter is.
    """
    now = services.clock()
    if not problems:
        services.alerts.end(AlertKind.MAINTENANCE_FAILING, part, now)
        return
    message = "\n".join([*problems, f"See `{command}`; every pass tries it again."])
    services.alerts.record(Alert(kind=AlertKind.MAINTENANCE_FAILING, subject=part, message=message, at=now))
