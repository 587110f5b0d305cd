"""Watchdog of `clm up`: the dead man's switch beside the workers, in a thread of the supervisor."""

import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from sqlalchemy.exc import SQLAlchemyError

from clm_core.domain.alerts import Alert, AlertKind
from clm_core.domain.errors import CLMError
from clm_core.ledger.engine import open_engine
from clm_core.operations.pass_watch import check
from clm_core.platform import notifications
from clm_core.platform.database import Database
from clm_core.settings import Settings

CHECK_SECONDS = 20.0
JUMP_SECONDS = 60.0
"""Jump of the machine's clock between two checks that tells of a suspended machine."""
STOP_SECONDS = 15.0
SILENT_SECONDS = 60.0
"""Time without an answer of the ledger after which an alert is sent directly."""


class Watchdog(threading.Thread):
    """Thread that checks the passes and the settings until the process ends."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        environment: Mapping[str, str],
        report: Callable[[str], None],
    ) -> None:
        """
        Args:
            settings: settings at the start of the stack, whose receivers get the alerts.
            report: prints a sentence when the illnesses change.
        """
        super().__init__(daemon=True, name="watchdog")
        self._settings = settings
        self._engine = open_engine(database.url("ledger"))
        self._environment = environment
        self._report = report
        self._problems: tuple[str, ...] = ()
        self._silent_since: float | None = None
        self._silence_alerted = False
        self._ended = threading.Event()

    def stop(self) -> None:
        self._ended.set()
        # a check under way may wait for servers that are gone
        self.join(timeout=STOP_SECONDS)
        self._engine.dispose()

    def run(self) -> None:
        restarted = True
        while True:
            begun = time.time()
            self._check(restarted)
            if self._ended.wait(CHECK_SECONDS):
                return
            restarted = time.time() - begun > CHECK_SECONDS + JUMP_SECONDS

    def _check(self, restarted: bool) -> None:
        try:
            urls = self._settings.alerts.urls
            problems = check(self._engine, urls, self._environment, restarted=restarted).problems
        except SQLAlchemyError:
            problems = ("The ledger does not answer.",)
            self._alert_silence()
        except Exception as error:  # noqa: BLE001 - the watchdog itself must not die
            message = str(error) if isinstance(error, CLMError) else f"{type(error).__name__}: {error}"
            problems = (f"The scheduled passes could not be checked: {message}",)
        else:
            self._silent_since = None
            self._silence_alerted = False
        if problems != self._problems:
            self._problems = problems
            self._report("\n".join(problems) or "all scheduled passes succeed again")

    def _alert_silence(self) -> None:
        """Send an alert past the ledger, once an outage."""
        if self._silent_since is None:
            self._silent_since = time.monotonic()
        if self._silence_alerted or time.monotonic() - self._silent_since < SILENT_SECONDS:
            return
        self._silence_alerted = True
        alert = Alert(
            kind=AlertKind.LEDGER_UNREACHABLE,
            subject="ledger",
            message=(
                f"PostgreSQL has not answered for {SILENT_SECONDS:.0f} s: nothing is trained, promoted, "
                "repaired or recorded. `clm status` and the log of the database have the cause."
            ),
            at=datetime.now(UTC),
        )
        for url in self._settings.alerts.urls:
            try:
                notifications.send(url.get_secret_value(), alert)
            except CLMError as error:
                self._report(f"an alert could not be sent: {error}")
