"""Versions of a recipe that replaced each other as refreshes."""

from datetime import UTC, datetime, timedelta

import pytest

from clm_core.domain.actors import SYSTEM, Actor
from clm_core.domain.promotions import Promotion, PromotionKind, PromotionState, succession
from clm_core.domain.vocabulary import Role

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
ADA = Actor(name="ada", role=Role.ADMIN)
OF_RECIPE = {"a", "b", "c"}


def lived(steps: str) -> list[Promotion]:
    """A change an hour: `a` promotes without a person, `ada:a` by hand, `<a` rolls back, `|` halts."""
    serving: str | None = None
    history = list[Promotion]()
    for step in steps.split():
        by = ADA if step.startswith("ada:") else SYSTEM
        after = None if step == "|" else step.removeprefix("ada:").removeprefix("<")
        rolled = PromotionKind.ROLLBACK if step.startswith("<") else PromotionKind.PROMOTION
        at = NOW + timedelta(hours=len(history))
        history.append(
            Promotion(
                id=len(history),
                model_id="m",
                kind=PromotionKind.HALT if after is None else rolled,
                from_version=serving,
                to_version=after,
                actor=by.name,
                role=by.role,
                reason="tests",
                at=at,
                state=PromotionState.COMMITTED,
                finished_at=at,
            )
        )
        serving = after
    return history


@pytest.mark.parametrize(
    ("steps", "versions", "since", "before"),
    [
        ("a b c", "abc", 0, None),
        ("x a b c", "abc", 1, "x"),
        ("ada:a b", "ab", 0, None),
        ("a ada:b c", "bc", 1, "a"),
        ("x y <x a b", "ab", 3, "x"),
        ("a b <a c", "ac", 2, None),
        ("a | b c", "bc", 2, None),
        ("x | a b", "ab", 2, None),
    ],
)
def test_refreshes_without_a_break_are_one_succession(
    steps: str, versions: str, since: int, before: str | None
) -> None:
    newest = succession(lived(steps), OF_RECIPE)
    assert newest is not None
    assert "".join(newest.versions) == versions
    assert newest.since == NOW + timedelta(hours=since)
    assert newest.before == before


@pytest.mark.parametrize("steps", ["", "a", "x a", "a ada:b", "a b <a", "a b |"])
def test_a_version_that_is_no_refresh_has_no_succession(steps: str) -> None:
    assert succession(lived(steps), OF_RECIPE) is None
