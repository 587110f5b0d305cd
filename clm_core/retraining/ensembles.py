"""From the versions that somebody names to the members of an ensemble, and their bundles."""

import shutil
from pathlib import Path

from clm_core.domain.errors import InvalidTrainingParams, NotFound
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus, ModelType
from clm_core.ledger.store import Ledger
from clm_core.models.contract import Recipe
from clm_core.models.ensemble import EnsembleParams, EnsembleRecipe, Member
from clm_core.registry.promotion import PRODUCTION
from clm_core.services import Services


def resolved(ledger: Ledger, request: RetrainRequest) -> RetrainRequest:
    """The request with the very versions that its members are at this moment; any other one as it is.

    Members of an earlier job, which are resolved already, are so again, from what was asked for then.

    Raises:
        InvalidTrainingParams: a member is of another market, is an ensemble itself, has failed its gate, is
            still in training, or is too old to be fitted anew.
        NotFound: there is no such version.
    """
    if request.model_type is not ModelType.ENSEMBLE:
        return request
    asked = EnsembleParams.parse(request.training_params)
    names = [each if isinstance(each, str) else each.asked for each in asked.members]
    members = [_member(ledger, request, name, asked.allow_failed).model_dump() for name in names]
    params = request.training_params | {"members": members}
    # two names may be of the same version
    EnsembleParams.parse(params)
    return request.model_copy(update={"training_params": params})


def fetch_members(services: Services, recipe: Recipe, folder: Path) -> None:
    """Put the bundles of an ensemble's members into numbered folders; nothing for any other recipe.

    Raises:
        RegistryUnavailable: MLflow does not answer, or has lost one of them.
    """
    if not isinstance(recipe, EnsembleRecipe):
        return
    shutil.rmtree(folder, ignore_errors=True)
    for number, member in enumerate(recipe.members):
        version = services.ledger.version(member.model_id, member.version)
        with services.registry.fetched(version.model_path) as bundle:
            shutil.copytree(bundle, folder / str(number), symlinks=True)


def _member(ledger: Ledger, request: RetrainRequest, name: str, allow_failed: bool) -> Member:
    version = _version(ledger, name)
    if (version.symbol, version.timeframe) != (request.symbol, request.timeframe):
        raise InvalidTrainingParams(
            f"{name} is a model of {version.symbol} {version.timeframe}, not of {request.symbol} "
            f"{request.timeframe}: the members of an ensemble are all of its own market"
        )
    if version.model_type is ModelType.ENSEMBLE:
        raise InvalidTrainingParams(f"{name} is an ensemble itself: name its members instead")
    if version.status is ModelStatus.TRAINING:
        raise InvalidTrainingParams(f"{name} is not judged yet: wait until its retrain has ended")
    if version.status is ModelStatus.FAILED and not allow_failed:
        raise InvalidTrainingParams(
            f"{name} failed its gate: choose another version, or say allow_failed=true"
        )
    if not version.params:
        raise InvalidTrainingParams(
            f"{name} was registered by a release that did not record parameters: retrain it first"
        )
    return member_of(version, name)


def member_of(version: ModelVersion, asked: str) -> Member:
    """All it takes to fit the version anew, on any machine: one that asked for a GPU takes what there is."""
    ours = version.model_type is not ModelType.OTHER
    anywhere = {"device": "auto"} if ours and "device" in version.params else {}
    return Member(
        asked=asked,
        model_id=version.model_id,
        version=version.version,
        model_type=version.model_type,
        plugin=version.plugin,
        params=version.params | anywhere,
        bundle_digest=version.bundle_digest,
    )


def _version(ledger: Ledger, name: str) -> ModelVersion:
    model_id, _, label = name.partition("@")
    if label != PRODUCTION:
        return ledger.version(model_id, label)
    serves = ledger.promotions.champion(model_id)
    if serves is None:
        raise NotFound(f"No version of {model_id} is {PRODUCTION}: name one by its label, see `clm models`.")
    return ledger.version(model_id, serves)
