"""Version trained again from recorded inputs, to the bytes of a bundle that MLflow has lost.

Training is reproducible, so a lost bundle can be told from any other: the same job, bars, seed, code and
libraries give the same bytes, and the ledger keeps the digest.
"""

import tempfile
from pathlib import Path

from clm_core.domain.errors import CLMError, EvidenceMissing
from clm_core.domain.evaluations import EvaluationResult
from clm_core.domain.versions import ModelVersion
from clm_core.models import catalog
from clm_core.models.bundle import save_bundle
from clm_core.models.contract import Model
from clm_core.models.ensemble import with_members
from clm_core.models.sizing import as_fitted
from clm_core.retraining import pools
from clm_core.retraining.ensembles import fetch_members
from clm_core.retraining.training import MEMBERS, final_bars, fit
from clm_core.services import Services


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
            "trained again it has other bytes, as with other code or libraries (`clm show` has those of its "
            "training)"
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
    return model, save_bundle(model, recipe, folder / "bundle", newest)
