"""Recipe of a training job: the identity by which versions are told to be a refresh or a replacement."""

from typing import Any

from clm_core.domain.costs import Costs
from clm_core.domain.execution import ExecutionRules
from clm_core.domain.jobs import TrainingJob
from clm_core.domain.recipes import SIZING, RecipeIdentity
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.models import catalog
from clm_core.models.params import own_origins

_OF_A_MEMBER = ("model_type", "plugin", "params")
"""Fields of an ensemble's member that a newer version of the member shares."""


def recipe_of(job: TrainingJob, plan: WalkForwardPlan, installation: ExecutionRules) -> RecipeIdentity:
    """Recipe of a job, with the own features and plug-ins by the code installed now.

    Args:
        plan: plan of the job's walk-forward, which states the training span.
        installation: rules of the installation, for a job without an execution of its own.

    Raises:
        InvalidTrainingParams: a parameter is unknown or out of range.
        ModelError: the plug-in cannot be used.
    """
    params = catalog.stored_params(job.model_type, job.training_params, job.plugin, installation)
    # without costs, which are the market's: a new fee makes no new recipe
    recipe = catalog.recipe(job.model_type, params, Costs(fee_bps=0, slippage_bps=0), job.plugin)
    described = recipe.describe()
    features = {f"feature {origin.name}": origin.digest for origin in own_origins(described)}
    plugins = {f"plug-in {name}": digest for name, digest in catalog.plugin_code(recipe).items()}
    return RecipeIdentity(
        model_type=job.model_type,
        plugin=job.plugin,
        symbol=job.symbol,
        symbols=tuple(sorted(job.symbols)),
        timeframe=job.timeframe,
        params=_without_versions(described),
        training_span=plan.training_span(job.dataset_span_days),
        code=features | plugins,
    )


def _without_versions(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters with the members of an ensemble by their own recipes: a retrained member is the same."""
    params = _without_unset_limit(params)
    members = params.get("members")
    if not members:
        return params
    recipes = [{name: member[name] for name in _OF_A_MEMBER} for member in members]
    return params | {"members": [each | {"params": _without_unset_limit(each["params"])} for each in recipes]}


def _without_unset_limit(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters as recorded before the sizing had a `max_turnover`, where none is set: the same recipe."""
    sizing = params.get(SIZING)
    if not isinstance(sizing, dict) or sizing.get("max_turnover") is not None:
        return params
    return params | {SIZING: {name: value for name, value in sizing.items() if name != "max_turnover"}}
