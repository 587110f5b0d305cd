"""What a trader loads: one verified version, pinned, that tells when another has taken its place.

    served = load("xgboost_btcusd_1h", registry=registry, ledger=ledger)
    while trading:
        if served.changed():
            served = load("xgboost_btcusd_1h", registry=registry, ledger=ledger)
        trade(served.positions(bars))

Nothing but the bundle is read, and of that nothing is parsed before it is verified. What else lies beside it
in MLflow, such as a loader it names, is never run; but it is verified too, and an edited one refused, for
`mlflow.pyfunc` would run it.

What the digests come from decides what they vouch for:

- the ledger: these are the bytes that were judged, and the version that shall serve, whoever may write in
  MLflow and its artifact store; what is refused is put on record, and alerted;
- without a ledger, the version's tags in MLflow: nothing was damaged, lost, added or swapped for another
  version's. Who may write both the artifacts and the tags can still put another model in place, though never
  make this process run code.
"""

import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime

from clm_core.domain.actors import SYSTEM
from clm_core.domain.errors import BundleCorrupt, ConflictError, NotFound
from clm_core.domain.promotions import PromotionState
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus
from clm_core.ledger.store import Ledger
from clm_core.market.bars import Bars, Floats
from clm_core.models import golden
from clm_core.models.bundle import load_bundle
from clm_core.models.contract import Model
from clm_core.registry.mlflow_registry import MLflowRegistry
from clm_core.registry.promotion import PRODUCTION


@dataclass(frozen=True, eq=False)
class Served:
    """One version; it stays this one whatever is promoted meanwhile."""

    model_id: str
    alias: str
    mlflow_version: int
    """MLflow's own running number of the version."""
    bundle_digest: str
    status: ModelStatus
    """When it was loaded; without a ledger as MLflow shows it, which follows a moment later."""
    model: Model = field(repr=False)
    registry: MLflowRegistry = field(repr=False)

    def positions(self, bars: Bars) -> Floats:
        """Wanted exposure after each bar, shape (n_bars,), in [-1, 1]; see `Model.positions`."""
        return self.model.positions(bars)

    def changed(self) -> bool:
        """Whether the alias names another version by now, or none; asks MLflow, so poll it with measure.

        Raises:
            RegistryUnavailable: MLflow does not answer; the version goes on giving positions without it.
        """
        return self.registry.aliased(self.model_id, self.alias) != self.mlflow_version


def load(
    model_id: str, alias: str = PRODUCTION, *, registry: MLflowRegistry, ledger: Ledger | None
) -> Served:
    """The version that carries the alias now, verified and tried on its golden rows.

    One that failed or was retired can be loaded by its label, with a warning: to look at, not to trade.

    Args:
        ledger: None for a trader that has no access to it; what that costs is said above.

    Raises:
        NotFound: no version carries the alias, or one that was never registered here.
        ConflictError: `production` is at a version that no promotion put it at; only the ledger can tell.
        BundleCorrupt: the files are not those that were registered.
        PreflightFailed: the model does not answer here as it did when it was saved, or always the same.
        FeatureMismatch: the model needs features this release does not compute.
        RegistryUnavailable: MLflow does not answer, or has lost the files.
    """
    number = registry.aliased(model_id, alias)
    if number is None:
        raise NotFound(f"No version of {model_id} is {alias}: `clm promote` lets one serve.")
    if ledger is None:
        digest, status = registry.tagged_digest(model_id, number), registry.tagged_status(model_id, number)
        model = _fetch(registry, model_id, number, digest, None)
        return _said(Served(model_id, alias, number, digest, status, model, registry))
    version = _recorded(ledger, model_id, number)
    if alias == PRODUCTION and not _serves(ledger, version):
        if registry.aliased(model_id, alias) != number:
            # replaced while we looked
            return load(model_id, alias, registry=registry, ledger=ledger)
        raise ConflictError(
            f"{model_id} {version.version} is {version.status}, and the alias {PRODUCTION} was moved to it "
            "by hand: `clm reconcile` puts it back."
        )
    try:
        model = _fetch(registry, model_id, number, version.bundle_digest, version.package_digest)
    except BundleCorrupt as error:
        ledger.promotions.refuse_bundle(version, SYSTEM, str(error), datetime.now(UTC), once=True)
        raise
    return _said(Served(model_id, alias, number, version.bundle_digest, version.status, model, registry))


def _fetch(
    registry: MLflowRegistry, model_id: str, number: int, bundle_digest: str, package_digest: str | None
) -> Model:
    with registry.verified(model_id, number, package_digest) as bundle:
        model = load_bundle(bundle, bundle_digest)
        golden.preflight(model, bundle)
    return model


def _said(served: Served) -> Served:
    if served.alias != PRODUCTION and served.status in (ModelStatus.FAILED, ModelStatus.RETIRED):
        warnings.warn(f"{served.model_id} {served.alias} is {served.status}: do not trade it", stacklevel=3)
    return served


def _serves(ledger: Ledger, version: ModelVersion) -> bool:
    """Also one whose promotion has moved the alias and is about to be recorded."""
    # in this order: a promotion that ends in between has given the version its status by then
    change = ledger.promotions.under_way(version.model_id)
    if change is not None and change.state is PromotionState.INTENT and change.to_version == version.version:
        return True
    return ledger.version(version.model_id, version.version).status is ModelStatus.PRODUCTION


def _recorded(ledger: Ledger, model_id: str, number: int) -> ModelVersion:
    found = ledger.versions(model_id=model_id, mlflow_version=number)
    if not found:
        raise NotFound(
            f"The ledger does not know MLflow's version {number} of {model_id}: somebody made it by hand. "
            "`clm reconcile` puts the alias back."
        )
    return found[0]
