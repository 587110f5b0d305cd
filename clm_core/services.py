"""Services of a process: the one module that builds the stores from the settings."""

import atexit
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
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
from clm_core.decisions.lifecycle_rules import LifecycleRules
from clm_core.decisions.trading_terms import OLD_COSTS, keeps_old_costs, trading_terms
from clm_core.domain.errors import SettingsError
from clm_core.domain.progress import Announce
from clm_core.domain.spellings import normalise_symbol
from clm_core.domain.terms import CostSources, MarketSettings, TradingTerms
from clm_core.domain.versions import ModelVersion
from clm_core.ledger.alerts import AlertStore
from clm_core.ledger.audit_log import anchor, anchor_folder
from clm_core.ledger.clock import read_clock
from clm_core.ledger.receivers import ReceiverStore
from clm_core.ledger.store import Ledger
from clm_core.market import feature_files
from clm_core.market.timeframes import Calendar
from clm_core.platform import tracing
from clm_core.platform.bucket import Bucket
from clm_core.platform.database import Database, open_database
from clm_core.platform.home_costs import HomeCosts
from clm_core.platform.home_record import HomeRecord, is_settled
from clm_core.platform.private_files import keep_files_private
from clm_core.platform.stack_state import PageAddresses, page_addresses
from clm_core.registry.loaded_once import LoadingOnceRegistry
from clm_core.registry.locations import artifacts_folder, settle
from clm_core.registry.mlflow_registry import MLflowRegistry
from clm_core.registry.promotion import Promotions
from clm_core.settings import (
    Settings,
    cost_sources,
    home_cost_sources,
    home_markets,
    load_settings,
)

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from clm_core.backtest.terms import MarketTerms
    from clm_core.market.sources import MarketData


@dataclass(frozen=True)
class Replayed:
    """Past in place of the present, for a replay."""

    clock: Callable[[], datetime]
    """Moment of the past, in UTC."""
    market: "MarketData"
    """Bars of the installation, read up to the clock."""
    trainings: Path
    """Folder of the results of trainings by key: equal trainings of several replays are done once."""


@dataclass(frozen=True)
class Services:
    settings: Settings
    database: Database
    ledger: Ledger
    registry: MLflowRegistry
    promotions: Promotions
    alerts: AlertStore
    receivers: ReceiverStore
    open_market: Callable[[], "MarketData"]
    """Opens the stored bars; see `market`."""
    policies: PolicyDocument
    policy_store: PolicyStore | None
    clock: Callable[[], datetime]
    """Present time in UTC by the clock of the database, the same for every process and machine."""
    pause: Callable[[float], None]
    """Waits a number of seconds, unaffected by a step of the clock or a suspension of the machine."""
    announce: Announce
    is_old_home: bool = False
    """True for a home made by release 0.1.0, which keeps the default costs of that release."""
    replayed: Replayed | None = None
    """None in the present."""

    @cached_property
    def market(self) -> "MarketData":
        """Stored bars, opened at the first use: many commands need neither bars nor their libraries."""
        return self.open_market()

    @cached_property
    def storage_probe(self) -> Bucket | None:
        """Bucket for a look at the storage; None where the home holds everything."""
        storage = self.settings.storage
        return None if storage.url is None else Bucket.probed(storage)

    @property
    def work(self) -> Path:
        """Folder for files of unfinished jobs, until the registration of a version."""
        return self.settings.home / "work"

    @property
    def folds(self) -> Path:
        """Folder of the models of past folds."""
        beside = self.settings.home if self.replayed is None else self.replayed.trainings
        return beside / "folds"

    @property
    def reports(self) -> Path:
        return self.settings.home / "reports"

    @property
    def page_addresses(self) -> PageAddresses:
        """Addresses of the pages for people."""
        return page_addresses(self.settings.home, self.settings.api.public_url)

    def policy(self, model_id: str, symbol: str) -> GatePolicy:
        """Policy in force for the versions of a model.

        Raises:
            PolicyError: the policy store returned an invalid limit.
        """
        policy = self.policies.policy(model_id, symbol)
        return policy if self.policy_store is None else with_store(policy, self.policy_store)

    def lifecycle(self, model_id: str, symbol: str) -> LifecycleRules:
        """Rules of the shadows of a model."""
        return self.policies.lifecycle(model_id, symbol)

    def terms(self, symbol: str, calendar: Calendar | str) -> "MarketTerms":
        """Terms of trading in force for a market: costs, costs of holding, execution, long-only.

        Raises:
            StoreCorrupt: a file of stored payments was changed.
        """
        return self._terms(symbol, calendar, self.settings.markets, cost_sources(self.settings))

    def home_terms(self, symbol: str, calendar: Calendar | str) -> "MarketTerms":
        """Terms of a market by the settings file of the home: variables of the process have no effect.

        Promotions judge under these terms, so that the costs do not depend on the caller.

        Raises:
            StoreCorrupt: a file of stored payments was changed.
        """
        return self._terms(symbol, calendar, home_markets(self.settings), home_cost_sources(self.settings))

    def _terms(
        self,
        symbol: str,
        calendar: Calendar | str,
        markets: Mapping[str, MarketSettings],
        costs: CostSources,
    ) -> "MarketTerms":
        from clm_core.backtest.terms import MarketTerms

        carry = self.market.carry(symbol)
        own = markets.get(normalise_symbol(symbol), MarketSettings())
        execution = self.settings.execution
        terms = trading_terms(symbol, calendar, own, costs, execution, carry, self.is_old_home)
        return MarketTerms(terms, carry)

    def version_terms(
        self, version: ModelVersion, calendar: Calendar | str, symbol: str | None = None
    ) -> "MarketTerms":
        """Terms in force for the market of a version, with the execution of its judgement.

        Args:
            symbol: market of a pool's member; by default the version's market.

        Raises:
            StoreCorrupt: a file of stored payments was changed.
        """
        from clm_core.ledger.executions import version_execution

        rules = version_execution(self.ledger, version, self.settings.execution.rules)
        return self.terms(symbol or version.symbol, calendar).under(rules)

    def recorded_terms(self, symbol: str, terms: TradingTerms) -> "MarketTerms":
        """Recorded terms of a market, with the stored payments that were in force at the time.

        Raises:
            UnknownSeries: the payments are no longer stored.
        """
        from clm_core.backtest.terms import MarketTerms

        carry = self.market.recorded_carry(symbol, terms.funding_hash, terms.dividends_hash)
        return MarketTerms(terms, carry)


logger = logging.getLogger(__name__)
_lock = threading.Lock()
_current: Services | None = None
_at_exit = contextlib.ExitStack()
atexit.register(_at_exit.close)


@contextlib.contextmanager
def open_services(
    settings: Settings,
    announce: Announce = lambda step, share: None,
    replayed: Replayed | None = None,
) -> Iterator[Services]:
    """Open all services while the block lasts; `services()` returns the same object meanwhile."""
    global _current  # noqa: PLW0603 - a Prefect task has no other way to reach the services of its process
    costs = HomeCosts.of(settings.home)
    with (
        feature_files.use(settings.features.files),
        tracing.exported(settings.tracing),
        open_database(settings.home, settings.database_url) as database,
        _connect(settings, database, announce, costs, replayed) as opened,
    ):
        before = _current
        _current = opened
        try:
            yield opened
        finally:
            _current = before


def services() -> Services:
    """Services of this process; a worker opens the services at the first task, from its settings."""
    with _lock:
        if _current is None:
            keep_files_private()
            _at_exit.enter_context(open_services(load_settings()))
    assert _current is not None
    return _current


def loading_problem() -> str | None:
    """Reason why a process that starts now could not load settings and policy document, if any.

    Every scheduled pass loads both at its start, so a problem stops all of them.
    """
    try:
        settings = load_settings()
        load_document(settings.policy.file, settings.policy.preset)
    except SettingsError as error:
        return str(error)
    return None


@contextlib.contextmanager
def open_ledger(database: Database, outlives_server: bool = True) -> Iterator["Engine"]:
    """The ledger's database with the tables of this release.

    The tables of the embedded server are upgraded. On a shared server, where an older release may still run,
    tables are created only in an empty database; `clm db upgrade` migrates the others.

    Raises:
        DatabaseUnavailable: the tables belong to another release.
    """
    from clm_core.ledger.engine import open_engine
    from clm_core.ledger.migrations import create_or_require, is_current, upgrade

    url = database.url("ledger", driver="psycopg")
    engine = open_engine(url, outlives_server)
    try:
        if not is_current(engine):
            if database.embedded:
                upgrade(url)
            else:
                create_or_require(url)
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
        settle(home, database, engine, read_clock(engine))


def replay_address(database: Database, home: Path) -> str:
    """Address of MLflow's database in the home of a replay, unlike those of the homes before.

    MLflow takes a known address for a migrated database, and one home after another may have the same.
    """
    return f"{database.url('mlflow')}&application_name={home.name}"


@contextlib.contextmanager
def _connect(
    settings: Settings,
    database: Database,
    announce: Announce,
    costs: HomeCosts,
    replayed: Replayed | None,
) -> Iterator[Services]:
    # loaded first, so that a faulty policy is an error before any server is started
    policies = load_document(settings.policy.file, settings.policy.preset)
    store = None if settings.policy.store is None else load_store(settings.policy.store)
    settle_home(settings.home, database)
    record = HomeRecord.read(settings.home)
    # a replay ends with the server of its home
    with open_ledger(database, outlives_server=replayed is None) as engine:
        ledger = Ledger(engine, None if replayed is None else replayed.clock)
        registry_of = MLflowRegistry if replayed is None else LoadingOnceRegistry
        registry = registry_of(
            database.url("mlflow") if replayed is None else replay_address(database, settings.home),
            artifacts_folder(settings.home),
            settings.fault,
            max_bytes=settings.max_version_mib * 2**20,
            home_id=None if record is None else record.id,
            storage=settings.storage,
        )
        opened = Services(
            settings=settings,
            database=database,
            ledger=ledger,
            registry=registry,
            promotions=Promotions(ledger, registry, settings.fault),
            alerts=AlertStore(engine),
            receivers=ReceiverStore(engine),
            open_market=lambda: _open_market(settings) if replayed is None else replayed.market,
            policies=policies,
            policy_store=store,
            clock=ledger.now,
            pause=time.sleep,
            announce=announce,
            is_old_home=_settle_costs(settings, ledger, costs),
            replayed=replayed,
        )
        try:
            yield opened
        finally:
            # also after an error, so that the audit entries about the error are anchored
            anchor(engine, anchor_folder(settings.home), opened.clock())


def _open_market(settings: Settings) -> "MarketData":
    from clm_core.platform.object_storage import market_data

    return market_data(settings.home, settings.storage)


def _settle_costs(settings: Settings, ledger: Ledger, costs: HomeCosts) -> bool:
    """Record the default costs of the home, and tell once that old costs are kept; True for an old home.

    Evaluations without recorded terms show that release 0.1.0 used the database, whoever made the home.
    """
    if costs.defaults == "market" and HomeCosts.read(settings.home) is None and ledger.has_unrecorded_terms():
        costs = HomeCosts(defaults="0.1.0")
    is_old = costs.defaults == "0.1.0"
    named = settings.costs.fee_bps is not None and settings.costs.slippage_bps is not None
    if keeps_old_costs(settings.costs, is_old) and not named and not costs.announced and is_old:
        logger.warning(
            "This home was made by release 0.1.0: every market without costs in the settings keeps "
            f"{OLD_COSTS.fee_bps:g} bps of fees and {OLD_COSTS.slippage_bps:g} bps of slippage on each side. "
            'Set [markets.SYMBOL.costs] or [costs] in clm.toml; [costs] defaults = "market" takes the '
            'defaults by market, defaults = "0.1.0" keeps the old. This is said once.'
        )
        costs = costs.model_copy(update={"announced": True})
    if costs != HomeCosts.read(settings.home):
        costs.write(settings.home)
    return is_old
