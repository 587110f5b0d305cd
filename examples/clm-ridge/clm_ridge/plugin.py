"""Ridge regression on the features, from parameters to files.

The model forecasts p, the probability of a price rise over the next `horizon` bars: 1/2 plus half of the
regression's prediction of +1 (rise) or -1 (fall), clipped to 0..1. A signal, sign(p - 1/2) where p lies at
least `threshold` from 1/2, is held for the horizon.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clm_core.domain.costs import Costs
from clm_core.domain.errors import BundleCorrupt, NotEnoughBars
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars, Floats
from clm_core.market.features import FEATURES, compute_features, memory_of
from clm_core.market.labels import direction, ties
from clm_core.market.signals import accuracy, hold_signals
from clm_core.models.contract import ModelCard, Progress, TrainedOn
from clm_core.models.params import Between, FeatureNames, TrainingParams
from clm_core.models.plugins import Plugin

FILE = "ridge.json"
MIN_ROWS = 200


class RidgeParams(TrainingParams):
    horizon: Annotated[int, Between(6, 72, log=True)] = Field(default=24, ge=1, le=500)
    """Bars over which the price is predicted and each signal is held; 1..500."""
    threshold: Annotated[float, Between(0.0, 0.06)] = Field(default=0.02, ge=0, lt=0.5)
    """Minimum distance of the probability from 1/2 for a signal; 0..0.5."""
    alpha: Annotated[float, Between(1.0, 10_000.0, log=True)] = Field(default=100.0, gt=0)
    """L2 penalty on the coefficients of standardised features."""
    features: FeatureNames = Field(default_factory=lambda: tuple(FEATURES), min_length=1)
    """Names of the features used (as text: separated by commas); default all."""


class Fitted(BaseModel):
    """Result of a fit, the file in the bundle. JSON keeps every bit of a float."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    intercept: float
    coefficients: list[float]
    """Coefficients of the standardised features, in the order of the card's `features`."""
    means: list[float]
    deviations: list[float]


@dataclass(frozen=True, eq=False)
class RidgeModel:
    params: RidgeParams
    fitted: Fitted
    trained_on: TrainedOn
    train_metrics: dict[str, float]
    learning_curve: tuple[float, ...] = ()
    model_type: ClassVar[ModelType] = ModelType.OTHER

    @property
    def bars_needed(self) -> int:
        return memory_of(self.params.features) + self.params.horizon

    def positions(self, bars: Bars) -> Floats:
        edge = self.forecast(bars) - 0.5
        # NaN compares false: a row without a forecast gives no signal
        signals = np.where(np.abs(edge) >= self.params.threshold, np.sign(edge), 0.0)
        return hold_signals(signals.astype(np.int64), bars, self.params.horizon)

    def forecast(self, bars: Bars) -> Floats:
        self.trained_on.require_same_series(bars)
        table = compute_features(bars, self.params.features)
        known = table.complete
        standard = (table.values[known] - self.fitted.means) / self.fitted.deviations
        probability = np.full(len(bars), np.nan)
        # summed row by row: the last bit of a matrix product may depend on the number of rows
        score = (standard * self.fitted.coefficients).sum(axis=1) + self.fitted.intercept
        probability[known] = np.clip(0.5 + score / 2, 0.0, 1.0)
        return probability

    def importances(self) -> dict[str, float]:
        sizes = np.abs(self.fitted.coefficients)
        shares = dict(zip(self.params.features, (sizes / sizes.sum()).tolist(), strict=True))
        return {name: share for name, share in shares.items() if share > 0}

    def save(self, folder: Path) -> None:
        (folder / FILE).write_text(self.fitted.model_dump_json())


@dataclass(frozen=True)
class RidgeRecipe:
    params: RidgeParams
    model_type: ClassVar[ModelType] = ModelType.OTHER

    def describe(self) -> dict[str, Any]:
        return self.params.model_dump(mode="json")

    def fit(self, bars: Bars, seed: int, progress: Progress | None = None) -> RidgeModel:
        """Fit without randomness: the seed has no effect."""
        from sklearn.linear_model import Ridge

        values, rises, n_ties = _sample(bars, self.params)
        means = values.mean(axis=0)
        deviations = values.std(axis=0)
        # a constant feature would divide by zero
        deviations[deviations == 0] = 1.0
        standard = (values - means) / deviations
        ridge = Ridge(alpha=self.params.alpha, solver="cholesky").fit(standard, 2 * rises - 1)
        fitted = Fitted(
            intercept=float(ridge.intercept_),
            coefficients=ridge.coef_.tolist(),
            means=means.tolist(),
            deviations=deviations.tolist(),
        )
        if progress is not None:
            progress(1.0)
        metrics = {
            "rows": float(len(values)),
            "ties": float(n_ties),
            "accuracy": accuracy(ridge.predict(standard), 2 * rises - 1),
        }
        return RidgeModel(self.params, fitted, TrainedOn.of(bars, seed), metrics)


class RidgePlugin(Plugin):
    params = RidgeParams
    library = "scikit-learn"

    def recipe(self, params: RidgeParams, costs: Costs) -> RidgeRecipe:
        return RidgeRecipe(params)

    def load(self, folder: Path, card: ModelCard) -> RidgeModel:
        params = RidgeParams.parse(card.params, kind="ridge")
        try:
            fitted = Fitted.model_validate_json((folder / FILE).read_bytes())
        except ValidationError as error:
            raise BundleCorrupt(f"{FILE} holds no ridge regression: train the model again") from error
        if {len(fitted.coefficients), len(fitted.means), len(fitted.deviations)} != {len(params.features)}:
            raise BundleCorrupt(f"{FILE} does not match the {len(params.features)} features of the card")
        return RidgeModel(params, fitted, card.trained_on, card.train_metrics)


def _sample(bars: Bars, params: RidgeParams) -> tuple[Floats, Floats, int]:
    """Features and labels of every bar with both, and the number of ties, which have no label.

    Labels end within the bars given.
    """
    table = compute_features(bars, params.features)
    labels = direction(bars, params.horizon)
    n_ties = int(np.count_nonzero(table.complete & ties(bars, params.horizon)))
    rows = np.flatnonzero(table.complete & (labels.end >= 0))
    if len(rows) < MIN_ROWS:
        raise NotEnoughBars(
            f"{bars.symbol} {bars.timeframe}: {len(bars)} bars leave {len(rows)} rows to fit on, {MIN_ROWS} "
            "are needed. Give more days of bars, a shorter horizon or fewer folds"
        )
    return table.values[rows], labels.values[rows], n_ties
