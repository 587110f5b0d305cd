"""Plug-in that follows the trend rule of the baselines: a model no better than the rule, to be refused."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from clm_core.domain.costs import Costs
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars, Floats
from clm_core.models.contract import ModelCard, Progress, TrainedOn
from clm_core.models.params import TrainingParams
from clm_core.models.plugins import Plugin
from clm_core.models.strategies.trend import DAY, LOOK_BACK_DAYS, trend

NAME = "trendrule"
FILE = "rule.txt"


class NoParams(TrainingParams):
    """The rule has no parameters."""


@dataclass(frozen=True, eq=False)
class TrendModel:
    trained_on: TrainedOn
    train_metrics: dict[str, float]
    learning_curve: tuple[float, ...] = ()
    model_type: ClassVar[ModelType] = ModelType.OTHER

    @property
    def bars_needed(self) -> int:
        return LOOK_BACK_DAYS[-1] * DAY // self.trained_on.timeframe.nanoseconds + 1

    def positions(self, bars: Bars) -> Floats:
        self.trained_on.require_same_series(bars)
        return trend(bars)

    def forecast(self, bars: Bars) -> Floats:
        return np.asarray(0.5 + self.positions(bars) / 4)

    def importances(self) -> dict[str, float]:
        return {}

    def save(self, folder: Path) -> None:
        (folder / FILE).write_text("trend rule\n")


@dataclass(frozen=True)
class TrendRecipe:
    params: NoParams
    model_type: ClassVar[ModelType] = ModelType.OTHER

    def describe(self) -> dict[str, Any]:
        return self.params.model_dump(mode="json")

    def fit(self, bars: Bars, seed: int, progress: Progress | None = None) -> TrendModel:
        return TrendModel(TrainedOn.of(bars, seed), {})


class TrendPlugin(Plugin):
    params = NoParams
    library = "numpy"

    def recipe(self, params: NoParams, costs: Costs) -> TrendRecipe:
        return TrendRecipe(params)

    def load(self, folder: Path, card: ModelCard) -> TrendModel:
        return TrendModel(card.trained_on, card.train_metrics)


def install(site: Path) -> None:
    """Make the plug-in known to this process, as a distribution in a folder."""
    metadata = site / "clm_trendrule-1.0.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: clm-trendrule\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[clm.models]\n{NAME} = {__name__}:TrendPlugin\n")
    sys.path.insert(0, str(site))
