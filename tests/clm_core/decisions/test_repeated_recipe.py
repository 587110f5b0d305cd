"""A retrain that states no recipe repeats one that nobody took back."""

from datetime import UTC, datetime

import pytest

from clm_core.decisions.repeated_recipe import repeated_recipe, served_versions
from clm_core.domain.promotions import EXPIRY, Promotion, PromotionKind, PromotionState
from clm_core.domain.vocabulary import Role

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
EXPIRED = f"the version is 91 days old, and may serve for 90 ({EXPIRY}): retrain"


def lived(*steps: str) -> list[Promotion]:
    """Changes of a model by words: `A` promotes, `<A` rolls back, `|` halts, `old` expires, `lost`."""
    serving: str | None = None
    history = list[Promotion]()
    kinds = {"|": PromotionKind.HALT, "old": PromotionKind.HALT, "lost": PromotionKind.LOSS}
    for step in steps:
        rolls_back = step.startswith("<")
        after = None if step in kinds else step.removeprefix("<")
        kind = kinds.get(step, PromotionKind.ROLLBACK if rolls_back else PromotionKind.PROMOTION)
        history.append(
            Promotion(
                id=len(history),
                model_id="m",
                kind=kind,
                from_version=serving,
                to_version=after,
                actor="ada",
                role=Role.ADMIN,
                reason=EXPIRED if step == "old" else "tests",
                at=NOW,
                state=PromotionState.COMMITTED,
                finished_at=NOW,
            )
        )
        serving = after
    return history


@pytest.mark.parametrize(
    ("steps", "standing", "taken_back"),
    [
        ("A B C", "ABC", ""),
        ("A B <A", "A", "B"),
        ("A B C <A", "A", "BC"),
        ("A B |", "A", "B"),
        ("A | <A", "A", ""),
        ("A B | <B", "AB", ""),
        ("A B | C", "AC", "B"),
        ("A B <A B", "AB", ""),
        ("A B <A | <B", "B", "A"),
        ("A B lost", "AB", ""),
        ("A B old", "AB", ""),
        ("A B lost B", "AB", ""),
        ("A B old <A", "A", "B"),
    ],
)
def test_a_version_is_taken_back_by_a_rollback_or_a_halt_until_it_serves_again(
    steps: str, standing: str, taken_back: str
) -> None:
    served = served_versions(lived(*steps.split()))
    assert ("".join(served.standing), "".join(served.taken_back)) == (standing, taken_back)


@pytest.mark.parametrize(
    ("steps", "waiting", "version", "because"),
    [
        pytest.param("A B", "", "B", "in production", id="served"),
        pytest.param("A B <A", "", "A", "in production again, after B was taken back", id="rolled back"),
        pytest.param("A B |", "C", "A", "served and was not taken back", id="halted with a version before"),
        pytest.param("C a A |", "", "C", "served and was not taken back", id="halted after refreshes"),
        pytest.param("A old", "C", "A", "served and was not taken back", id="halted for its age"),
        pytest.param("A |", "DC", "D", "A was taken back, and this is the newest", id="halted with a shadow"),
        pytest.param("A |", "aC", "C", "A was taken back, and this is the newest", id="of another recipe"),
        pytest.param(
            "A |", "a", None, "A was taken back, and no version of another", id="the same recipe alone"
        ),
        pytest.param("", "C", "C", "no version has served, and this is the newest", id="never served"),
        pytest.param("", "", None, "no version has served, and no version", id="nothing"),
    ],
)
def test_the_recipe_is_that_of_a_version_nobody_took_back(
    steps: str, waiting: str, version: str | None, because: str
) -> None:
    recipes = {label: label.upper() for label in "AaBCD"}
    repeated = repeated_recipe(lived(*steps.split()), list(waiting), recipes)
    assert repeated.version == version
    assert because in repeated.because
    assert repeated.sentence.startswith(f"{version or 'defaults'}: ")


def test_versions_without_a_recorded_recipe_count_as_different_recipes() -> None:
    repeated = repeated_recipe(lived("A", "|"), ["C"], {"A": None, "C": None})
    assert repeated.version == "C"
