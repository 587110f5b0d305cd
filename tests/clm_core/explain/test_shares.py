"""Shares of features over the folds and over the versions of a model."""

import pytest

from clm_core.explain.shares import NamedShares, Shares, distance, largest_moves, shares_section

MODELS = [
    NamedShares("v1", {"a": 0.5, "b": 0.5}),
    NamedShares("v2", {"a": 0.5, "b": 0.4, "c": 0.1}),
    NamedShares("v3", {"a": 0.1, "b": 0.4, "c": 0.5}),
]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"a": 1.0}, {"a": 1.0}, 0.0),
        ({"a": 1.0}, {"b": 1.0}, 1.0),
        ({"a": 0.75, "b": 0.25}, {"a": 0.5, "b": 0.5}, 0.25),
        ({"a": 0.5, "b": 0.5}, {"a": 0.5, "c": 0.5}, 0.5),
    ],
    ids=["equal", "nothing in common", "a quarter moved", "half replaced"],
)
def test_the_distance_is_the_part_of_the_shares_that_moved(
    one: Shares, other: Shares, expected: float
) -> None:
    assert distance(one, other) == distance(other, one) == pytest.approx(expected)


def test_the_largest_moves_come_first_and_unchanged_features_are_left_out() -> None:
    moves = largest_moves({"a": 0.5, "b": 0.3, "d": 0.2}, {"b": 0.4, "c": 0.4, "d": 0.2})
    assert [name for name, _ in moves] == ["a", "c", "b"]
    assert [move for _, move in moves] == pytest.approx([-0.5, 0.4, 0.1])


def test_a_section_tells_how_far_the_newest_model_moved_and_how_far_models_usually_move() -> None:
    section = shares_section("features-versions", "Features over the versions", MODELS, "mean |SHAP|")
    assert section.sentences == (
        "From v2 to v3, 40.0% of the shares of mean |SHAP| moved from some features to others: a -40.0%, "
        "c +40.0%.",
        "Median of the distances before: 10.0%.",
    )
    [table] = section.tables
    assert table.columns == ("feature", "v1", "v2", "v3")
    assert table.rows == (
        ("a", "50.0%", "50.0%", "10.0%"),
        ("b", "50.0%", "40.0%", "40.0%"),
        ("c", "0.0%", "10.0%", "50.0%"),
        ("distance", "", "10.0%", "40.0%"),
    )
    [chart] = section.charts
    assert chart.figure["data"][0]["z"] == [[0.0, 0.1, 0.5], [0.5, 0.4, 0.4], [0.5, 0.5, 0.1]]
