"""LightGBM: parameters, trees and training."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from clm_core.domain.costs import Costs
from clm_core.domain.errors import BundleCorrupt
from clm_core.domain.search_space import Between
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Floats
from clm_core.models.contract import Model, ModelCard, Progress
from clm_core.models.kind import ModelKind
from clm_core.models.trees.boosting import (
    MAX_BINS,
    OLDER_LEAVES,
    OLDER_PARAMS,
    SIZING,
    Boosted,
    BoostingParams,
    BoostingRecipe,
    Sample,
    load_trees,
)


class LightGBMParams(BoostingParams):
    model_type: ClassVar[ModelType] = ModelType.LIGHTGBM

    num_leaves: Annotated[int, Between(4, 64, log=True)] = Field(default=8, ge=2, le=1024)
    """Leaves of a tree; 2..1024."""


class LightGBMTrees:
    FILE: ClassVar[str] = "trees.txt"

    def __init__(self, raw: bytes) -> None:
        import lightgbm

        if not raw.startswith(b"tree\n"):
            raise BundleCorrupt(f"{self.FILE} holds no trees of LightGBM: train the model again")
        try:
            self._booster: Any = lightgbm.Booster(model_str=raw.decode())
        except (lightgbm.basic.LightGBMError, UnicodeDecodeError) as error:
            raise BundleCorrupt(f"{self.FILE} cannot be read: train the model again ({error})") from error

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(self._booster.feature_name())

    @property
    def rounds(self) -> int:
        return int(self._booster.num_trees())

    def answers(self, values: Floats) -> Floats:
        return np.asarray(self._booster.predict(values, num_threads=1), dtype=np.float64)

    def gains(self) -> dict[str, float]:
        gains = self._booster.feature_importance(importance_type="gain")
        return dict(zip(self.features, gains.tolist(), strict=True))


@dataclass(frozen=True)
class LightGBMRecipe(BoostingRecipe):
    trees = LightGBMTrees
    params: LightGBMParams

    def boost(self, fit: Sample, validation: Sample, seed: int, progress: Progress) -> Boosted:
        import lightgbm

        rounds = self.fixed_rounds or self.params.rounds

        def report(state: Any) -> None:
            progress((state.iteration + 1) / rounds)

        metric = "rmse" if self.params.learns_returns else "binary_logloss"
        native = {
            "objective": "regression" if self.params.learns_returns else "binary",
            "metric": metric,
            "max_bin": MAX_BINS,
            "num_threads": 1,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
            "seed": seed,
            "learning_rate": self.params.learning_rate,
            "num_leaves": self.params.num_leaves,
            "min_sum_hessian_in_leaf": self.params.leaf_weight(len(fit.target)),
            # the summed hessian alone decides, as in XGBoost
            "min_data_in_leaf": 1,
            "bagging_fraction": self.params.subsample,
            "bagging_freq": 1,
            "feature_fraction": self.params.colsample,
            "lambda_l2": self.params.reg_lambda * self.params.curvature,
        }
        train = lightgbm.Dataset(
            fit.values,
            fit.target,
            weight=fit.weight,
            feature_name=list(self.params.features),
            params=native,
        )
        history: dict[str, dict[str, list[float]]] = {}
        early = lightgbm.early_stopping(self.params.early_stopping_rounds, verbose=False)
        stopping = [early] if self.fixed_rounds is None else []
        booster = lightgbm.train(
            native,
            train,
            num_boost_round=rounds,
            valid_sets=[
                lightgbm.Dataset(validation.values, validation.target, reference=train, params=native)
            ],
            valid_names=["validation"],
            callbacks=[
                *stopping,
                lightgbm.record_evaluation(history),
                report,
            ],
        )
        # without early stopping best_iteration is 0 or less, and every tree is kept
        text: str = booster.model_to_string(num_iteration=booster.best_iteration)
        return Boosted(text.encode(), history["validation"][metric], {})


def recipe(params: Mapping[str, Any], costs: Costs) -> LightGBMRecipe:
    return LightGBMRecipe(LightGBMParams.parse(params).with_costs(costs))


def load(folder: Path, card: ModelCard) -> Model:
    return load_trees(folder, card, LightGBMParams, LightGBMTrees)


KIND = ModelKind(
    recipe=recipe,
    load=load,
    library="lightgbm",
    search_space=LightGBMParams.search_space,
    retrain_every=timedelta(hours=168),
    sizing=SIZING,
    older_params=(OLDER_PARAMS, OLDER_LEAVES),
    pools=True,
    weighs_regimes=True,
)
