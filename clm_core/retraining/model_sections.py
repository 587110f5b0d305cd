"""Sections of an explanation about a model, from the model and bars alone."""

from collections.abc import Callable

from clm_core.domain.errors import ExplanationUnavailable, NotEnoughBars
from clm_core.domain.explanations import Section
from clm_core.explain import reliance
from clm_core.explain.features import explain_features, features_section
from clm_core.market.bars import Bars
from clm_core.models.contract import Model
from clm_core.models.ensemble import EnsembleModel
from clm_core.models.sizing import unsized_model


def model_sections(model: Model, bars: Bars, rows: int) -> tuple[Section, ...]:
    """Sections about a model that a retrain computes; of an ensemble, about each of its members.

    Args:
        bars: bars of the model's market, with its own series.
        rows: number of bars explained at most.
    """
    return _of_each_member(model, lambda part: _quick_sections(part, bars, rows))


def sections_on_demand(model: Model, bars: Bars, rows: int, only: str | None = None) -> tuple[Section, ...]:
    """Sections about a model, with those that take seconds; of an ensemble, about each of its members.

    Args:
        bars: bars of the model's market, with its own series.
        rows: number of bars explained at most, where a section does not say otherwise.
        only: name of the one section that takes seconds to compute; None for all of them.
    """
    return _of_each_member(
        model, lambda part: (*_quick_sections(part, bars, rows), *_slow_sections(part, bars, only))
    )


def or_reason(name: str, title: str, section: Callable[[], Section]) -> Section:
    """The section, or the reason why the model has none."""
    try:
        return section()
    except (ExplanationUnavailable, NotEnoughBars) as error:
        return Section(name=name, title=title, sentences=(f"{error}.",))


def _quick_sections(model: Model, bars: Bars, rows: int) -> tuple[Section, ...]:
    return (or_reason("features", "Features", lambda: features_section(explain_features(model, bars, rows))),)


def _slow_sections(model: Model, bars: Bars, only: str | None) -> tuple[Section, ...]:
    sections = {
        reliance.NAME: (
            reliance.TITLE,
            lambda: reliance.reliance_section(reliance.explain_reliance(model, bars)),
        ),
    }
    return tuple(
        or_reason(name, title, section)
        for name, (title, section) in sections.items()
        if only is None or only.startswith(name)
    )


def _of_each_member(model: Model, sections: Callable[[Model], tuple[Section, ...]]) -> tuple[Section, ...]:
    """Sections of a model; of an ensemble, those of each member by its number and name."""
    ensemble = unsized_model(model)
    if not isinstance(ensemble, EnsembleModel):
        return sections(model)
    members = zip(ensemble.members, ensemble.weights, strict=True)
    return tuple(
        _of_member(each, number, f"{member.name}, weight {weight:.2f}")
        for number, (member, weight) in enumerate(members, 1)
        for each in sections(member.model)
    )


def _of_member(section: Section, number: int, member: str) -> Section:
    names = {"name": f"{section.name}-{number}", "title": f"{section.title}: {member}"}
    return section.model_copy(update=names)
