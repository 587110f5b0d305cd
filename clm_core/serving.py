"""Loader for traders: one verified and pinned version, with a check for a newer promotion.

    served = load("xgboost_btcusd_1h", mlflow="http://127.0.0.1:5000", token="clm_...")
    trade(served.positions(served.bars(candles)))

    with follow("xgboost_btcusd_1h", mlflow=..., api=..., token=...) as followed:
        while trading:
            trade(followed.served)

`follow` keeps the version in production loaded, whatever is promoted, rolled back or halted.
`load_allocation` loads all versions that share the capital of a model, with their weights.

Only the bundle is read, and no part of the bundle is parsed before verification. Files beside the bundle in
MLflow, such as serving code, are never run here; a changed file is refused all the same, since
`mlflow.pyfunc` would run the file.

The source of the digests decides the guarantee:

- the ledger: the bytes are the judged bytes of the promoted version, even if MLflow or its artifact store
  was written to by others; a refusal is recorded and alerted;
- over HTTP, MLflow's server of `clm up`: the same, asked of its ledger; a refusal is neither recorded nor
  alerted;
- without a ledger, and over HTTP any other MLflow server, the version's tags in MLflow: no file was damaged,
  lost, added or swapped for a file of another version. An attacker with write access to both the artifacts
  and the tags can still put another model in place, but never make this process run code.
"""

import logging
import warnings
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from clm_core.domain.actors import SYSTEM
from clm_core.domain.allocations import AllocationInForce, AllocationState
from clm_core.domain.errors import (
    ArgumentRefused,
    BundleCorrupt,
    ConflictError,
    ModelHalted,
    NotFound,
    PreflightFailed,
)
from clm_core.domain.execution import FIXED_UNITS, ExecutionRules
from clm_core.domain.promotions import Promotion
from clm_core.domain.published_events import PublishedEvent
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus
from clm_core.evidence.soundness import Skill
from clm_core.ledger.executions import version_execution
from clm_core.ledger.store import Ledger
from clm_core.market import own_features
from clm_core.market.bars import Bars, Floats
from clm_core.market.series import KnownSeries, require_series, with_series
from clm_core.market.series_reading import series_of_tables
from clm_core.market.timeframes import Timeframe
from clm_core.models import golden
from clm_core.models.bundle import load_bundle, read_card
from clm_core.models.contract import Model, require_bars_needed
from clm_core.models.pooled import PooledModel
from clm_core.models.sizing import execution_of
from clm_core.registry.allocation_in_force import allocation_in_force, arm_for_bar
from clm_core.registry.bundle_checks import NO_SKILL, BundleChecks, checks_of
from clm_core.registry.following import Callbacks, Followed, ProductionSource
from clm_core.registry.mlflow_registry import MLflowRegistry
from clm_core.registry.remote import RemoteRegistry
from clm_core.registry.serving_rights import (
    NOT_TRADED,
    PRODUCTION,
    forced_change,
    halt_sentence,
    is_in_production,
    moved_alias,
    not_traded,
    unknown_version,
)
from clm_core.settings import load_settings

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("clm.serving")
EVENTS = "/clm/events"
"""Path of the event stream of the API."""


class VersionSource(Protocol):
    """Versions in MLflow: `MLflowRegistry`, or `RemoteRegistry` over HTTP."""

    def aliased(self, model_id: str, alias: str) -> int | None: ...

    def tagged_digest(self, model_id: str, mlflow_version: int) -> str: ...

    def tagged_status(self, model_id: str, mlflow_version: int) -> ModelStatus: ...

    def verified(
        self, model_id: str, mlflow_version: int, package_digest: str | None
    ) -> AbstractContextManager[Path]: ...


class _Unset:
    """Type of an argument left out, where None has a meaning."""


_UNSET: Final = _Unset()


@dataclass(frozen=True, eq=False)
class Served:
    """One loaded version, unaffected by later promotions."""

    model_id: str
    alias: str
    mlflow_version: int
    """MLflow's own running number of the version."""
    bundle_digest: str
    status: ModelStatus
    """Status at loading time; without a ledger MLflow's tag, which follows with a short delay."""
    model: Model = field(repr=False)
    registry: VersionSource = field(repr=False)
    series: tuple[str, ...] = ()
    """Own series that the version takes beside the bars."""
    execution: ExecutionRules = FIXED_UNITS
    """Stop loss, take profit, lot size and rebalancing under which the version was judged, to be traded.

    The ledger has the rules of a version of an older release from the evaluation; without a ledger, and for a
    version of release 0.1.0: no orders, and a fixed number of units between changes.
    """
    skill: Skill | None = None
    """Skill of the registered model against a constant; None for a version without a measurement."""

    @property
    def bars_needed(self) -> int | None:
        """Number of closed bars from which on more history changes no answer; see `Model.bars_needed`."""
        return self.model.bars_needed

    def bars(
        self,
        candles: "pd.DataFrame",
        *,
        symbol: str | None = None,
        now: datetime | None = None,
        timezone: str | None = None,
        columns: Mapping[str, str] | None = None,
        no_volume: bool = False,
        drop_open_bar: bool = False,
        allow: Collection[str] = (),
    ) -> Bars:
        """Bars of a table of candles, in the market, timeframe and calendar of the version.

        Args:
            candles, now, timezone, columns, no_volume, drop_open_bar, allow: see `Bars.from_frame`.
            symbol: market of the candles: a member of a pool; by default the version's own.

        Raises:
            ArgumentRefused: the version is of a pool, and no symbol says of which member the candles are.
            See also `Bars.from_frame`.
        """
        trained_on = self.model.trained_on
        if isinstance(self.model, PooledModel) and symbol is None:
            members = ", ".join(self.model.symbols)
            raise ArgumentRefused(f"{self.model_id} is a pool of {members}: name one of them as symbol=")
        return Bars.from_frame(
            candles,
            symbol=symbol or trained_on.symbol,
            timeframe=trained_on.timeframe,
            calendar=trained_on.calendar,
            now=now,
            timezone=timezone,
            columns=columns,
            no_volume=no_volume,
            drop_open_bar=drop_open_bar,
            allow=allow,
        )

    def positions(
        self, bars: Bars, series: "Mapping[str, pd.DataFrame | KnownSeries] | None" = None
    ) -> Floats:
        """Target exposure after each bar, shape (n_bars,), in [-1, 1]; see `Model.positions`.

        Args:
            series: own series by name, each a table with the columns `time`, `known` (the time from which on
                the value was known) and `value`, joined as known; not needed for bars that have them already.

        Raises:
            NotEnoughBars: fewer than `bars_needed` bars.
            SeriesMissing: the version takes a series that comes neither with the bars nor as an argument.
            InvalidSeries: a table breaks a rule.
        """
        require_bars_needed(self.model, len(bars), "positions()")
        bars = with_series(bars, series_of_tables(series or {}))
        for name in self.series:
            require_series(bars, name)
        return self.model.positions(bars)

    def changed(self) -> bool:
        """True if the alias names another version by now, or none; sends a request to MLflow.

        Raises:
            RegistryUnavailable: MLflow does not answer; the loaded version goes on giving positions.
        """
        return self.registry.aliased(self.model_id, self.alias) != self.mlflow_version


def load(
    model_id: str,
    alias: str = PRODUCTION,
    *,
    mlflow: str | None = None,
    token: str | None = None,
    registry: VersionSource | None = None,
    ledger: Ledger | _Unset | None = _UNSET,
) -> Served:
    """Load the version behind the alias, verified and tested on its golden rows.

    A failed or retired version can be loaded by its label, with a warning, for inspection; so can a version
    whose registered model holds one side or forecasts worse than a constant. `production` refuses such a
    version, unless an admin forced the promotion: then the version is loaded with a warning.

    Args:
        mlflow: address of the MLflow server that `clm up` prints, for a trader on another machine or as
            another user.
        token: token of the server: of `clm tokens create NAME --role viewer`.
        registry: versions in MLflow, in place of an address.
        ledger: with `registry`: the ledger, or None for a trader without access to it; the module docstring
            states the consequences.

    Raises:
        ArgumentRefused: neither an address nor a registry, or arguments of both.
        NotFound: no version carries the alias, or the version was never registered here.
        ModelHalted: `production` was taken away by a person or the protection; the ledger tells, or its
            server.
        ConflictError: `production` names a version that no promotion put there; the ledger tells, or its
            server.
        BundleCorrupt: the files are not the registered files.
        PreflightFailed: the model's answers differ from those recorded at saving, or are all the same; the
            model in production never trades; or it is unsound and was not forced.
        FeatureMismatch: a feature of the model is missing here, or has another source.
        RegistryUnavailable: MLflow does not answer, or has lost the files.
    """
    return _load(model_id, alias, *_source(mlflow, token, registry, ledger))


def _source(
    mlflow: str | None,
    token: str | None,
    registry: VersionSource | None,
    ledger: Ledger | _Unset | None,
) -> tuple[VersionSource, Ledger | None]:
    if (mlflow is None) == (registry is None):
        raise ArgumentRefused(
            "pass mlflow= with the address that `clm up` prints and token=, or registry= and ledger="
        )
    if mlflow is not None:
        if not isinstance(ledger, _Unset):
            raise ArgumentRefused("ledger= belongs to registry=: over HTTP the server asks the ledger itself")
        return RemoteRegistry(mlflow, token), None
    if token is not None:
        raise ArgumentRefused("token= belongs to mlflow=: a registry has credentials of its own")
    if isinstance(ledger, _Unset):
        raise ArgumentRefused(
            "pass ledger= beside registry=: the ledger, or None for a trader without access to it"
        )
    assert registry is not None
    return registry, ledger


def _load(model_id: str, alias: str, registry: VersionSource, ledger: Ledger | None) -> Served:
    if not own_features.files_chosen():
        own_features.use_files_of(lambda: load_settings().features.files)
    number = registry.aliased(model_id, alias)
    if number is None:
        if alias == PRODUCTION and ledger is not None:
            _require_not_halted(ledger, model_id)
        if alias == PRODUCTION and isinstance(registry, RemoteRegistry):
            registry.require_not_halted(model_id)
        raise NotFound(f"No version of {model_id} has the alias {alias}: `clm promote` promotes a version.")
    if ledger is None:
        digest = registry.tagged_digest(model_id, number)
        status = registry.tagged_status(model_id, number)
        stored = _fetch(registry, model_id, number, digest, None)
        _require_sound(f"{model_id}@{alias}", alias, stored.checks, UNKNOWN_TO_TRADER)
        rules = execution_of(stored.model)
        return _with_warning(
            Served(
                model_id,
                alias,
                number,
                digest,
                status,
                stored.model,
                registry,
                stored.series,
                rules,
                stored.checks.skill,
            )
        )
    version = _recorded(ledger, model_id, number)
    if alias == PRODUCTION and not is_in_production(ledger, version):
        if registry.aliased(model_id, alias) != number:
            # another version was promoted in the meantime
            return _load(model_id, alias, registry, ledger)
        raise ConflictError(moved_alias(version))
    try:
        stored = _fetch(registry, model_id, number, version.bundle_digest, version.package_digest)
    except BundleCorrupt as error:
        ledger.promotions.refuse_bundle(version, SYSTEM, str(error), ledger.now(), once=True)
        raise
    _require_sound(f"{model_id}@{alias}", alias, stored.checks, _overruled(forced_change(ledger, version)))
    rules = version_execution(ledger, version, FIXED_UNITS)
    return _with_warning(
        Served(
            model_id,
            alias,
            number,
            version.bundle_digest,
            version.status,
            stored.model,
            registry,
            stored.series,
            rules,
            stored.checks.skill,
        )
    )


def follow(
    model_id: str,
    *,
    mlflow: str | None = None,
    token: str | None = None,
    api: str | None = None,
    registry: VersionSource | None = None,
    ledger: Ledger | _Unset | None = _UNSET,
    poll_seconds: float = 30.0,
    on_promoted: Callable[[Served, PublishedEvent | None], None] | None = None,
    on_rollback: Callable[[Served, PublishedEvent | None], None] | None = None,
    on_halted: Callable[[PublishedEvent | None], None] | None = None,
) -> Followed[Served]:
    """Load the version in production and keep it current, in threads, until the end of the block.

        with follow(model_id, mlflow=..., api=..., token=...) as followed:
            followed.served  # None while the model is halted: hold no position

    The event stream of the API tells of a promotion, a rollback and a halt within a second, and is opened
    again whenever it ends. The alias in MLflow is read every `poll_seconds` besides, for
    changes missed by the stream.

    Args:
        mlflow, token, registry, ledger: see `load`; the token is the API's as well.
        api: address of the API that `clm up` prints; None to poll alone.
        poll_seconds: seconds between two reads of the alias.
        on_promoted: called with a newly loaded version and the event, None for a change found by polling.
        on_rollback: called with an earlier version put back; without it `on_promoted` is called.
        on_halted: called when no version is in production any more: hold no position.

    Raises:
        See `load`; a model without a version in production is no error, `served` is None then.
    """
    source, records = _source(mlflow, token, registry, ledger)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    followed = Followed(
        model_id,
        ProductionSource(
            number=lambda: source.aliased(model_id, PRODUCTION),
            load=lambda: _load(model_id, PRODUCTION, source, records),
        ),
        None if api is None else (f"{api.rstrip('/')}{EVENTS}", headers),
        Callbacks(on_promoted, on_rollback, on_halted),
        poll_seconds,
    )
    return followed.start()


@dataclass(frozen=True, eq=False)
class ServedAllocation:
    """Loaded versions that share the capital of a model, with the weights at the time of loading."""

    model_id: str
    allocation: AllocationInForce
    """Weights in force at the time of loading."""
    arms: Mapping[str, Served] = field(repr=False)
    """Loaded versions by label, without those that are out."""
    bar: timedelta
    """Length of a bar."""
    ledger: Ledger = field(repr=False)

    @property
    def weights(self) -> dict[str, float]:
        """Share of the capital of each version, 0..1, by label; the sum is 1, or less while capital may not
        be taken over yet."""
        return {arm.version: arm.weight for arm in self.allocation.arms}

    @property
    def bars_needed(self) -> int | None:
        """Number of closed bars that every loaded version needs; None if a version states none."""
        needed = [served.bars_needed for served in self.arms.values()]
        return None if None in needed else max((each for each in needed if each is not None), default=None)

    def positions(
        self, bars: Bars, series: "Mapping[str, pd.DataFrame | KnownSeries] | None" = None
    ) -> Floats:
        """Positions of all versions blended by weight, shape (n_bars,), in [-1, 1]: a split of capital.

        The weights in force apply to every bar. Versions with unlike rules of execution (`Served.execution`)
        cannot be traded as one position: trade `weights` times the positions of each instead.

        Raises:
            See `Served.positions`.
        """
        blended = np.zeros(len(bars))
        for label, served in self.arms.items():
            blended = blended + self.weights[label] * served.positions(bars, series)
        return blended

    def arm(self, bar_open: datetime) -> Served | None:
        """Version that trades the whole position after a bar: one arm a bar instead of a split of capital.

        The same bar has the same arm in every process, by the weights recorded at the close of the bar. None:
        hold no position.

        Args:
            bar_open: open time of the bar, with a time zone.
        """
        label = arm_for_bar(self.allocation, bar_open, self.bar)
        return None if label is None else self.arms[label]

    def changed(self) -> bool:
        """True if the weights or the versions in force are others by now, or the model is halted.

        Raises:
            sqlalchemy.exc.OperationalError: the ledger does not answer; the loaded versions go on answering.
        """
        try:
            return allocation_in_force(self.ledger, self.model_id) != self.allocation
        except NotFound:
            return True


def load_allocation(model_id: str, *, registry: MLflowRegistry, ledger: Ledger) -> ServedAllocation:
    """Load every version that shares the capital of a model, each verified and tested as by `load`.

    Without a running allocation the production version has weight 1.

    Raises:
        ModelHalted: the model is halted; hold no position.
        ConflictError: the production version changes at the moment; try again.
        See also `load`.
    """
    allocation = allocation_in_force(ledger, model_id)
    if allocation.state is AllocationState.HALTED:
        _require_not_halted(ledger, model_id)
        # a version was put back in the meantime
        return load_allocation(model_id, registry=registry, ledger=ledger)
    champion = allocation.arms[0].version
    version = ledger.version(model_id, champion)
    production = load(model_id, registry=registry, ledger=ledger)
    if production.mlflow_version != version.mlflow_version:
        raise ConflictError(
            f"The production version of {model_id} changes at the moment: load the allocation again."
        )
    arms = {} if allocation.arms[0].out else {champion: production}
    for arm in allocation.arms[1:]:
        if not arm.out:
            arms[arm.version] = load(model_id, arm.version, registry=registry, ledger=ledger)
    bar = timedelta(seconds=Timeframe(version.timeframe).seconds)
    return ServedAllocation(model_id, allocation, arms, bar, ledger)


@dataclass(frozen=True, eq=False)
class _Stored:
    """A verified and tested bundle."""

    model: Model
    series: tuple[str, ...]
    """Own series that the version takes beside the bars."""
    checks: BundleChecks


def _require_not_halted(ledger: Ledger, model_id: str) -> None:
    sentence = halt_sentence(ledger, model_id)
    if sentence is not None:
        raise ModelHalted(sentence)


def _fetch(
    registry: VersionSource,
    model_id: str,
    number: int,
    bundle_digest: str,
    package_digest: str | None,
) -> _Stored:
    with registry.verified(model_id, number, package_digest) as bundle:
        model = load_bundle(bundle, bundle_digest)
        golden.preflight(model, bundle)
        return _Stored(model, read_card(bundle).series, checks_of(bundle))


UNKNOWN_TO_TRADER = "the ledger alone knows whether an admin forced the promotion"
"""Explanation of a warning to a trader without access to the ledger."""


def _overruled(forced: Promotion | None) -> str | None:
    """Sentence on a forced promotion; None for a promotion that was not forced."""
    return None if forced is None else f"{forced.actor} forced the promotion ({forced.reason})"


def _require_sound(name: str, alias: str, checks: BundleChecks, overruled: str | None) -> None:
    """Refuse an unsound production version that nobody forced; warn of any other unsound version.

    Args:
        overruled: why an unsound version may be in production; None: for no reason.

    Raises:
        PreflightFailed: the production version never trades, or is unsound and was not forced.
    """
    if not checks.skill_measured:
        log.info("%s is loaded without a check of its skill: %s.", name, NO_SKILL)
    if not checks.problems:
        return
    problems = "; ".join(checks.problems)
    if alias == PRODUCTION and checks.never_trades:
        raise PreflightFailed(f"{name} never trades: {problems}. Roll back to an earlier version, or retrain")
    if alias == PRODUCTION and overruled is None:
        raise PreflightFailed(
            f"{name} may not serve: {problems}. Roll back to an earlier version, or retrain"
        )
    why = f" ({overruled})" if alias == PRODUCTION else ""
    warnings.warn(f"{name} is not sound: {problems}{why}", stacklevel=3)


def _with_warning(served: Served) -> Served:
    if served.alias != PRODUCTION and served.status in NOT_TRADED:
        warnings.warn(not_traded(served.model_id, served.alias, served.status), stacklevel=3)
    return served


def _recorded(ledger: Ledger, model_id: str, number: int) -> ModelVersion:
    versions = ledger.versions(model_id=model_id, mlflow_version=number)
    if not versions:
        raise NotFound(unknown_version(model_id, number))
    return versions[0]
