"""Version trained again from recorded inputs, to the bytes of a bundle that MLflow has lost.

Training is reproducible, so a lost bundle can be told from any other: the same job, bars and seed give the
same bytes, and the ledger keeps the digest. The card names the libraries and parameters of the release that
wrote it, which the ledger knows; so a newer release that fits the same model finds the same digest.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clm_core.domain.errors import BundleCorrupt, CLMError, EvidenceMissing, RegistryUnavailable
from clm_core.domain.evaluations import EvaluationResult
from clm_core.domain.versions import ModelVersion
from clm_core.models import catalog
from clm_core.models.bundle import load_bundle, read_card, save_bundle, seal
from clm_core.models.contract import Model, ModelCard
from clm_core.models.ensemble import with_members
from clm_core.models.sizing import as_fitted
from clm_core.retraining import pools
from clm_core.retraining.ensembles import fetch_members
from clm_core.retraining.training import MEMBERS, final_bars, fit
from clm_core.services import Services


@dataclass(frozen=True, eq=False)
class Recovered:
    """Model of a registered version, from the stored bundle or trained again to the same bytes."""

    model: Model
    lost: str | None = None
    """Sentence on the lost bundle and the command that puts the files back; None for a stored bundle."""


def recovered(services: Services, version: ModelVersion) -> Recovered:
    """Model of a version, trained again to the same bytes where MLflow has lost the bundle.

    Raises:
        RegistryUnavailable: MLflow does not answer.
        EvidenceMissing: the bundle is lost, and the training gives other bytes now, or cannot be repeated.
        CLMError: the bundle has the registered bytes, and cannot be loaded here.
    """
    try:
        with services.registry.fetched(version.model_path) as bundle:
            return Recovered(load_bundle(bundle, version.bundle_digest))
    except (RegistryUnavailable, BundleCorrupt) as error:
        # an outage is no loss: the retrain can be repeated
        services.registry.require_reachable()
        lost = error
    try:
        model = trained_again(services, version)
    except EvidenceMissing as error:
        name = f"{version.model_id} {version.version}"
        raise EvidenceMissing(f"the bundle of {name} is lost ({lost}), and {error}") from error
    return Recovered(
        model,
        f"the bundle of {version.version} is lost and was trained again, to the same bytes; a backup or "
        f"`clm restore-version {version.model_id} {version.version}` puts the files back",
    )


def trained_again(services: Services, version: ModelVersion) -> Model:
    """Model of a judged version, fitted anew, with the digest of the registered bundle.

    Raises:
        EvidenceMissing: the training gives other bytes now, or cannot be repeated.
    """
    try:
        result, _ = services.ledger.evaluation(version.model_id, version.version)
        with tempfile.TemporaryDirectory() as folder:
            model, digest = _fit(services, version, result, Path(folder))
    except CLMError as error:
        raise EvidenceMissing(f"its training cannot be repeated: {error}") from error
    if digest != version.bundle_digest:
        raise EvidenceMissing(
            "trained again it has other bytes, as where other code or libraries fit another model (`clm "
            "show` has those of its training)"
        )
    return model


def _fit(
    services: Services, version: ModelVersion, result: EvaluationResult, folder: Path
) -> tuple[Model, str]:
    if result.terms is None:
        raise EvidenceMissing("the evaluation by release 0.1.0 recorded no plan of the walk-forward")
    job = services.ledger.job(version.training_job_id)
    bars = pools.bars_of(services, job).under(result.terms.gap_rules)
    rules = services.settings.execution.rules
    params = catalog.stored_params(job.model_type, job.training_params, job.plugin, rules)
    recipe = catalog.recipe(job.model_type, params, result.terms.market_costs, job.plugin)
    fetch_members(services.ledger, services.registry, recipe, folder / MEMBERS)
    repeated = as_fitted(with_members(recipe, folder / MEMBERS), version.train_metrics)
    newest = final_bars(bars, result.terms.walk_forward)
    message = f"Training {version.version} again, whose bundle is lost"
    model = fit(repeated, newest, job.seed, lambda done: services.announce(message, done))
    bundle = folder / "bundle"
    save_bundle(model, recipe, bundle, newest)
    return model, seal(bundle, _as_recorded(read_card(bundle), version))


def _as_recorded(card: ModelCard, version: ModelVersion) -> ModelCard:
    """The card with the parameters and libraries that the ledger recorded."""
    changes = {
        "params": known_then(card.params, version.params),
        "libraries": known_then(card.libraries, version.environment),
    }
    return card.model_copy(update=changes)


def known_then(now: Mapping[str, Any], recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Recorded values in the order of today's, without the names that are new."""
    return {
        name: known_then(value, recorded[name])
        if isinstance(value, Mapping) and isinstance(recorded[name], Mapping)
        else recorded[name]
        for name, value in now.items()
        if name in recorded
    }
