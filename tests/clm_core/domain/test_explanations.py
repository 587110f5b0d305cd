"""Explanations as lists of sections."""

from clm_core.domain.explanations import Section, VersionExplanation


def sections(*names: str, title: str = "stored") -> tuple[Section, ...]:
    return tuple(Section(name=name, title=title) for name in names)


def explanation(*names: str) -> VersionExplanation:
    return VersionExplanation(model_id="m", version="v1", sections=sections(*names))


def titles(of: VersionExplanation) -> list[tuple[str, str]]:
    return [(each.name, each.title) for each in of.sections]


def test_newer_sections_take_the_place_of_their_name_and_others_follow() -> None:
    merged = explanation("a", "b").with_sections(sections("c", "a", title="newer"))
    assert titles(merged) == [("a", "newer"), ("b", "stored"), ("c", "newer")]


def test_sections_about_the_model_lead_and_replace_those_of_their_name() -> None:
    merged = explanation("a", "b").led_by(sections("c", "a", title="newer"))
    assert titles(merged) == [("c", "newer"), ("a", "newer"), ("b", "stored")]


def test_a_section_that_is_missing_has_no_values() -> None:
    assert explanation("a").values_of("b") == {}
