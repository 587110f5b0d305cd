"""Kind of the change that a version would make: a refresh of the champion's recipe, or a replacement."""

import math
from collections.abc import Sequence

import numpy as np

from clm_core.backtest.agreement import MIN_BARS, rank_correlation
from clm_core.decisions.cases import RecipeRefresh, RecipeReplacement
from clm_core.domain.errors import CLMError
from clm_core.domain.versions import ModelVersion
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.evidence.sequential import DAY
from clm_core.market.bars import Bars, Floats
from clm_core.models.contract import Model
from clm_core.models.params import series_names
from clm_core.models.pooled import view_of
from clm_core.retraining.recipes import recipe_of
from clm_core.retraining.results import BacktestEvaluation, ChampionModel
from clm_core.retraining.shadow_tracks import (
    compare_in_shadow,
    recipe_key,
    stints_in_production,
    stints_in_shadow,
)
from clm_core.services import Services


def succession_of(
    services: Services,
    version: ModelVersion,
    champion: ChampionModel,
    evaluation: BacktestEvaluation,
    agreements: Sequence[float],
) -> RecipeRefresh | RecipeReplacement:
    """Kind of the change with its evidence.

    Args:
        agreements: rank correlations of consecutive folds of the judged seed.
    """
    if is_refresh(services, version, champion.version, evaluation.plan):
        return _refresh(services, version, champion, evaluation, agreements)
    return _replacement(services, version, champion.version, evaluation)


def is_refresh(
    services: Services, version: ModelVersion, champion: ModelVersion, plan: WalkForwardPlan
) -> bool:
    """True for two versions of the same recipe; an earlier release recorded a job, no recipe."""
    if version.recipe_digest is None:
        return False
    if champion.recipe_digest is not None:
        return champion.recipe_digest == version.recipe_digest
    job = services.ledger.job(champion.training_job_id)
    try:
        recipe = recipe_of(job, plan, services.settings.execution.rules)
    except CLMError:
        return False
    return recipe.digest == version.recipe_digest


def _refresh(
    services: Services,
    version: ModelVersion,
    champion: ChampionModel,
    evaluation: BacktestEvaluation,
    agreements: Sequence[float],
) -> RecipeRefresh:
    label = champion.version.version
    measured = [each for each in agreements if math.isfinite(each)]
    of_folds = min(measured, default=math.nan)
    rows = max(len(evaluation.bars) // max(len(agreements) + 1, 1), MIN_BARS)
    markets = [member.bars for member in evaluation.members] or [evaluation.bars]
    if champion.model is None:
        return RecipeRefresh(label, math.nan, of_folds, champion.problem or "")
    try:
        model = services.registry.load(version.model_path, version.bundle_digest)
        ours, theirs = (
            np.concatenate([_newest_positions(services, *each, bars, rows) for bars in markets])
            for each in ((version, model), (champion.version, champion.model))
        )
    except CLMError as error:
        return RecipeRefresh(label, math.nan, of_folds, str(error))
    return RecipeRefresh(label, rank_correlation(ours, theirs), of_folds)


def _newest_positions(
    services: Services, version: ModelVersion, model: Model, bars: Bars, rows: int
) -> Floats:
    """Positions of a registered model on the newest rows, after the whole history before them.

    Raises:
        CLMError: the model gives no positions.
    """
    known = services.market.with_series(bars, series_names(version.params))
    positions: Floats = view_of(model, bars.symbol).positions(known)
    return positions[-rows:]


def _replacement(
    services: Services, version: ModelVersion, champion: ModelVersion, evaluation: BacktestEvaluation
) -> RecipeReplacement:
    """Lead of another recipe in shadow, since the start of the recipe's place."""
    place = services.ledger.shadow_decisions.open_place(version.model_id, recipe_key(version))
    since = version.created_at if place is None else place.started_at
    ours = stints_in_shadow(services, version, since)
    lead = compare_in_shadow(services, ours, stints_in_production(services, champion), since)
    days = len(np.unique(evaluation.bars.time // DAY))
    level = None if place is None else place.level
    return RecipeReplacement(champion.version, lead, level, len(evaluation.bars) / days)
