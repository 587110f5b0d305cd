"""Case of a version before the gate: all evidence that the checks read."""

import math
from dataclasses import dataclass

from clm_core.backtest.results import Metrics
from clm_core.decisions.gate_policy import EvidenceLevels
from clm_core.evidence import paired
from clm_core.evidence.bootstrap import Interval
from clm_core.evidence.overfitting import SelectionRisk
from clm_core.evidence.regression import NOT_REGRESSED, JointAlpha
from clm_core.evidence.soundness import Activity, Skill
from clm_core.evidence.track_record import TrackRecord
from clm_core.evidence.trials import TrialCount
from clm_core.market.bars import Floats
from clm_core.models.activity import BundleActivity


@dataclass(frozen=True)
class Comparison:
    """Challenger and champion on the same bars at the same costs, all bars unseen by both trainings."""

    champion: str
    """Version label of the champion."""
    record: paired.PairedRecord
    """Differences of the returns, challenger less champion, as fractions a bar."""
    problem: str | None = None
    """Reason for a comparison that could not be made, which refuses; None for a comparison made."""

    def max_lead(self, levels: EvidenceLevels) -> float:
        """Upper bound of the challenger's lead over the champion, a fraction a bar; NaN for too few bars."""
        if self.record.n >= paired.MIN_DIFFERENCES and self.record.squares == 0.0:
            return self.record.first
        return paired.bounds(self.record, levels.champion_alpha, levels.champion_bars).high


@dataclass(frozen=True)
class RecipeRefresh:
    """The champion's recipe on newer bars."""

    champion: str
    """Version label of the champion."""
    agreement: float
    """Rank correlation of the positions with the champion's on the newest bars; NaN if not measured."""
    agreement_of_folds: float
    """Lowest rank correlation of the positions of consecutive folds of the recipe; NaN if not measured."""
    problem: str = ""
    """Reason for a missing agreement; empty for positions that never vary."""


@dataclass(frozen=True)
class RecipeReplacement:
    """Another recipe than the champion's."""

    champion: str
    """Version label of the champion."""
    record: paired.PairedRecord
    """Daily differences of the returns in shadow, challenger less champion, at equal volatility."""
    level: float | None = None
    """Level of the recipe's place in the year's error budget; None before the shadow pass gave a level."""
    bars_a_day: float = 24.0
    """Bars of a day with bars."""


@dataclass(frozen=True)
class BaselineAlpha:
    """Return of the version beyond the three baselines together."""

    joint: JointAlpha
    simpler_rule: str = ""
    """Name of the baseline most like the version, of the baselines without a certain alpha beyond each alone;
    empty without such a baseline."""


@dataclass(frozen=True, eq=False)
class Case:
    """Evidence for one version: out-of-sample results after costs, the trials made and the champion."""

    metrics: Metrics
    activity: Activity
    record: TrackRecord
    """Track record of the returns of a bar."""
    trials: TrialCount
    """All trials of the market and timeframe, the judged trial included."""
    periods_per_year: float
    comparison: Comparison | None
    """Comparison with the champion, or None without a production version."""
    returns: Floats | None = None
    """Returns of a bar after costs, as fractions, shape (n_bars,); None: not measured."""
    trade_returns: Floats | None = None
    """Profit of the closed trades after costs over the equity at the entry, as fractions, shape (n_trades,);
    None: not measured."""
    selection: SelectionRisk | None = None
    """Risk of the search that chose the version's parameters; None for parameters from no search."""
    sharpe_interval: Interval | None = None
    """Interval of 95 % of the annualised Sharpe ratio, for information; None: not measured."""
    succession: RecipeRefresh | RecipeReplacement | None = None
    """Kind of the change of the production version; None without one, or not told."""
    timing: float = math.nan
    """P(timing), see `exposure_null.timing_probability`; NaN if not measured."""
    alpha: BaselineAlpha = BaselineAlpha(NOT_REGRESSED)
    """Alpha of the daily net returns on the three baselines together; not regressed if not measured."""
    bundle: BundleActivity | None = None
    """Positions of the registered model itself on its training tail; None: not measured."""
    skill: Skill | None = None
    """Skill of the registered model; None: not measured, or a kind of model without forecasts."""
