"""Decision on a version under shadow testing: promote, retire, continue or expire, with reasons.

Only bars earned on positions recorded in time are evidence. Three cases:

    refresh       the champion's recipe on newer bars: the gate's agreement rule has decided already
    first         nothing serves: the gate is the proof, and the shadow confirms data, costs and execution; a
                  version is promoted unless the Sharpe ratio lies too far below the walk-forward
    replacement   another recipe serves: the version has to earn more at equal volatility, by bounds valid
                  at every look, at the level of the place in the year's error budget

After an INCONCLUSIVE verdict a version needs besides a verdict of PASS on walk-forward and shadow bars
together. Comparisons are written so that a missing value or NaN never promotes and never retires.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from clm_core.decisions.lifecycle_rules import LifecycleRules
from clm_core.domain.evaluations import Decision
from clm_core.domain.measures import finite_or_none
from clm_core.domain.shadow_decisions import ShadowAction, ShadowDecision, ShadowFigures, SingleLookTests
from clm_core.evidence import paired
from clm_core.evidence.paired import Bounds, PairedRecord
from clm_core.evidence.track_record import TrackRecord, chance_of_shortfall

TUNED_FOR = 90
"""Days at which the bounds of the lead are tightest."""
NO_LEAD = PairedRecord()
WORSE = 0.05
"""Probability that a shadow as good as the champion is ever retired as worse."""


@dataclass(frozen=True)
class ShadowFacts:
    """Evidence behind a decision."""

    days: float
    """Days since the start of the shadow."""
    bars: int
    """Bars earned on positions recorded in time."""
    trades: int
    """Closed trades with every bar earned on such positions."""
    verdict: Decision | None
    """Verdict of the gate in force, the lead over the champion aside; None if there is none."""
    objections: tuple[str, ...] = ()
    """Reasons of a verdict other than PASS."""
    champion: str | None = None
    """Production version, if any."""
    is_refresh: bool = False
    """True for a version of the champion's recipe."""
    walk_forward: TrackRecord | None = None
    """Out-of-sample record of the recipe before the shadow."""
    looks: tuple[TrackRecord, ...] = ()
    """Record of the shadow up to each look at the walk-forward that was reached: the moment of the
    confirmation where nothing serves, every `confirm_days` where a version does."""
    lead: PairedRecord = NO_LEAD
    """Daily differences to the champion at equal volatility."""
    single_look: SingleLookTests | None = None
    """Usual tests on the same days, shown beside the decision."""
    level: float | None = None
    """Level of the lead's lower bound, from the place; None without a champion."""
    waits_for: str = ""
    """Reason against carrying out a promotion now; empty: none."""
    needs_approval: bool = False
    """True if the policy asks for the approval of a person."""


def decide(facts: ShadowFacts, rules: LifecycleRules) -> ShadowDecision:
    """Decision on a version, with reasons."""
    low, high = _lead_bounds(facts)
    chances = tuple(_chances(facts))
    action, reason = _answer(facts, rules, low, high, chances)
    return ShadowDecision(
        action=action,
        reasons=(reason,),
        progress=_progress(facts, rules, low, high),
        waits_for=facts.waits_for if action is ShadowAction.PROMOTE else "",
        needs_approval=facts.needs_approval and action is ShadowAction.PROMOTE,
        figures=ShadowFigures(
            days=finite_or_none(facts.days),
            bars=facts.bars,
            trades=facts.trades,
            lead_days=facts.lead.n,
            level=facts.level,
            lead_low_bps=finite_or_none(low * 1e4),
            lead_high_bps=finite_or_none(high * 1e4),
            chance_of_bad_luck=finite_or_none(min(chances, default=math.nan)),
            single_look=facts.single_look,
        ),
    )


def _answer(
    facts: ShadowFacts, rules: LifecycleRules, low: float, high: float, chances: tuple[float, ...]
) -> tuple[ShadowAction, str]:
    if facts.verdict is Decision.FAIL:
        return ShadowAction.RETIRE, f"the gate fails the version now: {_first(facts.objections)}"
    expired = facts.days >= rules.max_days
    if not facts.is_refresh:
        limit = rules.refute_chance if facts.champion is None else rules.refute_chance / rules.looks
        for chance in chances:
            if chance < limit:
                return ShadowAction.RETIRE, _refuted(chance)
        if high < 0.0:
            return ShadowAction.RETIRE, (
                f"worse than champion {facts.champion}: at best {high * 1e4:.2f} bps a day over "
                f"{facts.lead.n} days at equal volatility"
            )
    earned = _earned(facts, rules, low, chances)
    if earned and not (facts.waits_for and expired):
        return ShadowAction.PROMOTE, earned
    if expired:
        return ShadowAction.EXPIRE, _expired(facts, rules, earned)
    return ShadowAction.CONTINUE, _missing(facts, low)


def _earned(facts: ShadowFacts, rules: LifecycleRules, low: float, chances: tuple[float, ...]) -> str:
    """Reason for a promotion; empty without one."""
    if facts.verdict is not Decision.PASS:
        return ""
    if facts.is_refresh:
        return f"a refresh of champion {facts.champion} that passed the gate"
    if facts.champion is not None:
        if facts.level is None or not low > 0.0:
            return ""
        return (
            f"better than champion {facts.champion}: at least {low * 1e4:.2f} bps a day over {facts.lead.n} "
            f"days at equal volatility, at a level of {100 * facts.level:.3g} %"
        )
    reached = facts.trades >= rules.confirm_trades or facts.days >= rules.confirm_days
    confirmed = bool(chances) and all(chance >= rules.refute_chance for chance in chances)
    if not (reached and confirmed and facts.bars > 0 and facts.trades > 0):
        return ""
    return (
        f"nothing serves, and {facts.trades} trades on {facts.bars:,} bars recorded in time do not refute "
        f"the walk-forward (a shadow as low comes by bad luck in {100 * min(chances):.0f} %)"
    )


def _refuted(chance: float) -> str:
    return (
        "backtest not confirmed: the shadow's Sharpe ratio is so far below its walk-forward that bad luck "
        f"explains it in {100 * chance:.2g} %"
    )


def _expired(facts: ShadowFacts, rules: LifecycleRules, earned: str) -> str:
    after = f"after {facts.days:.0f} days (max_days = {rules.max_days:g})"
    if not facts.bars:
        return f"no position was recorded in time {after}: the shadow pass has to run after every bar"
    if not facts.trades:
        return f"no trade was closed {after}"
    if earned:
        return f"nobody promoted the version {after}, which waited for: {facts.waits_for}"
    return f"undecided {after}: {_missing(facts, math.nan)}"


def _missing(facts: ShadowFacts, low: float) -> str:
    if facts.verdict is not Decision.PASS:
        better = "better than the champion, but " if low > 0.0 else ""
        if facts.verdict is None:
            return f"{better}the evidence could not be judged: {_first(facts.objections)}"
        return f"{better}the evidence is not complete: {_first(facts.objections)}"
    if facts.champion is None:
        return "the shadow has not confirmed the walk-forward yet"
    if facts.lead.n < paired.MIN_DIFFERENCES:
        return f"a comparison with champion {facts.champion} takes {paired.MIN_DIFFERENCES} days"
    return f"neither better nor worse than champion {facts.champion} so far"


def _progress(facts: ShadowFacts, rules: LifecycleRules, low: float, high: float) -> str:
    if facts.is_refresh:
        return f"{facts.days:.0f} of {rules.max_days:g} days"
    if facts.champion is None:
        trades = f"{facts.trades} of {rules.confirm_trades} trades"
        return f"{facts.days:.0f} of {rules.confirm_days:g} days, {trades}"
    level = "no level yet" if facts.level is None else f"level {100 * facts.level:.2g} %"
    bounds = ""
    if math.isfinite(low) and math.isfinite(high):
        bounds = f", {low * 1e4:.2f} to {high * 1e4:.2f} bps a day"
    return f"lead: {facts.lead.n} days, {level}{bounds}, {facts.days:.0f} of {rules.max_days:g} days"


def _lead_bounds(facts: ShadowFacts) -> tuple[float, float]:
    """Lower bound at the level of the place, and upper bound at 5 %, a fraction a day; NaN where unknown."""
    if facts.champion is None or facts.is_refresh:
        return math.nan, math.nan
    return lead_bounds(facts.lead, facts.level)


def lead_bounds(lead: PairedRecord, level: float | None) -> tuple[float, float]:
    """Lower bound of the mean lead at a level, and upper bound at `WORSE`, a fraction a day.

    Args:
        lead: daily differences at equal volatility.
        level: level of the place; None, for a place without one, leaves the lower bound unknown.
    """
    unknown = Bounds(math.nan, math.nan, math.nan)
    low = unknown if level is None else paired.bounds(lead, level, TUNED_FOR)
    return low.low, paired.bounds(lead, WORSE, TUNED_FOR).high


def _chances(facts: ShadowFacts) -> Iterator[float]:
    """Probability of bad luck at each look; NaN where the shadow or the walk-forward is not measured."""
    for look in facts.looks:
        yield math.nan if facts.walk_forward is None else chance_of_shortfall(look, facts.walk_forward)


def _first(objections: tuple[str, ...]) -> str:
    return objections[0] if objections else "no reason was recorded"
