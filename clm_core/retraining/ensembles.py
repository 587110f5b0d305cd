"""Members of an ensemble: from the names in a request to versions and bundles."""

import shutil
from pathlib import Path

from clm_core.domain.errors import InvalidTrainingParams, NotFound
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus, ModelType
from clm_core.ledger.store import Ledger
from clm_core.models import catalog
from clm_core.models.contract import Recipe
from clm_core.models.ensemble import MAX_MEMBERS, EnsembleParams, EnsembleRecipe, Member
from clm_core.models.sizing import unsized_recipe
from clm_core.registry.mlflow_registry import MLflowRegistry
from clm_core.registry.serving_rights import PRODUCTION


def resolve_members(ledger: Ledger, request: RetrainRequest) -> RetrainRequest:
    """An ensemble's request with each member resolved to a version; any other request unchanged.

    Members copied from an earlier job are resolved again, from the name requested then; members_from=market
    takes the newest judged version of each recipe of the market.

    Raises:
        InvalidTrainingParams: a member belongs to another market, is an ensemble, has failed the gate, is not
            judged yet, or was registered without parameters by an old release.
        NotFound: a member does not exist.
    """
    if request.model_type is not ModelType.ENSEMBLE:
        return request
    own = catalog.own_params(request.training_params)
    requested = EnsembleParams.parse(own)
    if requested.members_from == "market":
        names = _recipes_of_market(ledger, request, requested.allow_failed)
    else:
        names = [member if isinstance(member, str) else member.asked for member in requested.members]
    members = [_member(ledger, request, name, requested.allow_failed).model_dump() for name in names]
    params = request.training_params | {"members": members}
    # parsed again to refuse two names of the same version
    EnsembleParams.parse(own | {"members": members})
    return request.model_copy(update={"training_params": params})


def fetch_members(ledger: Ledger, registry: MLflowRegistry, recipe: Recipe, folder: Path) -> None:
    """Copy the bundles of an ensemble's members into numbered folders; no effect for any other recipe.

    Raises:
        RegistryUnavailable: MLflow does not answer, or has lost a bundle.
        FilesLost: the files of a member were removed.
    """
    recipe = unsized_recipe(recipe)
    if not isinstance(recipe, EnsembleRecipe):
        return
    shutil.rmtree(folder, ignore_errors=True)
    for number, member in enumerate(recipe.members):
        version = ledger.version(member.model_id, member.version)
        ledger.removed_files.require_files(version.model_id, version.version)
        with registry.fetched(version.model_path) as bundle:
            shutil.copytree(bundle, folder / str(number), symlinks=True)


def _recipes_of_market(ledger: Ledger, request: RetrainRequest, allow_failed: bool) -> list[str]:
    """Names of the newest versions of the recipes of a market, newest first.

    Raises:
        InvalidTrainingParams: there are fewer than two.
    """
    newest = ledger.newest_of_recipes(request.symbol, request.timeframe)
    allowed = [each for each in newest if allow_failed or each.status is not ModelStatus.FAILED]
    if len(allowed) < 2:
        failed = len(newest) - len(allowed)
        raise InvalidTrainingParams(
            f"members_from=market: {request.symbol} {request.timeframe} has {len(allowed)} recipes to choose "
            f"from besides {failed} whose newest version failed its gate, and an ensemble needs two: retrain "
            "other kinds or parameters, or set allow_failed=true (each fold chooses on older bars, whatever "
            "the verdicts)"
        )
    return [f"{each.model_id}@{each.version}" for each in allowed[:MAX_MEMBERS]]


def _member(ledger: Ledger, request: RetrainRequest, name: str, allow_failed: bool) -> Member:
    version = _version(ledger, name)
    if (version.symbol, version.timeframe) != (request.symbol, request.timeframe):
        raise InvalidTrainingParams(
            f"{name} is a model of {version.symbol} {version.timeframe}, not of {request.symbol} "
            f"{request.timeframe}: all members of an ensemble belong to the ensemble's market"
        )
    if version.model_type is ModelType.ENSEMBLE:
        raise InvalidTrainingParams(f"{name} is an ensemble: name the members instead")
    if version.status is ModelStatus.TRAINING:
        raise InvalidTrainingParams(f"{name} is not judged yet: wait until its retrain has ended")
    if version.status is ModelStatus.FAILED and not allow_failed:
        raise InvalidTrainingParams(
            f"{name} failed its gate: choose another version, or set allow_failed=true"
        )
    if not version.params:
        raise InvalidTrainingParams(
            f"{name} was registered by a release that did not record parameters: retrain it first"
        )
    return member_of(version, name)


def member_of(version: ModelVersion, name: str) -> Member:
    """The version as a member, with everything needed to fit its recipe again on any machine.

    A built-in model trained on a GPU is fitted on the device available; a plug-in's `device` is left alone.
    """
    built_in = version.model_type is not ModelType.OTHER
    any_device = {"device": "auto"} if built_in and "device" in version.params else {}
    return Member(
        asked=name,
        model_id=version.model_id,
        version=version.version,
        model_type=version.model_type,
        plugin=version.plugin,
        params=version.params | any_device,
        bundle_digest=version.bundle_digest,
    )


def _version(ledger: Ledger, name: str) -> ModelVersion:
    model_id, _, label = name.partition("@")
    if label != PRODUCTION:
        return ledger.version(model_id, label)
    champion = ledger.promotions.champion(model_id)
    if champion is None:
        raise NotFound(
            f"No version of {model_id} is in {PRODUCTION}: name a version by label, see `clm models`."
        )
    return ledger.version(model_id, champion)
