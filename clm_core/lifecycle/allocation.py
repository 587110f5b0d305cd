"""Allocations (A/B): candidates share the capital of a model with the production version.

A person starts an allocation; each shadow pass moves the weights by `decisions.allocation`, and ends the
allocation once the shadow decision, a person or the protection has changed the versions. Every arm's return
comes from the recorded positions, as in shadow testing; only bars earned on positions recorded in time count.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from clm_core.decisions.allocation import (
    Allocation,
    Arm,
    SplitCheck,
    allocate,
    arm_of_bar,
    check_split,
    start_weights,
)
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
from clm_core.domain.promotions import PromotionKind, authorise, halted
from clm_core.domain.shadow_decisions import ShadowAction, ShadowDecision
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus
from clm_core.market.bars import Floats
from clm_core.market.timeframes import Timeframe
from clm_core.operations.passes import attempt
from clm_core.registry.allocation_in_force import TAKING_PART, change_since_start
from clm_core.retraining.shadow_tracks import Stint, markets_since, moment, run_of
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
    return services.ledger.allocations.start(
        model_id, arms, chosen, actor, reason, services.clock(), forced=force
    )


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
    return services.ledger.allocations.end(run, AllocationEnd.STOPPED, reason, actor, services.clock())


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
    now = services.clock()
    for opened, label in arms.items():
        if label not in run.arms:
            raise AllocationRefused(f"{label} is no arm of {model_id}: the arms are {', '.join(run.arms)}.")
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
        step, failed = attempt(f"allocation of {run.model_id}", partial(update, services, run, champion))
        problems.setdefault(champion.timeframe, []).extend(failed)
        steps += [] if step is None else [step]
    return steps, problems


def update(services: Services, run: AllocationRun, champion: ModelVersion) -> AllocationStep:
    """Move the weights of an allocation by the bars recorded since, or end the allocation."""
    store = services.ledger.allocations
    recorded = store.weights(run)
    candidates = [services.ledger.version(run.model_id, label) for label in run.arms[1:]]
    now = services.clock()
    ended = end_of(services, run, candidates)
    if ended is not None:
        done = store.end(run, *ended, SYSTEM, now)
        services.alerts.settle(AlertKind.SPLIT_DIFFERS, run.model_id, None, now)
        return AllocationStep(run=done, arms=recorded[-1].arms)
    levels = services.lifecycle(run.model_id, champion.symbol)
    rules = levels.allocation.model_copy(update={"observed": run.observed})
    tracks = _tracks(services, run, [champion, *candidates])
    newest = recorded[-1]
    is_new_day = newest.at.date() < now.astimezone(newest.at.tzinfo).date()
    has_new_bar = len(tracks.closes) > 0 and moment(int(tracks.closes[-1])) > newest.at
    may_move = is_new_day and has_new_bar
    arms = _arms(run, recorded, [champion, *candidates], tracks)
    horizon = max(round(levels.max_days * DAY / _bar_of(champion)), 1)
    decided = allocate(arms, tracks.age_days(now), rules, horizon, may_move)
    split = _checked_split(services, run, recorded, rules, _bar_of(champion))
    step = AllocationStep(
        run=run,
        arms=_weighed(run, decided),
        bars=int(np.count_nonzero(np.isfinite(tracks.returns).all(axis=1))),
        reasons=decided.reasons,
        split=split,
    )
    if may_move or step.arms != newest.arms:
        try:
            store.weigh(run, newest, step.arms, decided.reasons, SYSTEM, now)
        except ConflictError:
            # another pass or a person came first; the weights in force are theirs
            return step.model_copy(update={"arms": store.weights(run)[-1].arms})
    return step


def end_of(
    services: Services, run: AllocationRun, candidates: Sequence[ModelVersion]
) -> tuple[AllocationEnd, str] | None:
    """Outcome of an allocation with the reason; None while it goes on."""
    history = services.ledger.promotions.committed(run.model_id)
    change = change_since_start(run, history)
    if change is not None and change.kind is PromotionKind.HALT:
        return AllocationEnd.HALTED, f"{change.actor} halted the model: {change.reason}"
    if change is not None:
        promoted = change.to_version in run.arms[1:]
        outcome = AllocationEnd.PROMOTED if promoted else AllocationEnd.CHAMPION_CHANGED
        reason = f": {change.reason}" if change.reason else ""
        return outcome, f"{change.to_version or 'no version'} is in production, by {change.actor}{reason}"
    if any(each.status in TAKING_PART for each in candidates):
        return None
    newest = [services.ledger.shadow_decisions.newest(run.model_id, each.version) for each in candidates]
    decisions = [None if each is None else each.decision for each in newest]
    expired = all(each is not None and each.action is ShadowAction.EXPIRE for each in decisions)
    reasons = (_why_left(*pair) for pair in zip(candidates, decisions, strict=True))
    return AllocationEnd.EXPIRED if expired else AllocationEnd.RETIRED, "; ".join(reasons)


def _why_left(version: ModelVersion, decision: ShadowDecision | None) -> str:
    left = f"{version.version} is {version.status}"
    if decision is None or decision.action not in (ShadowAction.RETIRE, ShadowAction.EXPIRE):
        return left
    return f"{left}: {'; '.join(decision.reasons)}"


@dataclass(frozen=True, eq=False)
class _Tracks:
    """Returns of all arms since the start of an allocation, on common bars."""

    opens: NDArray[np.int64]
    """Open times of the bars, nanoseconds since 1970-01-01 UTC, shape (n_bars,)."""
    closes: NDArray[np.int64]
    returns: Floats
    """Net returns earned on positions recorded in time, NaN elsewhere, shape (n_bars, n_arms)."""

    def age_days(self, now: datetime) -> Floats:
        """Days since the close of each bar, shape (n_bars,)."""
        return np.asarray((now.timestamp() - self.closes / 1e9) / DAY.total_seconds())


def _tracks(services: Services, run: AllocationRun, versions: Sequence[ModelVersion]) -> _Tracks:
    markets = markets_since(services, versions[0], run.started_at)
    runs = [run_of(services, [Stint(each, run.started_at)], markets) for each in versions]
    measured = [each for each in runs if each is not None]
    if not measured:
        none = np.zeros(0, dtype=np.int64)
        return _Tracks(none, none, np.zeros((0, len(versions))))
    axis = measured[0].axis
    returns = np.stack([np.where(each.earned, each.returns, np.nan) for each in measured], axis=1)
    return _Tracks(axis.time, axis.time + axis.timeframe.nanoseconds, returns)


def _arms(
    run: AllocationRun,
    recorded: Sequence[RecordedWeights],
    versions: Sequence[ModelVersion],
    tracks: _Tracks,
) -> list[Arm]:
    observed = tracks.returns
    if run.observed == "fills":
        traded = _traded_arms(run, recorded, tracks)
        observed = np.where(traded[:, None] == np.arange(len(versions)), observed, np.nan)
    arms = []
    for number, version in enumerate(versions):
        newest = recorded[-1].arms[number]
        left = number > 0 and version.status not in TAKING_PART
        arms.append(
            Arm(
                version.version,
                recorded[0].arms[number].weight,
                newest.weight,
                observed[:, number],
                _drawdown(tracks.returns[:, number]),
                newest.out or (f"the version is {version.status}" if left else ""),
            )
        )
    return arms


def _traded_arms(
    run: AllocationRun, recorded: Sequence[RecordedWeights], tracks: _Tracks
) -> NDArray[np.int64]:
    """Number of the arm whose position earned the return of each bar, -1 for none, shape (n_bars,)."""
    chosen = [-1]
    for opened, close in zip(tracks.opens[:-1], tracks.closes[:-1], strict=True):
        weights = recorded_for_bar(recorded, moment(int(close))).weights
        arm = arm_of_bar(run.model_id, run.id, moment(int(opened)), weights)
        chosen.append(-1 if arm is None else arm)
    return np.array(chosen[: len(tracks.opens)], dtype=np.int64)


def _drawdown(returns: Floats) -> float:
    """Largest fall of equity below its peak, 0..1; bars without a return are left out."""
    equity = np.concatenate([[1.0], np.cumprod(1.0 + returns[np.isfinite(returns)])])
    return float(np.max(1.0 - equity / np.maximum.accumulate(equity)))


def _weighed(run: AllocationRun, decided: Allocation) -> tuple[ArmWeight, ...]:
    rows = zip(run.arms, decided.weights, decided.out, strict=True)
    return tuple(ArmWeight(version=label, weight=weight, out=out) for label, weight, out in rows)


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
    counted = Counter(served.values())
    weights = [recorded_for_bar(recorded, opened + bar).weights for opened in served]
    expected = [float(sum(column)) for column in zip(*weights, strict=True)]
    check = check_split([counted[label] for label in run.arms], expected, rules.split_false_alarms)
    rows = zip(run.arms, check.counts, check.expected, strict=True)
    shown = ", ".join(f"{label} {count} bars, asked for {asked:.1f}" for label, count, asked in rows)
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
