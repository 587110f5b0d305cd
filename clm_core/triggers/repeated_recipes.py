"""Recipe of a retrain without a stated recipe, from the ledger."""

from typing import Any

from clm_core.decisions.repeated_recipe import RepeatedRecipe, repeated_recipe
from clm_core.domain.jobs import TrainingJob
from clm_core.domain.kinds import Kind
from clm_core.domain.vocabulary import ModelStatus, ModelType
from clm_core.services import Services

MAX_WAITING = 100
"""Newest candidates, and newest versions in shadow, that are read."""
RECIPE = {"dataset_span_days", "training_params"}
"""Fields of a request that make the recipe."""


def recipe_to_repeat(services: Services, kind: Kind, model_id: str) -> RepeatedRecipe:
    """Version of a model whose recipe a retrain repeats.

    An ensemble has no default members and takes the members of the newest version instead.
    """
    ledger = services.ledger
    history = ledger.promotions.committed(model_id)
    waiting = [
        version
        for status in (ModelStatus.CANDIDATE, ModelStatus.SHADOW)
        for version in ledger.versions(model_id=model_id, status=status, limit=MAX_WAITING)
    ]
    waiting.sort(key=lambda each: each.created_at, reverse=True)
    served = {change.to_version for change in history if change.to_version is not None}
    known = [*waiting, *(ledger.version(model_id, label) for label in sorted(served))]
    recipes = {each.version: each.recipe_digest for each in known}
    repeated = repeated_recipe(history, [each.version for each in waiting], recipes)
    if repeated.version is not None or kind.model_type is not ModelType.ENSEMBLE:
        return repeated
    newest = ledger.versions(model_id=model_id, limit=1)
    if not newest:
        return repeated
    return RepeatedRecipe(newest[0].version, f"{repeated.because}: the newest version, for its members")


def repeated_job(services: Services, model_id: str, repeated: RepeatedRecipe) -> TrainingJob | None:
    """Job of the version whose recipe is repeated; None for the defaults."""
    if repeated.version is None:
        return None
    return services.ledger.job(services.ledger.version(model_id, repeated.version).training_job_id)


def recipe_of_job(job: TrainingJob | None) -> dict[str, Any]:
    """Fields of a request for the recipe of a job; empty for the defaults."""
    return {} if job is None else job.model_dump(include=RECIPE)
