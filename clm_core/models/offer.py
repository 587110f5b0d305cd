"""Every kind of model there is, from where, and what is missing to train it here."""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from clm_core.domain.errors import MissingExtra, ModelError
from clm_core.domain.kinds import Kind
from clm_core.domain.vocabulary import ModelType
from clm_core.models import catalog, plugins


@dataclass(frozen=True)
class Offer:
    kind: Kind
    distribution: str
    """Where it comes from; two that offer the same are both named."""
    release: str | None
    """Of the distribution; None where two offer the same."""
    library: str | None
    """The distribution that does the work; None where nobody can tell."""
    library_version: str | None
    """None: it is not installed."""
    seeds: int | None
    """Walk-forwards it takes to tell a model from its seed."""
    command: str | None
    """What to type to have it; None where it is here, or no command helps."""
    problem: str | None
    """Why it cannot be trained here; None: it can."""

    @property
    def usable(self) -> bool:
        return self.problem is None


def offers() -> list[Offer]:
    """Ours in their order, then plug-ins by name, each of which is imported."""
    ours = [_of_ours(each) for each in ModelType if each is not ModelType.OTHER]
    return ours + [_of_plugin(name) for name in dict.fromkeys(plugins.names())]


def _of_ours(model_type: ModelType) -> Offer:
    kind = catalog.declared(model_type)
    problem = None
    command = None
    try:
        catalog.find_kind(model_type)
    except MissingExtra as error:
        problem, command = str(error), error.command
    except ModelError as error:
        problem = str(error)
    return Offer(
        kind=Kind(model_type),
        distribution="continuous-learning-manager",
        release=version("continuous-learning-manager"),
        library=kind.library if kind else None,
        library_version=_version(kind.library) if kind else None,
        seeds=kind.seeds if kind else None,
        command=command,
        problem=problem,
    )


def _of_plugin(name: str) -> Offer:
    kind, origins = Kind(ModelType.OTHER, name), plugins.origins(name)
    distribution = " and ".join(origin.distribution for origin in origins)
    release = origins[0].version if len(origins) == 1 else None
    try:
        plugin = plugins.find(name).plugin
    except ModelError as error:
        return Offer(kind, distribution, release, None, None, None, None, str(error))
    return Offer(
        kind, distribution, release, plugin.library, _version(plugin.library), plugin.seeds, None, None
    )


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
