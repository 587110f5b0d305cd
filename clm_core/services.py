"""Settings to Services: the one module that knows every adaptor."""

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
        """Where a job keeps its files until they are registered."""
        return self.settings.home / "work"

    @property
    def reports(self) -> Path:
        return self.settings.home / "reports"

    def policy(self, model_id: str, symbol: str) -> GatePolicy:
        """The levels a version of this model is judged by at this moment.

        Raises:
            PolicyError: the policy store answered something that is no limit.
        """
        policy = self.policies.policy(model_id, symbol)
        return policy if self.policy_store is None else with_store(policy, self.policy_store)


_lock = threading.Lock()
_current: Services | None = None
_at_exit = contextlib.ExitStack()
atexit.register(_at_exit.close)


@contextlib.contextmanager
def open_services(settings: Settings, announce: Announce = lambda step, share: None) -> Iterator[Services]:
    """Everything connected, for as long as the block lasts; `services()` answers with it meanwhile."""
    global _current  # noqa: PLW0603 - Prefect gives a task no other way to reach what its process holds
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
    """The services of this process; a worker's process opens them at its first task, from its settings."""
    with _lock:
        if _current is None:
            _at_exit.enter_context(open_services(load_settings()))
    assert _current is not None
    return _current


@contextlib.contextmanager
def open_ledger(database: Database) -> Iterator["Engine"]:
    """The ledger's database, with the tables that this release expects.

    On a server of our own they are upgraded. On one that others share, which may still run an older release,
    they are only made where there are none; `clm db upgrade` does the rest.

    Raises:
        DatabaseUnavailable: the tables are another release's.
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


@contextlib.contextmanager
def _connect(settings: Settings, database: Database, announce: Announce) -> Iterator[Services]:
    # before anything is opened: what is wrong with it needs no server to tell
    policies = load_document(settings.policy.file, settings.policy.preset)
    store = None if settings.policy.store is None else load_store(settings.policy.store)
    with open_ledger(database) as engine:
        ledger = Ledger(engine)
        registry = MLflowRegistry(
            database.url("mlflow", driver="psycopg"),
            settings.home / "mlflow" / "artifacts",
            settings.fault,
            most_bytes=settings.max_version_mib * 2**20,
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
            # also after an error: what was recorded of it is to be anchored
            anchor(engine, anchor_folder(settings.home), opened.clock())
