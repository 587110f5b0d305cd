"""Protection of a production version: should it be taken out of production?

Three triggers, measured on the bars since the promotion:

- The hard stop: equity has fallen below its peak since the promotion by more than the limit, as traded. The
  hard stop acts always, unless a person switched it off for the version, by name and with an end.
- The alarm on the mean: the sequential test of `decisions.health` on daily returns, declared to raise at most
  one false alarm in 100 quarters at a true Sharpe ratio of 2.
- The alarm on the tail: the sequential test of `evidence.tail_risk` on the losses of the worst bars, declared
  to raise at most one false alarm in 100 quarters of a version like its backtest.

Refreshes replace a version by the same recipe on newer bars, weekly or sooner, and each begins at zero. So
the hard stop and the alarm on the mean are measured a second time: over all successive versions of the
recipe, since the first of them came into production. A trigger of the recipe rolls back to the version before
the first one, or halts, since the versions in between have the same recipe.

The two alarms wait for `hold_days` after a person's decision about the production version. A trigger rolls
back to the version before. Without a usable version before, the model is halted: no version serves, and
traders are flat. After `max_rollbacks` rollbacks in a row without a person, no alarm acts any more, and a
hard stop halts.

A version older than `max_serving_days`, where the rules name them, is halted: the version before is older
still.

`protection = "classic"` adds the rule that people know: a Sharpe ratio below `min_sharpe` over the first
`first_trades` trades. Of the versions with a true Sharpe ratio of 2 the rule takes back 23 % where these
trades take a quarter (`python -m benchmarks.protection`).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from clm_core.decisions.health import Alarm
from clm_core.decisions.protection_rules import ProtectionRules
from clm_core.domain.promotions import EXPIRY
from clm_core.evidence.tail_risk import TailTest


class ProtectionAction(StrEnum):
    KEEP = "keep"
    ROLL_BACK = "roll_back"
    HALT = "halt"
    """No version is to serve."""
    FREEZE = "freeze"
    """A trigger has fired and nothing is changed any more without a person."""


class ProtectionTrigger(StrEnum):
    HARD_STOP = "hard_stop"
    MEAN = "mean"
    TAIL = "tail"
    FIRST_TRADES = "first_trades"
    EXPIRED = "expired"


@dataclass(frozen=True)
class RecipeFacts:
    """Measurements of the recipe in production over successive versions, since the first came into
    production."""

    versions: int
    """Number of the versions, at least 2."""
    drawdown: float
    """Fall of equity below its peak, 0..1; NaN if not measurable."""
    alarm: Alarm
    target: str | None
    """Version in production before the first of the versions, if any."""
    target_problem: str | None = None
    """Reason why the target cannot serve, if any."""


@dataclass(frozen=True)
class ProtectionFacts:
    """Measurements on the bars since the promotion, and the state of the model."""

    drawdown: float
    """Fall of equity below its peak since the promotion, 0..1; NaN if not measurable."""
    trades: int
    """Closed trades since the promotion."""
    sharpe_of_first: float
    """Annualised Sharpe ratio up to the close of the first trades; NaN before, and if not measurable."""
    alarm: Alarm
    tail: TailTest | None
    """None without a reference for the tail."""
    person_decided_days: float | None
    """Days since a person's last decision on the production version; None: no person decided."""
    hard_stop_off: bool
    """True while a person has switched the hard stop off for the version."""
    rollbacks: int
    """Rollbacks by the protection in a row."""
    target: str | None
    """Target of a rollback, if any."""
    age_days: float = 0.0
    """Days since the registration of the version."""
    target_problem: str | None = None
    """Reason why the target cannot serve, if any."""
    recipe: RecipeFacts | None = None
    """None unless the version is a refresh."""


@dataclass(frozen=True)
class ProtectionDecision:
    action: ProtectionAction
    trigger: ProtectionTrigger | None
    """None for a version kept without a trigger."""
    reasons: tuple[str, ...]
    """Sentences: the trigger with the figures, then the reason for the action."""
    target: str | None = None
    """Version to roll back to; None for any other action."""


@dataclass(frozen=True)
class _Fired:
    """A fired trigger."""

    trigger: ProtectionTrigger
    reason: str
    """The figures in words."""
    of_recipe: RecipeFacts | None = None
    """The recipe over successive versions, if fired by the recipe; None: fired by the version alone."""


def protect(facts: ProtectionFacts, rules: ProtectionRules) -> ProtectionDecision:
    """Decision on a production version; an unmeasurable figure triggers nothing."""
    if rules.mode == "off":
        return ProtectionDecision(ProtectionAction.KEEP, None, ("the protection is switched off",))
    fired = _fired(facts, rules)
    if fired is None and rules.max_serving_days is not None and facts.age_days > rules.max_serving_days:
        reason = (
            f"the version is {facts.age_days:.0f} days old, and may serve for {rules.max_serving_days:g} "
            f"({EXPIRY}): retrain"
        )
        return ProtectionDecision(ProtectionAction.HALT, ProtectionTrigger.EXPIRED, (reason,))
    if fired is None:
        return ProtectionDecision(ProtectionAction.KEEP, None, ())
    action, note = _action(facts, rules, fired)
    reasons = (fired.reason,) if note is None else (fired.reason, note)
    target = None
    if action is ProtectionAction.ROLL_BACK:
        target = (fired.of_recipe or facts).target
    return ProtectionDecision(action, fired.trigger, reasons, target)


def recipe_has_fired(recipe: RecipeFacts, rules: ProtectionRules) -> bool:
    """True if a trigger of the recipe fires, unless a person has switched the hard stop off."""
    return recipe.drawdown > rules.max_drawdown or recipe.alarm.raised_on_day is not None


def _action(
    facts: ProtectionFacts, rules: ProtectionRules, fired: _Fired
) -> tuple[ProtectionAction, str | None]:
    """Action after a trigger, and a clause on the reason for another action than a rollback."""
    is_hard = fired.trigger is ProtectionTrigger.HARD_STOP
    decided = facts.person_decided_days
    if decided is not None and decided < rules.hold_days and not is_hard:
        note = f"a person decided {decided:.1f} days ago, and no alarm acts within {rules.hold_days:g} days"
        return ProtectionAction.KEEP, note
    if facts.rollbacks >= rules.max_rollbacks:
        note = f"{facts.rollbacks} rollbacks in a row were made without a person, and no more are"
        return (ProtectionAction.HALT if is_hard else ProtectionAction.FREEZE), note
    before = fired.of_recipe or facts
    if before.target is None:
        of = "" if fired.of_recipe is None else " of another recipe"
        return ProtectionAction.HALT, f"no earlier version{of} was in production"
    if before.target_problem is not None:
        note = f"the version before, {before.target}, cannot serve: {before.target_problem}"
        return ProtectionAction.HALT, note
    return ProtectionAction.ROLL_BACK, None


def _fired(facts: ProtectionFacts, rules: ProtectionRules) -> _Fired | None:
    """First trigger fired."""
    return next(_all_fired(facts, rules), None)


def _all_fired(facts: ProtectionFacts, rules: ProtectionRules) -> Iterator[_Fired]:
    if facts.drawdown > rules.max_drawdown and not facts.hard_stop_off:
        yield _hard_stop(facts.drawdown, rules, "since the promotion")
    if facts.alarm.raised_on_day is not None:
        yield _alarm(facts.alarm, "since the promotion")
    tail = facts.tail
    if tail is not None and tail.raised_at is not None:
        reason = (
            f"the losses of the worst bars have grown beyond the backtest's (mean of the worst tenth "
            f"{tail.worst_tenth:.1f} times the volatility): alarm on bar {tail.raised_at} with a position "
            "since the promotion, which a version like its backtest raises in one quarter of a hundred"
        )
        yield _Fired(ProtectionTrigger.TAIL, reason)
    recipe = facts.recipe
    if recipe is not None:
        since = f"since the recipe came into production, {recipe.versions} versions ago"
        if recipe.drawdown > rules.max_drawdown and not facts.hard_stop_off:
            yield replace(_hard_stop(recipe.drawdown, rules, since), of_recipe=recipe)
        if recipe.alarm.raised_on_day is not None:
            yield replace(_alarm(recipe.alarm, since), of_recipe=recipe)
    # Written as `>=` and `<` so that a NaN fires nothing.
    if (
        rules.mode == "classic"
        and facts.trades >= rules.first_trades
        and facts.sharpe_of_first < rules.min_sharpe
    ):
        reason = (
            f"Sharpe ratio {facts.sharpe_of_first:.2f} over the first {rules.first_trades} trades, below "
            f"{rules.min_sharpe:g}; of versions with a true ratio of 2, 23 % miss this where the trades take "
            "a quarter, and 7 % where they take a year"
        )
        yield _Fired(ProtectionTrigger.FIRST_TRADES, reason)


def _hard_stop(drawdown: float, rules: ProtectionRules, since: str) -> _Fired:
    reason = (
        f"equity has fallen {100 * drawdown:.1f} % below its peak {since}, and the hard stop is at "
        f"{100 * rules.max_drawdown:g} %"
    )
    return _Fired(ProtectionTrigger.HARD_STOP, reason)


def _alarm(alarm: Alarm, since: str) -> _Fired:
    reason = (
        f"the sequential test of the returns raised its alarm on day {alarm.raised_on_day} {since}: a "
        "version with a Sharpe ratio of 2 does so in one quarter of a hundred"
    )
    return _Fired(ProtectionTrigger.MEAN, reason)


def years_to_hard_stop(sharpe: float, volatility: float, limit: float) -> float:
    """Mean years until a strategy with constant true figures falls `limit` below its peak.

    For log equity as a Brownian motion with drift m = sharpe * v - v^2 / 2 and volatility v, the mean time to
    a drawdown of size d is (e^(2 m d / v^2) - 1 - 2 m d / v^2) v^2 / (2 m^2), and d^2 / v^2 without drift
    (Taylor 1975).

    Args:
        sharpe: true annualised Sharpe ratio.
        volatility: yearly volatility, a fraction.
        limit: drawdown of the hard stop, 0..1.
    """
    if not (volatility > 0 and 0 < limit < 1 and math.isfinite(sharpe)):
        return math.nan
    depth = -math.log1p(-limit)
    drift = sharpe * volatility - volatility**2 / 2
    scaled = 2 * drift * depth / volatility**2
    if abs(scaled) < 1e-6:
        return depth**2 / volatility**2
    try:
        return (math.expm1(scaled) - scaled) * volatility**2 / (2 * drift**2)
    except OverflowError:
        return math.inf
