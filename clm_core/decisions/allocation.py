"""Weights of the arms of an allocation, with reasons: a production version and candidates share the capital.

The first arm is the production version. Once a UTC day the weights move towards the weights by the returns
observed: of Hedge where every arm is observed (`evidence.hedge`), of Thompson sampling where the traded arm
alone is (`evidence.best_arm`). Each weight stays between floor and ceiling, and moves by at most ten points a
day. An arm that fell too far is out at once, and the production version takes over its weight.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from clm_core.decisions.allocation_rules import AllocationRules
from clm_core.evidence.best_arm import (
    MIN_EFFECTIVE,
    bar_weights,
    beta_posterior,
    effective_count,
    gaussian_posteriors,
    probabilities_of_best,
)
from clm_core.evidence.hedge import NEUTRAL, gains, hedge_path, learning_rate
from clm_core.market.bars import Floats

MIN_EXPECTED = 5.0
"""Expected count of an arm below which the chi-square distribution does not hold (Cochran 1954)."""


@dataclass(frozen=True, eq=False)
class Arm:
    """A version in an allocation."""

    version: str
    start: float
    """Weight at the start, 0..1."""
    weight: float
    """Weight in force, 0..1."""
    returns: Floats
    """Net returns since the start on the bars of all arms, fractions, NaN on bars where the arm was not
    observed, shape (n_bars,)."""
    drawdown: float = 0.0
    """Fall of equity below its peak since the start, 0..1; NaN where unknown."""
    out: str = ""
    """Reason why the arm is out of the allocation; empty: the arm takes part."""

    @property
    def observed(self) -> int:
        """Bars with a return."""
        return int(np.count_nonzero(np.isfinite(self.returns)))


@dataclass(frozen=True)
class Allocation:
    """Weights of the arms, in their order, with reasons."""

    weights: tuple[float, ...]
    """0..1 each; the sum is 1, or less while a weight that became free may not be taken over yet."""
    out: tuple[str, ...]
    """Per arm, why it is out; empty: takes part."""
    reasons: tuple[str, ...]


def start_weights(arms: int, rules: AllocationRules) -> tuple[float, ...]:
    """Weights at the start: the production version first, then the candidates.

    Raises:
        ValueError: floor and ceiling admit no such weights.
    """
    candidates = arms - 1
    weights = (1.0 - rules.start_candidates, *[rules.start_candidates / candidates] * candidates)
    if not (min(weights) >= rules.floor and max(weights) <= rules.ceiling):
        shown = ", ".join(f"{weight:.3g}" for weight in weights)
        raise ValueError(
            f"the weights {shown} at the start are not between floor = {rules.floor:g} and ceiling = "
            f"{rules.ceiling:g}: take fewer candidates, or change start_candidates, floor or ceiling"
        )
    return weights


def allocate(
    arms: Sequence[Arm], age_days: Floats, rules: AllocationRules, horizon: int, may_move: bool
) -> Allocation:
    """Weights after the newest bar.

    Args:
        arms: the production version first, then the candidates.
        age_days: days since the close of each bar, shape (n_bars,).
        horizon: most bars that the allocation may last, for Hedge's learning rate.
        may_move: False on a day on which the weights have moved already; an arm that fell too far is out all
            the same.
    """
    arms, reasons = _without_fallen(arms, rules)
    taking_part = [number for number, arm in enumerate(arms) if not arm.out]
    if not taking_part:
        return _answer(arms, (*reasons, "every arm is out: hold no position"))
    if not may_move:
        return _answer(arms, reasons)
    informed = [number for number in taking_part if _is_informed(arms[number], age_days, rules)]
    waiting = [number for number in taking_part if number not in informed]
    reasons += [
        f"{arms[number].version} keeps its weight: {arms[number].observed} of "
        f"{rules.adaptive_after_bars} bars observed"
        for number in waiting
    ]
    target = np.array([arm.weight for arm in arms])
    if len(informed) > 1:
        chosen = [arms[number] for number in informed]
        share = max(1.0 - sum(arms[number].weight for number in waiting), 0.0)
        chosen_weights, why = _target(chosen, age_days, rules, horizon)
        target[informed] = share * chosen_weights
        reasons.append(why)
    elif not waiting:
        target[taking_part] = 1.0
    present = np.array([arms[number].weight for number in taking_part])
    moved = limited(target[taking_part], present, rules)
    weights = np.zeros(len(arms))
    weights[taking_part] = moved
    return _answer([replace(arm, weight=float(w)) for arm, w in zip(arms, weights, strict=True)], reasons)


def limited(target: Floats, present: Floats, rules: AllocationRules) -> Floats:
    """Weights nearest to the target that respect floor, ceiling and the daily change, shape (n_arms,).

    The sum is 1, or as close to 1 as the daily change lets weights come whose sum was lower. A single arm has
    no ceiling. A weight outside floor and ceiling moves towards them by the daily change.

    Args:
        target: weights, of sum 1.
        present: weights in force, of sum at most 1.
    """
    step = rules.max_daily_change
    ceiling = rules.ceiling if len(present) > 1 else 1.0
    low = np.minimum(np.maximum(rules.floor, present - step), present + step)
    high = np.maximum(np.minimum(ceiling, present + step), present - step)
    if low.sum() > 1.0:
        # below the floor by more than a day's change: a sum above 1 would be leverage
        low = np.minimum(low, np.maximum(present - step, 0.0))
    return projected(target, low, np.minimum(high, 1.0), min(1.0, float(high.sum())))


def projected(target: Floats, low: Floats, high: Floats, total: float) -> Floats:
    """Point nearest to a target with a sum, between bounds: clip(target - t, low, high), shape (n_arms,).

    The shift t is found by bisection; the sum falls as t grows.

    Args:
        total: sum asked for, between the sums of `low` and `high`.
    """
    lowest = float(np.min(target - high))
    highest = float(np.max(target - low))
    for _ in range(100):
        shift = (lowest + highest) / 2.0
        if np.clip(target - shift, low, high).sum() > total:
            lowest = shift
        else:
            highest = shift
    return np.asarray(np.clip(target - (lowest + highest) / 2.0, low, high))


def arm_of_bar(model_id: str, experiment: int, bar_open: datetime, weights: Sequence[float]) -> int | None:
    """Number of the arm that trades a bar, the same in every process; None: no arm, hold no position.

    SHA-256 of model, experiment and bar gives a uniform number, and the cumulative weights the arm: a changed
    weight moves no more bars to other arms than the cumulative weights have changed.

    Args:
        bar_open: open time of the bar after whose close the position is taken.
        weights: weights of the arms in force, 0..1.

    Raises:
        ValueError: the time has no time zone.
    """
    if bar_open.tzinfo is None:
        raise ValueError(f"{bar_open} has no time zone: give the open time of the bar in UTC")
    key = f"{model_id}|{experiment}|{bar_open.astimezone(UTC).isoformat()}"
    uniform = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2.0**64
    arm = int(np.searchsorted(np.cumsum(weights), uniform, side="right"))
    return arm if arm < len(weights) else _last_arm(weights, uniform)


@dataclass(frozen=True)
class SplitCheck:
    """Comparison of the split that was traded with the split asked for."""

    counts: tuple[int, ...]
    """Bars traded by each arm."""
    expected: tuple[float, ...]
    """Bars asked for."""
    p_value: float | None
    """Probability of a difference as large by chance; None: too few bars for an answer."""
    differs: bool


def check_split(counts: Sequence[int], expected: Sequence[float], false_alarms: float) -> SplitCheck:
    """Chi-square test of the bars traded by each arm against the bars asked for.

    A bar of an arm that was asked for none is a difference by itself. Arms asked for fewer than
    `MIN_EXPECTED` bars are left out, with their bars. Weights that change from day to day make the counts
    vary less than the chi-square distribution says, so that false alarms are rarer than declared.

    Args:
        counts: bars traded by each arm, shape (n_arms,).
        expected: bars asked for, sums of the weights in force over the reported bars, shape (n_arms,).
        false_alarms: probability of a false alarm.
    """
    from scipy import stats

    seen = np.asarray(counts, dtype=np.float64)
    requested = np.asarray(expected, dtype=np.float64)
    shown = (tuple(int(count) for count in counts), tuple(float(each) for each in expected))
    if not (np.isfinite(requested).all() and (requested >= 0.0).all()):
        raise ValueError(f"expected bars {expected} are not numbers of bars")
    if (seen[requested == 0.0] > 0).any():
        return SplitCheck(*shown, 0.0, True)
    tested = requested >= MIN_EXPECTED
    if np.count_nonzero(tested) < 2:
        return SplitCheck(*shown, None, False)
    scaled = requested[tested] * seen[tested].sum() / requested[tested].sum()
    p_value = float(stats.chisquare(seen[tested], scaled).pvalue)
    return SplitCheck(*shown, p_value, not p_value >= false_alarms)


def _last_arm(weights: Sequence[float], uniform: float) -> int | None:
    """The last arm with a weight, where rounding alone keeps the sum below the uniform number."""
    if uniform >= sum(weights) + 1e-9:
        return None
    return max((number for number, weight in enumerate(weights) if weight > 0.0), default=None)


def _without_fallen(arms: Sequence[Arm], rules: AllocationRules) -> tuple[list[Arm], list[str]]:
    """Arms with the weight of every arm that is out given to the production version, and why arms left."""
    reasons = []
    kept = []
    for arm in arms:
        # Written as `not (<=)` so that a NaN is out instead of slipping through.
        if not arm.out and not arm.drawdown <= rules.max_drawdown:
            fallen = f"drawdown {100 * arm.drawdown:.1f} %, limit {100 * rules.max_drawdown:g} %"
            arm = replace(arm, out=fallen)  # noqa: PLW2901 - the arm as it is from here on
            reasons.append(f"{arm.version} is out: {fallen}")
        kept.append(arm)
    freed = sum(arm.weight for arm in kept if arm.out)
    first = kept[0]
    grown = [replace(arm, weight=0.0) if arm.out else arm for arm in kept]
    if not first.out and freed > 0.0:
        grown[0] = replace(first, weight=first.weight + freed)
    return grown, reasons


def _is_informed(arm: Arm, age_days: Floats, rules: AllocationRules) -> bool:
    if arm.observed < rules.adaptive_after_bars:
        return False
    seen = np.isfinite(arm.returns)
    # under a steep discount old bars leave nothing to learn from
    return effective_count(bar_weights(age_days[seen], rules.discount)) > MIN_EFFECTIVE


def _target(
    arms: Sequence[Arm], age_days: Floats, rules: AllocationRules, horizon: int
) -> tuple[Floats, str]:
    """Weights by the returns, of sum 1, and the reason."""
    if rules.observed == "paper":
        weights, bars = _hedge(arms, rules, horizon)
        why = f"Hedge on {bars} bars of all arms"
    else:
        weights = _thompson(arms, age_days, rules)
        counts = ", ".join(str(arm.observed) for arm in arms)
        why = f"Thompson sampling on {counts} bars"
    shown = ", ".join(f"{arm.version} {w:.3f}" for arm, w in zip(arms, weights, strict=True))
    return weights, f"{why}: {shown} before the limits"


def _hedge(arms: Sequence[Arm], rules: AllocationRules, horizon: int) -> tuple[Floats, int]:
    returns = np.stack([arm.returns for arm in arms], axis=1)
    returns = returns[np.isfinite(returns).all(axis=1)]
    if rules.outcome == "wins":
        gained = NEUTRAL + np.sign(returns) / 2.0
    else:
        gained = gains(returns, rules.clip_deviations)
    prior = np.array([arm.start for arm in arms])
    rate = learning_rate(len(arms), max(horizon, len(returns)))
    return hedge_path(gained, prior / prior.sum(), rate)[-1], len(returns)


def _thompson(arms: Sequence[Arm], age_days: Floats, rules: AllocationRules) -> Floats:
    seen = [np.isfinite(arm.returns) for arm in arms]
    returns = [arm.returns[rows] for arm, rows in zip(arms, seen, strict=True)]
    weights = [bar_weights(age_days[rows], rules.discount) for rows in seen]
    if rules.outcome == "wins":
        pairs = zip(returns, weights, strict=True)
        counts = [(float(w[r > 0].sum()), float(w[r < 0].sum())) for r, w in pairs]
        return probabilities_of_best([beta_posterior(*each) for each in counts])
    return probabilities_of_best(gaussian_posteriors(returns, weights))


def _answer(arms: Sequence[Arm], reasons: Sequence[str]) -> Allocation:
    weights = tuple(round(arm.weight, 12) for arm in arms)
    return Allocation(weights, tuple(arm.out for arm in arms), tuple(reasons))
