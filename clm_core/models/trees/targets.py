"""Labels the trees can learn, and the reading of their answers: probability, expected return and signal.

Label                        Trees learn
`volatility_scaled_return`   the return over the horizon in standard deviations, by regression
`direction`                  whether the price is higher after the horizon
`triple_barrier`             whether a purchase reaches its profit or its loss barrier first
`meta`                       whether a trade in the direction of the trend rule reaches its profit first
`sign`                       the direction, read by the rule of older versions: see `boosting`

A score x is an answer beyond two means, in log-odds: the mean over the fitted rows, and the mean of the last
`centre_horizons` horizons. So the drift of the training bars is no forecast: a market is not sold for a fall
during the fit. The second mean takes out a drift learnt by slow features, a volatility or a level shared by
the whole test window: a single long bet on a few episodes of the training bars, dressed as many forecasts.

- direction, triple barrier: logit(p) - logit(base), base the weighted share of 1 among the fitted rows.
- scaled return: 1.702 * (r - mean) / d, d the deviation of the validation residuals: a normal error turns the
  return into these log-odds (1.702 is the scale of the logistic curve closest to the normal curve).
- meta: x = side * m, m the calibrated log-odds of a win for a trade in the direction `side` of the rule. Not
  centred: m is 0 at even odds, and wins of the rule on the fitted rows count by the number of independent
  trades.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from clm_core.market.bars import Bars, Floats
from clm_core.market.features import memory_of
from clm_core.market.labels import RETURN_UNIT, Labels, direction, trade_outcome, volatility_scaled_return
from clm_core.market.signals import centred
from clm_core.market.timeframes import Timeframe
from clm_core.models.strategies.trend import DAY, LOOK_BACK_DAYS, trend
from clm_core.models.trees.calibration import Curve, logistic

Label = Literal["volatility_scaled_return", "direction", "triple_barrier", "meta", "sign"]
LOGISTIC_SCALE = 1.702
"""Log-odds of a move of one standard deviation."""
LARGEST_LOG_ODDS = 10.0
"""Bound of the log-odds of trees that are certain."""
FULL_SIGNAL = 2.0
"""Strength, in root mean squares of the calibration rows, from which a signal is whole."""


@dataclass(frozen=True, eq=False)
class Targets:
    """Labels of a series."""

    labels: Labels
    side: Floats | None = None
    """Direction of the rule's trade at each bar, -1, 0 or 1; None for a label without rule."""


def targets_of(bars: Bars, label: Label, horizon: int, barrier: float) -> Targets:
    """
    Args:
        barrier: distance of the barriers, in standard deviations of the horizon's return.
    """
    if label == "volatility_scaled_return":
        return Targets(volatility_scaled_return(bars, horizon))
    if label == "triple_barrier":
        return Targets(trade_outcome(bars, horizon, barrier))
    if label == "meta":
        side = side_of_rule(bars)
        return Targets(trade_outcome(bars, horizon, barrier, side), side)
    return Targets(direction(bars, horizon))


def side_of_rule(bars: Bars) -> Floats:
    """Direction of the trend rule, -1, 0 or 1; NaN in bars without its whole look-back, shape (n_bars,)."""
    whole = bars.time - bars.time[:1] >= LOOK_BACK_DAYS[-1] * DAY
    return np.where(whole, np.sign(trend(bars)), np.nan)


def rule_memory(timeframe: Timeframe) -> int:
    """Memory of the direction of the rule, bars: the look-back and the bar before."""
    return LOOK_BACK_DAYS[-1] * DAY // timeframe.nanoseconds + 1


def memory(label: Label, features: tuple[str, ...], timeframe: Timeframe) -> int:
    """Memory of scores and expected returns, bars."""
    rule = rule_memory(timeframe) if label == "meta" else 0
    return max(memory_of(features), memory_of((RETURN_UNIT,)), rule)


class Reading(BaseModel):
    """Numbers between the trees' answers and probability, expected return and signal: `reading.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    label: Label
    horizon: int = Field(ge=1)
    """Bars; the chosen one for horizon=auto."""
    base: float
    """Answer of trees without knowledge: log-odds of the base rate, or mean of the returns, of the fitted
    rows."""
    scale: float = Field(gt=0)
    """Log-odds in a unit of an answer."""
    centre_bars: int = Field(ge=0)
    """Bars over whose mean the scores are centred; 0 for none."""
    win: Curve | None = None
    """Curve of the odds of a win for trades of the rule; None for labels without rule."""
    rise: Curve = Curve(1.0, 0.0)
    """Curve of the probability of a rise."""
    strength: float = Field(default=0.0, ge=0)
    """Root mean square of the strengths on the rows not fitted on; 0 for constant answers."""
    deviation: float = Field(ge=0)
    """Standard deviation of the fitted rows' scaled returns over the horizon."""

    def beyond_base(self, answers: Floats) -> Floats:
        """Log-odds of the answers beyond the base rate of the fitted rows."""
        margin = answers if self.label == "volatility_scaled_return" else log_odds(answers)
        return np.asarray(self.scale * (margin - self.base))

    def score(self, answers: Floats, side: Floats | None, bars: Bars) -> Floats:
        """Scores x of bars, NaN where unknown.

        Args:
            answers: shape (n_bars,), NaN in rows without a full look-back.
            side: direction of the rule, shape (n_bars,); None for a label without rule.
        """
        beyond = self.beyond_base(answers)
        if self.win is not None:
            assert side is not None
            return np.asarray(side * self.win.log_odds(beyond))
        return centred(beyond, bars, self.centre_bars) if self.centre_bars else beyond

    def strength_of(self, score: Floats, side: Floats | None) -> Floats:
        """Log-odds behind the size of a signal: the score, or for a trade of a rule the odds beyond even."""
        if side is None:
            return score
        return np.asarray(side * np.maximum(side * score, 0.0))

    def signal(self, strength: Floats, threshold: float, long_only: bool) -> Floats:
        """Signals in [-1, 1]: whole from twice the usual strength on, 0 below the threshold.

        Args:
            threshold: least distance of the probability, without the intercept, from 1/2.
        """
        edge = np.abs(logistic(self.rise.slope * strength) - 0.5)
        size = FULL_SIGNAL * self.strength
        whole = strength / size if size > 0 and self.rise.slope > 0 else np.zeros(len(strength))
        signals = np.where(edge >= threshold, np.clip(whole, -1.0, 1.0), 0.0)
        return np.maximum(signals, 0.0) if long_only else signals

    def expected_return(self, strength: Floats, unit: Floats) -> Floats:
        """Simple return over the horizon, for a score as the shift of a normal distribution.

        Args:
            unit: deviation of one-bar log returns, shape (n_rows,).
        """
        scaled = self.rise.slope * strength / LOGISTIC_SCALE * self.deviation
        return np.asarray(np.expm1(scaled * unit * math.sqrt(self.horizon)))


def log_odds(probability: Floats) -> Floats:
    """log(p / (1 - p)), bounded to [-10, 10]."""
    lowest = 1 / (1 + math.exp(LARGEST_LOG_ODDS))
    bounded = np.clip(probability, lowest, 1 - lowest)
    return np.asarray(np.log(bounded / (1 - bounded)))
