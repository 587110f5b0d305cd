"""Allocations (A/B): candidates share the capital of a model with the production version.

A person starts an allocation; each shadow pass moves the weights by `decisions.allocation`, lets newer
versions of a recipe take over its arm, and ends the allocation once the shadow decision, a person or the
protection has changed the recipes.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial

import numpy as np
from pydantic import BaseModel, ConfigDict

from clm_core.decisions.allocation import Allocation, SplitCheck, allocate, check_split, start_weights
from clm_core.decisions.allocation_rules import AllocationRules
from clm_core.domain.actors import SYSTEM, Actor
from clm_core.domain.alerts import AlertKind
from clm_core.domain.allocations import (
    AllocationEnd,
    AllocationRun,
    ArmWeight,
    Observed,
    RecordedWeights,
    recorded_for_bar,
)
from clm_core.domain.errors import AllocationRefused, ConflictError, ModelHalted, NotFound
from clm_core.domain.faults import Fault, crash_at
from clm_core.domain.promotions import Promotion, PromotionKind, authorise, halted
from clm_core.domain.shadow_decisions import ShadowAction, ShadowDecision
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus
from clm_core.lifecycle.allocation_arms import (
    ArmVersions,
    arm_numbers,
    arm_tracks,
    arms_now,
    arms_of_decision,
    observed_returns,
)
from clm_core.market.timeframes import Timeframe
from clm_core.operations.passes import attempt
from clm_core.registry.allocation_in_force import TAKING_PART
from clm_core.retraining.shadow_tracks import moment, recipe_key
from clm_core.services import Services

DAY = timedelta(days=1)


class AllocationStep(BaseModel):
    """An allocation after a pass."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    run: AllocationRun
    arms: tuple[ArmWeight, ...]
    """Weights in force, the production version first."""
    bars: int = 0
    """Bars since the start with a return of every arm."""
    reasons: tuple[str, ...] = ()
    """Why the weights changed or stayed."""
    split: SplitCheck | None = None
    """Bars reported as traded, beside the weights; None without a report."""

    @property
    def sentence(self) -> str:
        weights = ", ".join(f"{arm.version} {100 * arm.weight:.1f} %" for arm in self.arms)
        reasons = f" ({'; '.join(self.reasons)})" if self.reasons else ""
        if self.run.end is not None:
            return f"{self.run.model_id}: the allocation ended, {self.run.end}: {self.run.end_reason}"
        return f"{self.run.model_id}: allocation {weights} on {self.bars:,} bars{reasons}"


def start(
    services: Services,
    model_id: str,
    candidates: Sequence[str],
    actor: Actor,
    reason: str,
    observed: Observed | None = None,
    force: bool = False,
) -> AllocationRun:
    """Start an allocation between the production version and candidates.

    Args:
        candidates: version labels, at least one.
        observed: in place of the policy's; see `AllocationRules`.
        force: an admin lets versions take part that await a decision without having passed the gate.

    Raises:
        NotFound: the model has no such version, or no production version.
        NotAllowed: the actor's role does not permit the start.
        AllocationRefused: a version may not take part, or the weights cannot be kept.
        ConflictError: an allocation of the model is running.
    """
    authorise(actor, force, reason)
    champion = _champion(services, model_id)
    versions = [services.ledger.version(model_id, label) for label in candidates]
    _require_candidates(champion, versions, force)
    rules = services.lifecycle(model_id, champion.symbol).allocation
    try:
        weights = start_weights(1 + len(versions), rules)
    except ValueError as error:
        raise AllocationRefused(f"{model_id}: {error}.") from error
    arms = [
        ArmWeight(version=each.version, weight=weight)
        for each, weight in zip([champion, *versions], weights, strict=True)
    ]
    chosen = observed or rules.observed
    fault = services.settings.fault
    run = services.ledger.allocations.start(
        model_id, arms, chosen, actor, reason, services.clock(), forced=force, fault=fault
    )
    crash_at(Fault.ALLOCATION_STARTED, fault)
    return run


def stop(services: Services, model_id: str, actor: Actor, reason: str) -> AllocationRun:
    """End the running allocation of a model: the production version has the whole capital.

    A repetition of the end is answered with the ended allocation.

    Raises:
        NotFound: no allocation of the model is running.
        NotAllowed: the actor's role does not permit the end.
    """
    authorise(actor, False, reason)
    run = services.ledger.allocations.running(model_id)
    if run is None:
        newest = services.ledger.allocations.history(model_id, limit=1)
        if newest and (newest[0].ended_by, newest[0].end_reason) == (actor.name, reason):
            return newest[0]
        raise NotFound(f"No allocation of {model_id} is running: `clm ab start` starts one.")
    return _end(services, run, AllocationEnd.STOPPED, reason, actor)


def _end(
    services: Services, run: AllocationRun, outcome: AllocationEnd, reason: str, actor: Actor
) -> AllocationRun:
    """End an allocation; the next pass ends the alert about its split."""
    fault = services.settings.fault
    done = services.ledger.allocations.end(run, outcome, reason, actor, services.clock(), fault)
    crash_at(Fault.ALLOCATION_ENDED, fault)
    return done


def report_served(services: Services, model_id: str, arms: Mapping[datetime, str], actor: Actor) -> int:
    """Record the arms that a trader has traded, by the open times of the bars.

    Returns:
        Number of new records.

    Raises:
        NotFound: no allocation of the model is running.
        AllocationRefused: a version is no arm, or a bar has not closed since the start of the allocation.
        AlreadyExists: another arm is recorded for a bar.
    """
    run = services.ledger.allocations.running(model_id)
    if run is None:
        raise NotFound(f"No allocation of {model_id} is running: there is nothing to report.")
    bar = _bar_of(services.ledger.version(model_id, run.champion))
    labels = arm_numbers(services, run, services.ledger.allocations.weights(run))
    now = services.clock()
    for opened, label in arms.items():
        if label not in labels:
            raise AllocationRefused(f"{label} is no arm of {model_id}: the arms are {', '.join(labels)}.")
        if not run.started_at < opened + bar <= now:
            raise AllocationRefused(
                f"The bar of {opened:%Y-%m-%d %H:%M} UTC has not closed between the start of the allocation "
                f"at {run.started_at:%Y-%m-%d %H:%M} UTC and now: send open times of closed bars, in UTC."
            )
    return services.ledger.allocations.record_served(run, arms, actor, now)


def update_all(
    services: Services, model_id: str | None = None, timeframe: Timeframe | None = None
) -> tuple[list[AllocationStep], dict[str, list[str]]]:
    """Move the weights of running allocations, or end them.

    Returns:
        Steps, and problems by timeframe.
    """
    steps: list[AllocationStep] = []
    problems: dict[str, list[str]] = {}
    for run in services.ledger.allocations.all_running():
        champion = services.ledger.version(run.model_id, run.champion)
        if model_id not in (None, run.model_id) or timeframe not in (None, champion.timeframe):
            continue
        step, failed = attempt(f"allocation of {run.model_id}", partial(update, services, run))
        problems.setdefault(champion.timeframe, []).extend(failed)
        steps += [] if step is None else [step]
    _end_alerts(services)
    return steps, problems


def _end_alerts(services: Services) -> None:
    """End the alerts about splits of allocations that a person, a pass or a killed process has ended."""
    lasting = services.alerts.lasting(AlertKind.SPLIT_DIFFERS)
    for alert in lasting:
        if services.ledger.allocations.running(alert.subject) is None:
            services.alerts.end(AlertKind.SPLIT_DIFFERS, alert.subject, services.clock())


def update(services: Services, run: AllocationRun) -> AllocationStep:
    """Move the weights of an allocation by the bars recorded since, or end the allocation."""
    store = services.ledger.allocations
    recorded = store.weights(run)
    newest = recorded[-1]
    arms, change = arms_now(services, run, recorded)
    now = services.clock()
    ended = _outcome(services, [arm.version for arm in arms[1:]], change)
    if ended is not None:
        done = _end(services, run, *ended, SYSTEM)
        return AllocationStep(run=done, arms=newest.arms)
    champion = arms[0].version
    levels = services.lifecycle(run.model_id, champion.symbol)
    rules = levels.allocation.model_copy(update={"observed": run.observed})
    tracks = arm_tracks(services, run, arms)
    is_new_day = newest.at.date() < now.astimezone(newest.at.tzinfo).date()
    has_new_bar = len(tracks.closes) > 0 and moment(int(tracks.closes[-1])) > newest.at
    may_move = is_new_day and has_new_bar
    horizon = max(round(levels.max_days * DAY / _bar_of(champion)), 1)
    observed = observed_returns(services, run, recorded, arms, tracks)
    shown = arms_of_decision(recorded, arms, tracks, observed.returns)
    decided = allocate(shown, tracks.age_days(now), rules, horizon, may_move)
    split = _checked_split(services, run, recorded, rules, _bar_of(champion))
    step = AllocationStep(
        run=run,
        arms=_weighed(arms, decided),
        bars=int(np.count_nonzero(np.isfinite(tracks.returns).all(axis=1))),
        reasons=(*_successions(arms, newest), *observed.notes, *decided.reasons),
        split=split,
    )
    if may_move or step.arms != newest.arms:
        try:
            store.weigh(run, newest, step.arms, step.reasons, SYSTEM, now, services.settings.fault)
        except ConflictError:
            # another pass or a person came first; the weights in force are theirs
            return step.model_copy(update={"arms": store.weights(run)[-1].arms})
        crash_at(Fault.WEIGHTS_RECORDED, services.settings.fault)
    return step


def _successions(arms: Sequence[ArmVersions], newest: RecordedWeights) -> Iterator[str]:
    for arm, before in zip(arms, newest.arms, strict=True):
        if arm.version.version != before.version:
            yield f"{arm.version.version} of the same recipe takes over the arm of {before.version}"


def _outcome(
    services: Services, candidates: Sequence[ModelVersion], change: Promotion | None
) -> tuple[AllocationEnd, str] | None:
    """Outcome of an allocation with the reason; None while it goes on.

    Args:
        change: change of the production version that ends the allocation, if any.
    """
    if change is not None and change.kind is PromotionKind.HALT:
        return AllocationEnd.HALTED, f"{change.actor} halted the model: {change.reason}"
    if change is not None:
        promoted = _is_of_arm(services, change, candidates)
        outcome = AllocationEnd.PROMOTED if promoted else AllocationEnd.CHAMPION_CHANGED
        reason = f": {change.reason}" if change.reason else ""
        return outcome, f"{change.to_version or 'no version'} is in production, by {change.actor}{reason}"
    if any(each.status in TAKING_PART for each in candidates):
        return None
    decided = services.ledger.shadow_decisions.newest
    newest = [decided(each.model_id, each.version) for each in candidates]
    decisions = [None if each is None else each.decision for each in newest]
    expired = all(each is not None and each.action is ShadowAction.EXPIRE for each in decisions)
    reasons = (_why_left(*pair) for pair in zip(candidates, decisions, strict=True))
    return AllocationEnd.EXPIRED if expired else AllocationEnd.RETIRED, "; ".join(reasons)


def _is_of_arm(services: Services, change: Promotion, candidates: Sequence[ModelVersion]) -> bool:
    """True for a change to a candidate, or to another version of a candidate's recipe."""
    if change.kind is not PromotionKind.PROMOTION or change.to_version is None:
        return change.to_version in [each.version for each in candidates]
    promoted = services.ledger.version(change.model_id, change.to_version)
    return recipe_key(promoted) in [recipe_key(each) for each in candidates]


def _why_left(version: ModelVersion, decision: ShadowDecision | None) -> str:
    left = f"{version.version} is {version.status}"
    if decision is None or decision.action not in (ShadowAction.RETIRE, ShadowAction.EXPIRE):
        return left
    return f"{left}: {'; '.join(decision.reasons)}"


def _weighed(arms: Sequence[ArmVersions], decided: Allocation) -> tuple[ArmWeight, ...]:
    rows = zip(arms, decided.weights, decided.out, strict=True)
    return tuple(ArmWeight(version=arm.version.version, weight=weight, out=out) for arm, weight, out in rows)


def _checked_split(
    services: Services,
    run: AllocationRun,
    recorded: Sequence[RecordedWeights],
    rules: AllocationRules,
    bar: timedelta,
) -> SplitCheck | None:
    """Comparison of the bars reported as traded with the weights; an alert lasts as long as they differ."""
    served = services.ledger.allocations.served(run)
    if not served:
        return None
    numbers = arm_numbers(services, run, recorded)
    counted = Counter(numbers[label] for label in served.values())
    weights = [recorded_for_bar(recorded, opened + bar).weights for opened in served]
    expected = [float(sum(column)) for column in zip(*weights, strict=True)]
    check = check_split(
        [counted[number] for number in range(len(run.arms))], expected, rules.split_false_alarms
    )
    rows = zip(recorded[-1].arms, check.counts, check.expected, strict=True)
    shown = ", ".join(
        f"{arm.version} {count} bars, asked for {requested:.1f}" for arm, count, requested in rows
    )
    message = (
        f"The bars traded by the arms of {run.model_id} differ from the weights: {shown}. Check that the "
        "trader asks `load_allocation` or GET /clm/allocation for every bar, or `clm ab stop` the allocation."
    )
    lasting = message if check.differs else None
    services.alerts.settle(AlertKind.SPLIT_DIFFERS, run.model_id, lasting, services.clock())
    return check


def _champion(services: Services, model_id: str) -> ModelVersion:
    """
    Raises:
        NotFound: the model does not exist, or no version serves.
    """
    if not services.ledger.versions(model_id=model_id, limit=1):
        raise NotFound(f"There is no model {model_id}. `clm models` lists the models.")
    halt = halted(services.ledger.promotions.committed(model_id))
    if halt is not None:
        raise ModelHalted(f"{model_id} is halted ({halt.reason}): promote or roll back before an allocation.")
    label = services.ledger.promotions.champion(model_id)
    if label is None:
        raise NotFound(
            f"{model_id} has no production version to share the capital with: `clm promote` promotes one."
        )
    return services.ledger.version(model_id, label)


def _require_candidates(champion: ModelVersion, versions: Sequence[ModelVersion], force: bool) -> None:
    """
    Raises:
        AllocationRefused: a version may not take part.
    """
    labels = [each.version for each in versions]
    if not labels or len(set(labels)) < len(labels):
        raise AllocationRefused("Name the candidates of the allocation, each once.")
    for each in versions:
        named = f"{each.model_id}@{each.version}"
        if each.version == champion.version:
            raise AllocationRefused(f"{named} is in production and an arm already: name candidates only.")
        if each.status not in TAKING_PART:
            raise AllocationRefused(
                f"{named} is {each.status}: candidates alone take part in an allocation, see `clm models`."
            )
        if each.status is not ModelStatus.CANDIDATE and not force:
            raise AllocationRefused(
                f"{named} is {each.status}, it has not passed the gate: choose a candidate, or let an admin "
                "force the allocation with --force and --reason."
            )


def _bar_of(version: ModelVersion) -> timedelta:
    return timedelta(seconds=Timeframe(version.timeframe).seconds)
