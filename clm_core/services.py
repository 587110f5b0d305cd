"""Services of a process: the one module that builds the stores from the settings."""

import atexit
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from clm_core.decisions.gate_policy import (
    GatePolicy,
    PolicyDocument,
    PolicyStore,
    load_document,
    load_store,
    with_store,
)
from clm_core.domain.progress import Announce
from clm_core.ledger.alerts import AlertStore
from clm_core.ledger.audit_log import anchor, anchor_folder
from clm_core.ledger.receivers import ReceiverStore
from clm_core.ledger.store import Ledger
from clm_core.market.sources import MarketData
from clm_core.platform.database import Database, open_database
from clm_core.platform.home_record import HomeRecord, is_settled
from clm_core.registry.locations import artifacts_folder, settle
from clm_core.registry.mlflow_registry import MLflowRegistry
from clm_core.registry.promotion import Promotions
from clm_core.settings import Settings, load_settings

if TYPE_CHECKING:
    from sqlalchemy import Engine


@dataclass(frozen=True)
class Services:
    settings: Settings
    database: Database
    ledger: Ledger
    registry: MLflowRegistry
    promotions: Promotions
    alerts: AlertStore
    receivers: ReceiverStore
    market: MarketData
    policies: PolicyDocument
    policy_store: PolicyStore | None
    clock: Callable[[], datetime]
    announce: Announce

    @property
    def work(self) -> Path:
        """Folder for files of unfinished jobs, until the registration of a version."""
        return self.settings.home / "work"

    @property
    def reports(self) -> Path:
        return self.settings.home / "reports"

    def policy(self, model_id: str, symbol: str) -> GatePolicy:
        """Policy in force for the versions of a model.

        Raises:
            PolicyError: the policy store returned an invalid limit.
        """
        policy = self.policies.policy(model_id, symbol)
        return policy if self.policy_store is None else with_store(policy, self.policy_store)


_lock = threading.Lock()
_current: Services | None = None
_at_exit = contextlib.ExitStack()
atexit.register(_at_exit.close)


@contextlib.contextmanager
def open_services(settings: Settings, announce: Announce = lambda step, share: None) -> Iterator[Services]:
    """Open all services while the block lasts; `services()` returns the same object meanwhile."""
    global _current  # noqa: PLW0603 - a Prefect task has no other way to reach the services of its process
    with (
        open_database(settings.home, settings.database_url) as database,
        _connect(settings, database, announce) as opened,
    ):
        before, _current = _current, opened
        try:
            yield opened
        finally:
            _current = before


def services() -> Services:
    """Services of this process; a worker opens the services at the first task, from its settings."""
    with _lock:
        if _current is None:
            _at_exit.enter_context(open_services(load_settings()))
    assert _current is not None
    return _current


@contextlib.contextmanager
def open_ledger(database: Database) -> Iterator["Engine"]:
    """The ledger's database with the tables of this release.

    The tables of the embedded server are upgraded. On a shared server, where an older release may still run,
    tables are created only in an empty database; `clm db upgrade` migrates the others.

    Raises:
        DatabaseUnavailable: the tables belong to another release.
    """
    from clm_core.ledger.engine import open_engine
    from clm_core.ledger.migrations import create_or_require, upgrade

    url = database.url("ledger", driver="psycopg")
    if database.embedded:
        upgrade(url)
    else:
        create_or_require(url)
    engine = open_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


def settle_home(home: Path, database: Database) -> None:
    """Let the locations of the versions follow a home that was moved or copied; cheap for any other home.

    Belongs before the first use of MLflow.

    Raises:
        HomeMismatch: the home is a copy that shares the database with the original.
        StackRunning: `clm up` still runs for the home under the former path.
    """
    if is_settled(home, database):
        return
    with open_ledger(database) as engine:
        settle(home, database, engine, datetime.now(UTC))


@contextlib.contextmanager
def _connect(settings: Settings, database: Database, announce: Announce) -> Iterator[Services]:
    # loaded first, so that a faulty policy is an error before any server is started
    policies = load_document(settings.policy.file, settings.policy.preset)
    store = None if settings.policy.store is None else load_store(settings.policy.store)
    settle_home(settings.home, database)
    record = HomeRecord.read(settings.home)
    with open_ledger(database) as engine:
        ledger = Ledger(engine)
        registry = MLflowRegistry(
            database.url("mlflow", driver="psycopg"),
            artifacts_folder(settings.home),
            settings.fault,
            max_bytes=settings.max_version_mib * 2**20,
            home_id=None if record is None else record.id,
        )
        opened = Services(
            settings=settings,
            database=database,
            ledger=ledger,
            registry=registry,
            promotions=Promotions(ledger, registry, settings.fault),
            alerts=AlertStore(engine),
            receivers=ReceiverStore(engine),
            market=MarketData(settings.home),
            policies=policies,
            policy_store=store,
            clock=lambda: datetime.now(UTC),
            announce=announce,
        )
        try:
            yield opened
        finally:
            # also after an error, so that the audit entries about the error are anchored
            anchor(engine, anchor_folder(settings.home), opened.clock())
