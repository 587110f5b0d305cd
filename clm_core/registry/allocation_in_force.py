"""Weights in force for the versions of a model, asked at any moment between two passes.

A promotion, a retirement or a halt takes effect at once: the recorded weights of an allocation are in force
only while the recipe of its production version serves and its candidates are followed. A refresh of the
production version takes over the arm at its promotion, the successor of a candidate in a shadow pass.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from clm_core.domain.allocations import (
    AllocationInForce,
    AllocationRun,
    AllocationState,
    ArmWeight,
    RecordedWeights,
    weights_of_bar,
)
from clm_core.domain.errors import NotFound
from clm_core.domain.promotions import Promotion, PromotionKind, halted
from clm_core.domain.vocabulary import ModelStatus
from clm_core.ledger.store import Ledger

TAKING_PART = (ModelStatus.CANDIDATE, ModelStatus.SHADOW)
"""Statuses of a candidate that takes part."""


def allocation_in_force(ledger: Ledger, model_id: str) -> AllocationInForce:
    """
    Raises:
        NotFound: the model does not exist, or has no production version without being halted.
    """
    if not ledger.versions(model_id=model_id, limit=1):
        raise NotFound(f"There is no model {model_id}. `clm models` lists the models.")
    history = ledger.promotions.committed(model_id)
    halt = halted(history)
    run = ledger.allocations.running(model_id)
    if halt is not None:
        return _halted(model_id, halt, run)
    champion = history[-1].to_version if history else None
    if champion is None:
        raise NotFound(f"{model_id} has no production version: `clm promote` promotes a version.")
    recorded = () if run is None else tuple(ledger.allocations.weights(run))
    if run is None or changes_since_start(ledger, run, history, candidates_of(recorded)).end is not None:
        alone = (ArmWeight(version=champion, weight=1.0),)
        return AllocationInForce(
            model_id=model_id, state=AllocationState.PRODUCTION, arms=alone, since=history[-1].at
        )
    first, *others = recorded[-1].arms
    newest = (first.model_copy(update={"version": champion}), *others)
    statuses = [ledger.version(model_id, arm.version).status for arm in newest]
    arms = _followed(newest, statuses)
    return AllocationInForce(
        model_id=model_id,
        state=AllocationState.RUNNING,
        arms=_weighted(recorded, arms),
        since=recorded[-1].at,
        reasons=recorded[-1].reasons,
        run=run,
        recorded=recorded,
    )


@dataclass(frozen=True)
class ChangesSinceStart:
    """Changes of the production version since the start of an allocation."""

    refreshes: tuple[Promotion, ...]
    """Promotions of versions of the recipe in production, which took over the arm, oldest first."""
    end: Promotion | None
    """First other change, which ends the allocation; None while it goes on."""


def changes_since_start(
    ledger: Ledger, run: AllocationRun, history: Sequence[Promotion], candidates: Collection[str]
) -> ChangesSinceStart:
    """Changes of the production version since the start of an allocation.

    A halt, another recipe in production and a rollback end an allocation, also where the first version is
    back.

    Args:
        history: committed changes of the model, oldest first, at least one.
        candidates: labels of all candidates so far.
    """
    refreshes: list[Promotion] = []
    champion = run.champion
    for change in history:
        if change.at <= run.started_at:
            continue
        if change.to_version in candidates or not _is_refresh(ledger, champion, change):
            return ChangesSinceStart(tuple(refreshes), change)
        refreshes.append(change)
        champion = change.to_version or champion
    # a change begun before the start, and ended after it
    late = history[-1] if history[-1].to_version != champion else None
    return ChangesSinceStart(tuple(refreshes), late)


def candidates_of(recorded: Sequence[RecordedWeights]) -> set[str]:
    """Labels of all candidates of an allocation so far."""
    return {arm.version for each in recorded for arm in each.arms[1:]}


def _is_refresh(ledger: Ledger, champion: str, change: Promotion) -> bool:
    """True for the promotion of another version of the champion's recipe."""
    if change.kind is not PromotionKind.PROMOTION or change.to_version is None:
        return False
    before, after = (ledger.version(change.model_id, label) for label in (champion, change.to_version))
    same = before.recipe_digest is not None and before.recipe_digest == after.recipe_digest
    return same and change.from_version == champion


def arm_for_bar(allocation: AllocationInForce, bar_open: datetime, bar: timedelta) -> str | None:
    """Version that trades the position after a bar, the same in every process; None: hold no position.

    The weights are those recorded by the close of the bar, so that the answer does not depend on the moment
    of the question, except that an arm that is out by now trades no bar.

    Args:
        bar_open: open time of the bar.
        bar: length of the bar.
    """
    if allocation.state is AllocationState.HALTED:
        return None
    if allocation.run is None:
        return allocation.arms[0].version
    # imported here: the libraries of bars, for pages that ask for no bar
    from clm_core.decisions.allocation import arm_of_bar

    weights = weights_of_bar(allocation.recorded, allocation.arms, bar_open + bar)
    number = arm_of_bar(allocation.model_id, allocation.run.id, bar_open, weights)
    return None if number is None else allocation.arms[number].version


def _halted(model_id: str, halt: Promotion, run: AllocationRun | None) -> AllocationInForce:
    labels = () if run is None else run.arms
    arms = tuple(ArmWeight(version=label, weight=0.0, out="the model is halted") for label in labels)
    reason = f"halted by {halt.actor}: {halt.reason}"
    return AllocationInForce(
        model_id=model_id, state=AllocationState.HALTED, arms=arms, since=halt.at, reasons=(reason,)
    )


def _followed(newest: Sequence[ArmWeight], statuses: Sequence[ModelStatus]) -> tuple[ArmWeight, ...]:
    """Arms with the reason why a candidate that nobody follows any more is out."""
    arms = list(newest)
    for number, status in enumerate(statuses):
        if number and status not in TAKING_PART and not arms[number].out:
            arms[number] = arms[number].model_copy(update={"out": f"the version is {status}"})
    return tuple(arms)


def _weighted(recorded: tuple[RecordedWeights, ...], arms: tuple[ArmWeight, ...]) -> tuple[ArmWeight, ...]:
    weights = weights_of_bar(recorded, arms, recorded[-1].at)
    return tuple(arm.model_copy(update={"weight": w}) for arm, w in zip(arms, weights, strict=True))
