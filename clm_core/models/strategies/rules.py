"""Rule strategies: what the families have in common. A family turns bars into scores, and scores into trades:

1.  Signal: a trade begins at the close of bar s where the score passes the threshold, long above it and short
    below its negative, that is where it was not yet beyond at the close of bar s - 1.
2.  Entry: the position is taken at the open of bar s + 1, whose price is the entry price of the trade.
3.  End: a trade ends at the first close of a bar t > s at which a condition holds, and the position is given
    up at the open of bar t + 1:
    - stop loss: the return of the side since the entry price, close(t) / entry - 1, is at most -`stop_loss`;
    - take profit: the return is at least `take_profit`;
    - time limit: `max_holding` bars have passed since s;
    - exit: the exit score of the family is on the other side of 0.
4.  A signal while a trade is open begins a new trade, with a new entry price and time limit. After the end of
    a trade, no position is taken before the next signal.

So the position of a bar depends on the newest signal within `max_holding` bars and on the bars since:
`bars_needed` bars give the positions of the whole history. Stop loss and take profit are part of the
positions, and a backtest trades what serving answers. Scores and trades begin anew after an outage.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
from numba import njit
from pydantic import Field

from clm_core.domain.costs import Costs, MarketCosts
from clm_core.domain.errors import InvalidTrainingParams, NotEnoughBars
from clm_core.domain.execution import OptionalLimit
from clm_core.domain.search_space import Between
from clm_core.domain.sizing import Sizing
from clm_core.domain.vocabulary import ModelType, RuleFamily
from clm_core.market.bars import Bars, Floats
from clm_core.models.contract import Model, ModelCard, PluginOrigin, Progress, Recipe, TrainedOn
from clm_core.models.kind import DISTRIBUTION, ModelKind
from clm_core.models.params import TrainingParams

MIN_BARS = 500
"""Least number of bars to validate a rule on."""
SIZING = Sizing(smoothing_half_life=0.0, scale_half_life=0.25, min_scale=1.0)
"""A full position of the target volatility while a trade is open. Without smoothing and scaling, a trade
begins and ends in full at the opens that the rule names."""

compiled = njit(cache=True, nogil=True, error_model="numpy")


class RuleParams(TrainingParams):
    """Parameters that every family has; a family adds look-backs, and the range of the threshold."""

    model_type: ClassVar[ModelType] = ModelType.OTHER

    threshold: float
    """Least size of the entry score that begins a trade."""
    stop_loss: Annotated[OptionalLimit, Between(0.01, 0.1, log=True)] = Field(default=0.03, gt=0, lt=1)
    """Adverse move from the entry price at a close that ends a trade, as a fraction; "none" for no stop."""
    take_profit: Annotated[OptionalLimit, Between(0.02, 0.3, log=True)] = Field(default=0.09, gt=0)
    """Favourable move from the entry price at a close that ends a trade, as a fraction; "none" for no
    target."""
    max_holding: Annotated[int, Between(24, 480, log=True)] = Field(default=240, ge=1, le=5_000)
    """Bars after which a trade ends without a new signal; 1..5,000."""


class Scores(NamedTuple):
    """Scores after each bar of a stretch, shape (n_bars,) each; NaN in rows without a full look-back."""

    entry: Floats
    """Compared with the threshold: long above, short below its negative."""
    exit: Floats
    """A long ends below 0, a short above 0."""


@dataclass(frozen=True)
class Rule:
    """A family: its parameters, its scores and its look-back."""

    family: RuleFamily
    params: type[RuleParams]
    score: Callable[..., Floats]
    """Function from the bars of one unbroken stretch, and look-backs, to a score after each bar, shape
    (n_bars,)."""
    entry_look_backs: tuple[str, ...]
    """Names of the parameters that are the look-backs of the entry score, in order."""
    bars_before: Callable[[Any], int]
    """Function from parameters to the number of bars before the current bar in a score."""
    exit_look_backs: tuple[str, ...] | None = None
    """Look-backs of the exit score; None where the entry score is the exit score."""

    @property
    def defaults(self) -> RuleParams:
        return self.params.parse({})

    @property
    def origin(self) -> PluginOrigin:
        return PluginOrigin(name=self.family.value, distribution=DISTRIBUTION, version=version(DISTRIBUTION))

    def bars_needed(self, params: RuleParams) -> int:
        """Closed bars from which on more history changes no position of the last bar.

        The oldest signal in effect is `max_holding` - 1 bars old, and a signal compares two scores.
        """
        return self.bars_before(params) + params.max_holding + 1

    def scores(self, params: RuleParams, bars: Bars) -> Scores:
        """Scores after each bar of one unbroken stretch."""
        entry, exit_ = self.look_backs(params)
        score = self.score(bars, *entry)
        return Scores(score, score if exit_ == entry else self.score(bars, *exit_))

    def look_backs(self, params: RuleParams) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Look-backs of the entry score, and of the exit score."""
        names = (self.entry_look_backs, self.exit_look_backs or self.entry_look_backs)
        entry, exit_ = (tuple(getattr(params, name) for name in each) for each in names)
        return entry, exit_

    def positions(self, params: RuleParams, bars: Bars) -> Floats:
        """Side of the trade open after each bar, shape (n_bars,): -1, 0 or 1."""
        limits = Limits.of(params)
        positions = np.zeros(len(bars))
        for rows in bars.stretches():
            stretch = bars[rows]
            positions[rows] = trades(stretch.open, stretch.close, *self.scores(params, stretch), limits)
        return positions


class Limits(NamedTuple):
    """Threshold and ends of trades; inf for no limit."""

    threshold: float
    stop_loss: float
    take_profit: float
    max_holding: int

    @classmethod
    def of(cls, params: RuleParams) -> "Limits":
        stop, take = (
            math.inf if value is None else value for value in (params.stop_loss, params.take_profit)
        )
        return cls(params.threshold, stop, take, params.max_holding)


@compiled
def trades(open_: Floats, close: Floats, entry: Floats, exit_: Floats, limits: Limits) -> Floats:
    """Side of the trade open after each bar of a stretch, shape (n_bars,), by the steps of the module's
    docstring.

    Args:
        open_: opens, shape (n_bars,), as the other arrays.
        close: closes.
        entry: entry scores.
        exit_: exit scores.
        limits: threshold and ends of trades.
    """
    threshold = limits.threshold
    stop_loss = limits.stop_loss
    take_profit = limits.take_profit
    max_holding = limits.max_holding
    sides = np.zeros(len(close))
    side = 0.0
    begun = 0
    price = 0.0
    for bar in range(1, len(close)):
        if side != 0.0:
            if bar == begun + 1:
                price = open_[bar]
            move = side * (close[bar] / price - 1.0)
            is_out = move <= -stop_loss or move >= take_profit
            if is_out or bar - begun >= max_holding or side * exit_[bar] < 0.0:
                side = 0.0
        # NaN compares false: the first score of a stretch passes no threshold
        if entry[bar] > threshold and entry[bar - 1] <= threshold:
            side = 1.0
            begun = bar
        elif entry[bar] < -threshold and entry[bar - 1] >= -threshold:
            side = -1.0
            begun = bar
        sides[bar] = side
    return sides


@compiled
def window_means(values: Floats, length: int) -> Floats:
    """Means over trailing windows, shape (n,); NaN in the first `length` - 1 rows.

    A window is summed from the newest value to the oldest: the same bits, whatever came before the window.
    """
    means = np.full(len(values), np.nan)
    if len(values) >= length:
        part = means[length - 1 :]
        part[:] = 0.0
        for age in range(length):
            older = values[length - 1 - age : len(values) - age]
            for row in range(len(part)):
                part[row] += older[row]
        part /= length
    return means


@compiled
def highest_before(values: Floats, length: int) -> Floats:
    """Largest of the `length` values before each row, shape (n,); NaN in the first `length` rows.

    A NaN among the values is passed over. The time does not grow with the length: a monotonic queue holds the
    rows whose value no later value of the window reaches, and the first of them is the largest.
    """
    highest = np.full(len(values), np.nan)
    queue = np.empty(len(values), np.int64)
    first = 0
    end = 0
    for row in range(len(values)):
        if row >= length:
            while first < end and queue[first] < row - length:
                first += 1
            highest[row] = values[queue[first]] if first < end else -np.inf
        if not np.isnan(values[row]):
            while first < end and values[queue[end - 1]] <= values[row]:
                end -= 1
            queue[end] = row
            end += 1
    return highest


@dataclass(frozen=True, eq=False)
class RuleModel:
    """A rule with fixed parameters, validated on the bars of a series."""

    rule: Rule
    params: RuleParams
    trained_on: TrainedOn
    train_metrics: dict[str, float] = field(default_factory=dict)
    learning_curve: tuple[float, ...] = ()
    model_type: ClassVar[ModelType] = ModelType.OTHER

    @property
    def origin(self) -> PluginOrigin:
        return self.rule.origin

    @property
    def bars_needed(self) -> int:
        return self.rule.bars_needed(self.params)

    def positions(self, bars: Bars) -> Floats:
        return self.rule.positions(self.params, self.trained_on.accept(bars))

    def forecast(self, bars: Bars) -> Floats:
        """No forecast: a rule takes a side without a probability."""
        return np.full(len(self.trained_on.accept(bars)), np.nan)

    def importances(self) -> dict[str, float]:
        return {}

    def save(self, folder: Path) -> None:
        """No files: the parameters on the card are the whole rule."""


@dataclass(frozen=True)
class RuleRecipe:
    """A rule with fixed parameters. The fit validates: other bars or another seed give the same rule."""

    rule: Rule
    params: RuleParams
    model_type: ClassVar[ModelType] = ModelType.OTHER

    @property
    def origin(self) -> PluginOrigin:
        return self.rule.origin

    def describe(self) -> dict[str, Any]:
        return self.params.model_dump(mode="json")

    def bars_to_fit(self, bars: Bars) -> int:
        return max(MIN_BARS, self.rule.bars_needed(self.params))

    def fit(self, bars: Bars, seed: int, progress: Progress | None = None) -> RuleModel:
        """The rule, with its activity on the bars as metrics.

        Raises:
            NotEnoughBars: the bars are fewer than the memory of the rule, or than 500.
            InvalidTrainingParams: no score of the bars passes the threshold.
        """
        needed = self.bars_to_fit(bars)
        if len(bars) < needed:
            raise NotEnoughBars(
                f"{bars.symbol} {bars.timeframe}: {self.rule.family} needs {needed:,} bars, and there are "
                f"{len(bars):,}. Give more days of bars, or shorter look-backs and a shorter max_holding",
                needed,
            )
        positions = self.rule.positions(self.params, bars)
        if not positions.any():
            raise InvalidTrainingParams(
                f"{self.rule.family} takes no position in {len(bars):,} bars of {bars.symbol} "
                f"{bars.timeframe}: no score passes the threshold of {self.params.threshold:g}. Give a lower "
                "threshold"
            )
        metrics = {
            "bars": float(len(bars)),
            "share_of_time_long": float(np.mean(positions > 0)),
            "share_of_time_short": float(np.mean(positions < 0)),
        }
        if progress is not None:
            progress(1.0)
        return RuleModel(self.rule, self.params, TrainedOn.of(bars, seed), metrics)


def kind_of(rule: Rule) -> ModelKind:
    """Declaration of a family as a kind of model."""

    def recipe(params: Mapping[str, Any], costs: MarketCosts | Costs) -> Recipe:
        return RuleRecipe(rule, rule.params.parse(params, kind=rule.family.value))

    def load(folder: Path, card: ModelCard) -> Model:
        params = rule.params.parse(card.params, kind=rule.family.value)
        return RuleModel(rule, params, card.trained_on, card.train_metrics)

    return ModelKind(
        recipe=recipe,
        load=load,
        library="numba",
        search_space=rule.params.search_space,
        retrain_every=timedelta(hours=168),
        sizing=SIZING,
    )
