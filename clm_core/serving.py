"""What a trader loads: one verified version, pinned, that tells when another has taken its place.

    served = load("xgboost_btcusd_1h", registry=registry, ledger=ledger)
    while trading:
        if served.changed():
            served = load("xgboost_btcusd_1h", registry=registry, ledger=ledger)
        trade(served.positions(bars))

Nothing but the bundle is fetched and read, and of that nothing is parsed before it is verified: what else
lies beside it in MLflow, such as a loader it names, is never run.

What the digest comes from decides what it vouches for:

- the ledger: these are the bytes that were judged, whoever may write in MLflow and its artifact store;
- without a ledger, the version's tag in MLflow: nothing was damaged, lost, added or swapped for another
  version's. Who may write both the artifacts and the tag can still put another model in place, though never
  make this process run code.
"""

from dataclasses import dataclass, field

from clm_core.domain.errors import NotFound
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

    Args:
        ledger: None for a trader that has no access to it; what that costs is said above.

    Raises:
        NotFound: no version carries the alias, or one that was never registered here.
        BundleCorrupt: the files are not those that were registered.
        PreflightFailed: the model does not answer here as it did when it was saved, or always the same.
        FeatureMismatch: the model needs features this release does not compute.
        RegistryUnavailable: MLflow does not answer, or has lost the files.
    """
    number = registry.aliased(model_id, alias)
    if number is None:
        raise NotFound(f"No version of {model_id} is {alias}: `clm promote` lets one serve.")
    digest = (
        registry.tagged_digest(model_id, number)
        if ledger is None
        else _recorded_digest(ledger, model_id, number)
    )
    with registry.fetched(f"models:/{model_id}/{number}") as bundle:
        model = load_bundle(bundle, digest)
        golden.preflight(model, bundle)
    return Served(model_id, alias, number, digest, model, registry)


def _recorded_digest(ledger: Ledger, model_id: str, number: int) -> str:
    found = ledger.versions(model_id=model_id, mlflow_version=number)
    if not found:
        raise NotFound(
            f"The ledger does not know MLflow's version {number} of {model_id}: somebody made it by hand. "
            "`clm reconcile` puts the alias back."
        )
    return found[0].bundle_digest
