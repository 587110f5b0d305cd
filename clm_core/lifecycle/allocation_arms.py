"""Arms of an allocation: successive versions of a recipe, and returns.

An arm belongs to a recipe, as a place in shadow does. A promoted refresh takes over the arm of the production
version at the promotion; the next candidate of a candidate's recipe takes over in the pass that retires the
predecessor. Weight and record stay with the arm. Returns come from the recorded positions, as in shadow
testing; only bars earned on positions recorded in time count.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from clm_core.decisions.allocation import Arm, arm_of_bar
from clm_core.domain.allocations import AllocationRun, ArmWeight, RecordedWeights, recorded_for_bar
from clm_core.domain.promotions import Promotion
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus
from clm_core.lifecycle.fills import realised_bars
from clm_core.market.bars import Floats
from clm_core.registry.allocation_in_force import TAKING_PART, candidates_of, changes_since_start
from clm_core.retraining.shadow_tracks import MAX_VERSIONS, Stint, markets_since, moment, recipe_key, run_of
from clm_core.services import Services

DAY = timedelta(days=1)


@dataclass(frozen=True)
class ArmVersions:
    """Successive versions of an arm."""

    stints: tuple[Stint, ...]
    """Oldest first, with the times of taking over."""

    @property
    def version(self) -> ModelVersion:
        """The present version."""
        return self.stints[-1].version


def arms_now(
    services: Services, run: AllocationRun, recorded: Sequence[RecordedWeights]
) -> tuple[tuple[ArmVersions, ...], Promotion | None]:
    """Arms as of now, the production version first, and the change of production that ends the allocation, if
    any.

    Args:
        recorded: weights since the start, oldest first.
    """
    history = services.ledger.promotions.committed(run.model_id)
    changes = changes_since_start(services.ledger, run, history, candidates_of(recorded))
    production = [(run.champion, run.started_at)]
    production += [(each.to_version, each.at) for each in changes.refreshes if each.to_version is not None]
    arms = [_arm(services, run, production)]
    for number in range(1, len(run.arms)):
        held = list(_holders(recorded, number))
        successor = _successor(services, run, recorded[-1].arms, number, arms[0].version)
        held += [] if successor is None else [(successor.version, services.clock())]
        arms.append(_arm(services, run, held))
    return tuple(arms), changes.end


def arm_numbers(
    services: Services, run: AllocationRun, recorded: Sequence[RecordedWeights]
) -> dict[str, int]:
    """Numbers of the arms, by the labels of all versions so far."""
    history = services.ledger.promotions.committed(run.model_id)
    refreshes = changes_since_start(services.ledger, run, history, candidates_of(recorded)).refreshes
    numbers = {arm.version: number for each in recorded for number, arm in enumerate(each.arms)}
    return numbers | {change.to_version: 0 for change in refreshes if change.to_version is not None}


def _arm(services: Services, run: AllocationRun, holders: Sequence[tuple[str, datetime]]) -> ArmVersions:
    version = services.ledger.version
    return ArmVersions(tuple(Stint(version(run.model_id, label), since) for label, since in holders))


def _holders(recorded: Sequence[RecordedWeights], number: int) -> Iterator[tuple[str, datetime]]:
    """Successive versions of an arm with the times of taking over."""
    label = ""
    for each in recorded:
        if each.arms[number].version != label:
            label = each.arms[number].version
            yield label, each.at


def _successor(
    services: Services,
    run: AllocationRun,
    arms: Sequence[ArmWeight],
    number: int,
    champion: ModelVersion,
) -> ModelVersion | None:
    """Successor of a retired candidate, if any: the newest version of the recipe, in the same place.

    Only a forced allocation accepts a successor without a passed gate. An arm that is out has no successor.
    """
    arm = arms[number]
    version = services.ledger.version(run.model_id, arm.version)
    if arm.out or version.status is not ModelStatus.RETIRED or version.recipe_digest is None:
        return None
    followed = services.ledger.versions(
        model_id=run.model_id, recipe_digest=version.recipe_digest, limit=MAX_VERSIONS
    )
    newer = (each for each in followed if each.status in TAKING_PART and each.created_at > version.created_at)
    newest = next(newer, None)
    if newest is None or newest.version in [each.version for each in arms]:
        return None
    if newest.status is not ModelStatus.CANDIDATE and not run.forced:
        return None
    return newest if _kept_place(services, version, champion) else None


def _kept_place(services: Services, version: ModelVersion, champion: ModelVersion) -> bool:
    """True if the place in shadow of a retired version is still open."""
    if version.recipe_digest == champion.recipe_digest:
        # a refresh has no place
        return True
    place = services.ledger.shadow_decisions.open_place(version.model_id, recipe_key(version))
    return place is not None and place.started_at <= version.created_at


@dataclass(frozen=True, eq=False)
class ArmTracks:
    """Returns of all arms since the start of an allocation, on common bars."""

    opens: NDArray[np.int64]
    """Open times of the bars, nanoseconds since 1970-01-01 UTC, shape (n_bars,)."""
    closes: NDArray[np.int64]
    returns: Floats
    """Net returns earned on positions recorded in time, NaN elsewhere, shape (n_bars, n_arms)."""

    def age_days(self, now: datetime) -> Floats:
        """Days since the close of each bar, shape (n_bars,)."""
        return np.asarray((now.timestamp() - self.closes / 1e9) / DAY.total_seconds())


def arm_tracks(services: Services, run: AllocationRun, arms: Sequence[ArmVersions]) -> ArmTracks:
    """Returns of the arms since the start of an allocation."""
    markets = markets_since(services, arms[0].version, run.started_at)
    runs = [run_of(services, arm.stints, markets) for arm in arms]
    measured = [each for each in runs if each is not None]
    if not measured:
        none = np.zeros(0, dtype=np.int64)
        return ArmTracks(none, none, np.zeros((0, len(arms))))
    axis = measured[0].axis
    returns = np.stack([np.where(each.earned, each.returns, np.nan) for each in measured], axis=1)
    return ArmTracks(axis.time, axis.time + axis.timeframe.nanoseconds, returns)


@dataclass(frozen=True, eq=False)
class ObservedReturns:
    """Returns that move the weights."""

    returns: Floats
    """Net returns, NaN on bars where the arm was not observed, shape (n_bars, n_arms)."""
    notes: tuple[str, ...] = ()
    """Sources of the returns, for people; empty: recorded positions alone."""


def observed_returns(
    services: Services,
    run: AllocationRun,
    recorded: Sequence[RecordedWeights],
    arms: Sequence[ArmVersions],
    tracks: ArmTracks,
) -> ObservedReturns:
    """Returns of every arm on every bar, or, by fills, of the arm traded on a bar.

    A bar with a fill has the return of the account of the fills, and belongs to the arm that the last fill
    names. On other bars the arm chosen by the weights holds the position: the return is that on paper, since
    a bar without a fill does not tell a held position from an unreported trade.
    """
    if run.observed != "fills":
        return ObservedReturns(tracks.returns)
    traded = _traded_arms(run, recorded, tracks)
    returns = np.where(traded[:, None] == np.arange(len(arms)), tracks.returns, np.nan)
    realised = realised_bars(services, arms[0].version)
    numbers = arm_numbers(services, run, recorded)
    by_fills = 0
    for time, earned, version in zip(realised.time, realised.returns, realised.versions, strict=True):
        row = int(np.searchsorted(tracks.opens, time))
        is_known = row < len(tracks.opens) and tracks.opens[row] == time and np.isfinite(earned)
        if is_known and version in numbers:
            returns[row] = np.nan
            returns[row, numbers[version]] = earned
            by_fills += 1
    bars = int(np.count_nonzero(np.isfinite(returns).any(axis=1)))
    note = f"returns of {by_fills} of {bars} observed bars from fills, of the others on paper"
    return ObservedReturns(returns, (note,))


def arms_of_decision(
    recorded: Sequence[RecordedWeights], arms: Sequence[ArmVersions], tracks: ArmTracks, observed: Floats
) -> list[Arm]:
    """Arms in the form for `decisions.allocation`.

    Args:
        observed: returns that move the weights, shape (n_bars, n_arms).
    """
    shown = []
    for number, arm in enumerate(arms):
        version = arm.version
        newest = recorded[-1].arms[number]
        left = number > 0 and version.status not in TAKING_PART
        shown.append(
            Arm(
                version.version,
                recorded[0].arms[number].weight,
                newest.weight,
                observed[:, number],
                _drawdown(tracks.returns[:, number]),
                newest.out or (f"the version is {version.status}" if left else ""),
            )
        )
    return shown


def _traded_arms(
    run: AllocationRun, recorded: Sequence[RecordedWeights], tracks: ArmTracks
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
