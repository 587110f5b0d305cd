"""Kinds of model on offer: origin, library, defaults of the shared parameters, and the command that installs
a missing library."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from clm_core.domain.errors import MissingExtra, ModelError
from clm_core.domain.execution import NEW_VERSIONS, ExecutionRules
from clm_core.domain.kinds import Kind
from clm_core.domain.vocabulary import ModelType, RuleFamily
from clm_core.models import catalog, plugins
from clm_core.models.kind import DISTRIBUTION
from clm_core.models.sizing import sections


@dataclass(frozen=True)
class Offer:
    """A kind of model and the state of the installation for training models of the kind."""

    kind: Kind
    distribution: str
    """Distribution of the kind; both names if two distributions offer a plug-in by the same name."""
    release: str | None
    """Version of the distribution; None if two distributions offer the same plug-in."""
    library: str | None
    """Distribution of the library; None if the plug-in cannot be imported."""
    library_version: str | None
    """Installed version of the library, if any."""
    seeds: int | None
    """Number of walk-forwards, each with another seed, needed to separate skill from the seed's luck."""
    command: str | None
    """Command to install the missing library; None if nothing is missing or no command helps."""
    problem: str | None
    """Reason why models of the kind cannot be trained here, if any."""
    sections: Mapping[str, Any] | None = None
    """Defaults of the sections `sizing` and `execution` of the training parameters, JSON-ready; None for a
    kind without implementation, or a plug-in that cannot be imported."""

    @property
    def is_built_in(self) -> bool:
        return self.distribution == DISTRIBUTION

    @property
    def usable(self) -> bool:
        return self.problem is None


def offers(execution: ExecutionRules = NEW_VERSIONS) -> list[Offer]:
    """Built-in kinds in the order of the vocabulary, rule strategies, then plug-ins by name; imports every
    plug-in.

    Args:
        execution: rules of the installation for new versions.
    """
    types = [Kind(each) for each in ModelType if each is not ModelType.OTHER]
    strategies = [Kind(ModelType.OTHER, family.value) for family in RuleFamily]
    built_in = [_built_in(each, execution) for each in (*types, *strategies)]
    return built_in + [_from_plugin(name, execution) for name in dict.fromkeys(plugins.names())]


def _built_in(named: Kind, execution: ExecutionRules) -> Offer:
    if named.plugin is None:
        kind = catalog.declared(named.model_type)
    else:
        kind = catalog.strategy(RuleFamily(named.plugin))
    problem = None
    command = None
    try:
        catalog.find_kind(*named)
    except MissingExtra as error:
        problem = str(error)
        command = error.command
    except ModelError as error:
        problem = str(error)
    return Offer(
        kind=named,
        distribution=DISTRIBUTION,
        release=version(DISTRIBUTION),
        library=kind.library if kind else None,
        library_version=_version(kind.library) if kind else None,
        seeds=kind.seeds if kind else None,
        command=command,
        problem=problem,
        sections=sections(kind.sizing, execution) if kind else None,
    )


def _from_plugin(name: str, execution: ExecutionRules) -> Offer:
    kind = Kind(ModelType.OTHER, name)
    origins = plugins.origins(name)
    distribution = " and ".join(origin.distribution for origin in origins)
    release = origins[0].version if len(origins) == 1 else None
    try:
        plugin = plugins.find(name).plugin
    except ModelError as error:
        return Offer(kind, distribution, release, None, None, None, None, str(error))
    return Offer(
        kind,
        distribution,
        release,
        plugin.library,
        _version(plugin.library),
        plugin.seeds,
        None,
        None,
        sections(plugin.sizing, execution),
    )


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
