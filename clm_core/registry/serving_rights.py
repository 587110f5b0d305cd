"""Right of a version to serve: the ledger's record of promotions, compared with MLflow's alias `production`.

MLflow's alias can be moved by everybody who writes to MLflow's database. The ledger records the promotions,
so a version is in production when the ledger says so.
"""

from collections.abc import Callable
from dataclasses import dataclass

from clm_core.domain.errors import NotFound
from clm_core.domain.promotions import Promotion, PromotionState, halted
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus
from clm_core.ledger.store import Ledger

PRODUCTION = "production"
"""Alias of the production version in MLflow."""
NOT_TRADED = (ModelStatus.FAILED, ModelStatus.RETIRED)
"""Statuses of versions that are loaded for inspection alone."""
_REMEDY = f"`clm reconcile` puts the alias {PRODUCTION} back."


@dataclass(frozen=True)
class LoadingAdvice:
    """Answer to a process about to load a bundle."""

    refusal: str | None = None
    """Reason why the bundle may not be loaded, with the next step; None: the bundle may be loaded."""
    warning: str | None = None
    """Warning for the user of the loaded version, if any."""


@dataclass(frozen=True)
class LedgerRecord:
    """Facts of the ledger about a version, for a trader without access to the ledger."""

    bundle_digest: str
    status: ModelStatus


def serving_record(ledger: Ledger, model_id: str, mlflow_version: int) -> LedgerRecord:
    """
    Raises:
        NotFound: the ledger has no such version.
    """
    versions = ledger.versions(model_id=model_id, mlflow_version=mlflow_version)
    if not versions:
        raise NotFound(unknown_version(model_id, mlflow_version))
    return LedgerRecord(versions[0].bundle_digest, versions[0].status)


def halt_sentence(ledger: Ledger, model_id: str) -> str | None:
    """Sentence on the halt of a model, with the next step; None for a model without a halt."""
    halt = halted(ledger.promotions.committed(model_id))
    if halt is None:
        return None
    return (
        f"{model_id} is halted since {halt.at:%Y-%m-%d %H:%M} UTC by {halt.actor}: {halt.reason}. Hold "
        "no position until a version is in production again; `changed()` and `load` tell when."
    )


def is_in_production(ledger: Ledger, version: ModelVersion) -> bool:
    """Accept also a version whose promotion has moved the alias and is not yet recorded."""
    # in this order: a promotion that ends between the two reads has set the status by the second
    change = ledger.promotions.under_way(version.model_id)
    if change is not None and change.state is PromotionState.INTENT and change.to_version == version.version:
        return True
    return ledger.version(version.model_id, version.version).status is ModelStatus.PRODUCTION


def forced_change(ledger: Ledger, version: ModelVersion) -> Promotion | None:
    """Forced change that brought the version into production; None for a version without force."""
    under_way = ledger.promotions.under_way(version.model_id)
    changes = [*ledger.promotions.committed(version.model_id), *([under_way] if under_way else [])]
    newest = [change for change in changes if change.to_version == version.version][-1:]
    return next((change for change in newest if change.forced), None)


def alias_refusal(ledger: Ledger, model_id: str, mlflow_version: int) -> str | None:
    """Reason why the version behind the alias `production` may not serve; None for a promoted version.

    Args:
        mlflow_version: MLflow's number of the version that the alias names.
    """
    versions = ledger.versions(model_id=model_id, mlflow_version=mlflow_version)
    if not versions:
        return unknown_version(model_id, mlflow_version)
    return None if is_in_production(ledger, versions[0]) else moved_alias(versions[0])


def unknown_version(model_id: str, mlflow_version: int) -> str:
    return (
        f"MLflow's version {mlflow_version} of {model_id} is not in the ledger: it was created by hand. "
        f"{_REMEDY}"
    )


def moved_alias(version: ModelVersion) -> str:
    return (
        f"{version.model_id} {version.version} is {version.status}, and the alias {PRODUCTION} was moved by "
        f"hand: {_REMEDY}"
    )


def loading_advice(ledger: Ledger, bundle_digest: str, aliased: Callable[[str], int | None]) -> LoadingAdvice:
    """Advice on loading a bundle, whatever alias, label or path the caller used.

    A bundle is refused while the alias `production` names one of its versions and no promotion put a version
    of the bundle there. A bundle that the ledger does not know is loaded without advice.

    Args:
        aliased: MLflow's number of the version behind the alias `production` of a model.
    """
    versions = ledger.versions(bundle_digest=bundle_digest)
    if not versions or any(is_in_production(ledger, version) for version in versions):
        return LoadingAdvice()
    for version in versions:
        if aliased(version.model_id) == version.mlflow_version and not is_in_production(ledger, version):
            return LoadingAdvice(refusal=moved_alias(version))
    if all(version.status in NOT_TRADED for version in versions):
        return LoadingAdvice(
            warning=not_traded(versions[0].model_id, versions[0].version, versions[0].status)
        )
    return LoadingAdvice()


def not_traded(model_id: str, label: str, status: ModelStatus) -> str:
    return f"{model_id} {label} is {status}: do not trade it"
