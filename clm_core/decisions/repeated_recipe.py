"""Choice of the recipe for a retrain without a stated recipe.

A rollback or a halt takes a disappointing version back, and no automatic retrain repeats the recipe. The
order of preference: the newest version with time in production whose recipe was not taken back, the newest
version awaiting a decision, the defaults of the kind. Deletion in MLflow and a halt for age alone take no
version back. A later promotion of a version, or a rollback to the version, settles the matter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clm_core.domain.promotions import EXPIRY, Promotion, PromotionKind

DEFAULTS = "defaults"
"""Name of the defaults of the kind, in the place of a version."""


@dataclass(frozen=True)
class ServedVersions:
    """Versions formerly or presently in production, divided by outcome."""

    standing: tuple[str, ...]
    """Versions not taken back, the newest last."""
    taken_back: tuple[str, ...]
    """Versions rolled back or halted, the newest last."""


@dataclass(frozen=True)
class RepeatedRecipe:
    """Version whose recipe a retrain repeats."""

    version: str | None
    """None: the defaults of the kind."""
    because: str

    @property
    def sentence(self) -> str:
        """`v20260301_120000: in production`."""
        return f"{self.version or DEFAULTS}: {self.because}"


def served_versions(history: Sequence[Promotion]) -> ServedVersions:
    """Versions formerly or presently in production.

    Args:
        history: committed changes of a model, oldest first.
    """
    standing = list[str]()
    taken_back = list[str]()
    for change in history:
        after = change.to_version
        if _disappointed(change):
            # a rollback by several versions takes all of them back
            first = _first_taken(standing, change)
            taken_back += standing[first:]
            standing = standing[:first]
        if after is not None:
            standing = [*(each for each in standing if each != after), after]
            taken_back = [each for each in taken_back if each != after]
    return ServedVersions(tuple(standing), tuple(taken_back))


def repeated_recipe(
    history: Sequence[Promotion], waiting: Sequence[str], recipes: Mapping[str, str | None]
) -> RepeatedRecipe:
    """Version whose recipe to repeat.

    Args:
        history: committed changes of a model, oldest first.
        waiting: versions that await a decision, candidates or in shadow, newest first.
        recipes: digest of the recipe by version, of all that served or wait; None where not recorded.
    """
    newest = history[-1] if history else None
    if newest is not None and newest.to_version is not None:
        again = newest.kind is PromotionKind.ROLLBACK and newest.from_version is not None
        why = f"in production again, after {newest.from_version} was taken back" if again else "in production"
        return RepeatedRecipe(newest.to_version, why)
    served = served_versions(history)
    disproved = {recipes[each] for each in served.taken_back} - {None}
    standing = next((each for each in reversed(served.standing) if recipes[each] not in disproved), None)
    if standing is not None:
        return RepeatedRecipe(standing, "the newest version that served and was not taken back")
    why = f"{served.taken_back[-1]} was taken back" if served.taken_back else "no version has served"
    candidate = next((each for each in waiting if recipes[each] not in disproved), None)
    if candidate is None:
        return RepeatedRecipe(None, f"{why}, and no version of another recipe awaits a decision")
    return RepeatedRecipe(candidate, f"{why}, and this is the newest version that awaits a decision")


def _disappointed(change: Promotion) -> bool:
    """True for a change taking the production version back."""
    if change.kind is PromotionKind.HALT:
        return EXPIRY not in change.reason
    return change.kind is PromotionKind.ROLLBACK


def _first_taken(standing: Sequence[str], change: Promotion) -> int:
    """Position of the first version taken back by a change; the number of versions for none."""
    if change.to_version in standing:
        return standing.index(change.to_version) + 1
    return standing.index(change.from_version) if change.from_version in standing else len(standing)
