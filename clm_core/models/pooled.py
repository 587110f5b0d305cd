"""Pooled models: a single fit over several symbols, with an ordinary model as the view for each symbol.

pool = fit_pool(recipe, panel, seed=7)
pool.positions(panel["ETHUSDT"])        # picks the member by the symbol of the bars
pool.member("ETHUSDT").positions(...)   # the same
"""

from dataclasses import dataclass
from pathlib import Path

from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars, Floats
from clm_core.market.panel import Panel, not_a_member
from clm_core.models.contract import Model, Pooling, Progress, TrainedOn


@dataclass(frozen=True, eq=False)
class PooledModel:
    """A model of several symbols; obeys the contract of a model for the bars of each member."""

    trained_on: TrainedOn
    """Name of the pool, with the span and the number of the bars of all members."""
    members: tuple[Model, ...]
    """View for each member, in the order of the pool; all views share the fitted parameters."""

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(member.trained_on.symbol for member in self.members)

    @property
    def model_type(self) -> ModelType:
        return self.members[0].model_type

    @property
    def train_metrics(self) -> dict[str, float]:
        return self.members[0].train_metrics

    @property
    def learning_curve(self) -> tuple[float, ...]:
        return self.members[0].learning_curve

    @property
    def bars_needed(self) -> int | None:
        """Largest number of bars needed by any member."""
        needed = [member.bars_needed for member in self.members]
        known = [bars for bars in needed if bars is not None]
        return max(known) if len(known) == len(needed) else None

    def member(self, symbol: str) -> Model:
        """View of a member.

        Raises:
            FeatureMismatch: the symbol is no member of the pool; the message names the members.
        """
        for member in self.members:
            if member.trained_on.symbol == symbol:
                return member
        raise not_a_member(self.trained_on.symbol, self.symbols, symbol)

    def positions(self, bars: Bars) -> Floats:
        """Positions of the member with the symbol of the bars, shape (n_bars,); see `Model.positions`.

        Raises:
            FeatureMismatch: the symbol is no member of the pool.
        """
        return self.member(bars.symbol).positions(bars)

    def forecast(self, bars: Bars) -> Floats:
        return self.member(bars.symbol).forecast(bars)

    def importances(self) -> dict[str, float]:
        return self.members[0].importances()

    def save(self, folder: Path) -> None:
        # the views share the fitted parameters
        self.members[0].save(folder)


def fit_pool(recipe: Pooling, panel: Panel, seed: int, progress: Progress | None = None) -> PooledModel:
    """Fit a single model to the bars of all members.

    Raises:
        NotEnoughBars: too few rows with features and labels to train on.
    """
    return PooledModel(TrainedOn.of_pool(panel, seed), recipe.fit_panel(panel, seed, progress))


def members_of(model: Model) -> tuple[Model, ...]:
    """Views of a pooled model by member; any other model alone."""
    return model.members if isinstance(model, PooledModel) else (model,)


def view_of(model: Model, symbol: str) -> Model:
    """View of a pooled model for a symbol; any other model as it is.

    Raises:
        FeatureMismatch: the symbol is no member of the pool.
    """
    return model.member(symbol) if isinstance(model, PooledModel) else model
