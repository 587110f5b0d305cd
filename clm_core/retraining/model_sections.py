"""Sections of an explanation about a model, from the model and bars alone."""

from collections.abc import Callable
from functools import cache, partial

from clm_core.domain.errors import ExplanationUnavailable, NotEnoughBars
from clm_core.domain.explanations import Section
from clm_core.explain import attention, blocks, policy_maps, reliance
from clm_core.explain.features import explain_features, features_section
from clm_core.explain.reliance import FeatureReliances, explain_reliance, reliance_section
from clm_core.market.bars import Bars
from clm_core.models.contract import Model
from clm_core.models.ensemble import EnsembleModel
from clm_core.models.networks.forecasting import ForecastModel
from clm_core.models.networks.nhits import NHITSParams
from clm_core.models.networks.patchtst import PatchTSTParams
from clm_core.models.policies.reinforcement import PolicyModel
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
    relied_on = cache(lambda: explain_reliance(model, bars))
    sections = {
        reliance.NAME: (reliance.TITLE, lambda: reliance_section(relied_on())),
        **_sections_of_kind(unsized_model(model), bars, relied_on),
    }
    return tuple(
        or_reason(name, title, section)
        for name, (title, section) in sections.items()
        if only is None or only.startswith(name)
    )


def _sections_of_kind(
    model: Model, bars: Bars, relied_on: Callable[[], FeatureReliances]
) -> dict[str, tuple[str, Callable[[], Section]]]:
    """Title and function of the sections that a kind has besides those of every kind, by name."""
    match model:
        case ForecastModel(params=PatchTSTParams() as params):
            return {attention.NAME: (attention.TITLE, partial(_attention, model, params, bars))}
        case ForecastModel(params=NHITSParams()):
            return {blocks.NAME: (blocks.TITLE, partial(_blocks, model, bars))}
        case PolicyModel():
            return {policy_maps.NAME: (policy_maps.TITLE, partial(_policy, model, bars, relied_on))}
    return {}


def _attention(model: ForecastModel, params: PatchTSTParams, bars: Bars) -> Section:
    return attention.attention_section(attention.explain_attention(model, params, bars))


def _blocks(model: ForecastModel, bars: Bars) -> Section:
    return blocks.blocks_section(blocks.explain_blocks(model, bars))


def _policy(model: PolicyModel, bars: Bars, relied_on: Callable[[], FeatureReliances]) -> Section:
    reliances = relied_on().features
    if len(reliances) < 2:
        raise ExplanationUnavailable(
            f"{model.model_type} looks at {reliances[0].feature} alone, and a map takes two features"
        )
    maps = policy_maps.explain_policy(model, bars, (reliances[0].feature, reliances[1].feature))
    return policy_maps.policy_section(maps)


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
