"""Catalog of the kinds of model, found by name: the type `nhits` is implemented by a module `nhits`.

The modules of the wings are listed without being imported; a kind's module is imported when the kind is used.
"""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from clm_core.domain.costs import Costs, MarketCosts
from clm_core.domain.errors import MissingExtra, ModelError
from clm_core.domain.kinds import Kind
from clm_core.domain.search_space import SearchSpace
from clm_core.domain.vocabulary import ModelType
from clm_core.market import own_features
from clm_core.models import plugins
from clm_core.models.contract import Composite, Model, ModelCard, PluginOrigin, Recipe
from clm_core.models.kind import ModelKind

WINGS = (
    "clm_core.models.trees",
    "clm_core.models.networks",
    "clm_core.models.policies",
    "clm_core.models",
)
"""Packages whose modules implement kinds of model."""


def kinds() -> tuple[ModelType, ...]:
    """Model types with an implementation, in the order of the vocabulary; plug-ins are not included."""
    modules = _modules()
    return tuple(each for each in ModelType if each in modules)


def declared(model_type: ModelType) -> ModelKind | None:
    """Declaration of a kind, also of a kind whose library is not installed; None without implementation."""
    module = _modules().get(model_type)
    if module is None:
        return None
    kind: ModelKind = import_module(module).KIND
    return kind


def is_installed(model_type: ModelType) -> bool:
    """True if models of the type can be trained here."""
    kind = declared(model_type)
    return kind is not None and find_spec(kind.library) is not None


def find_kind(model_type: ModelType, plugin: str | None = None) -> ModelKind:
    """Kind of model that can be trained and loaded here.

    Args:
        plugin: name of the plug-in, for the type OTHER.

    Raises:
        MissingExtra: the library is not installed.
        ModelError: the model type has no implementation, or the plug-in cannot be used.
    """
    if plugin is not None:
        return _plugin_kind(plugins.find(plugin))
    kind = declared(model_type)
    if kind is None:
        raise ModelError(f"{model_type.value} has no implementation yet; choose one of {', '.join(kinds())}")
    if find_spec(kind.library) is None:
        raise MissingExtra(kind.library, kind.extra)
    return kind


def recipe(
    model_type: ModelType, params: Mapping[str, Any], costs: Costs, plugin: str | None = None
) -> Recipe:
    """Validated training parameters of a model type, defaults filled in; loads no data.

    Args:
        costs: costs of the market, for the kinds of model that take costs into account; costs of trading
            alone mean free holding.
        plugin: name of the plug-in, for the type OTHER.

    Raises:
        InvalidTrainingParams: a parameter is unknown or out of range.
        MissingExtra: the model's library is not installed.
        ModelError: the model type has no implementation, or the plug-in cannot be used.
    """
    return find_kind(model_type, plugin).recipe(params, MarketCosts.of(costs))


def requested_params(
    model_type: ModelType, params: Mapping[str, Any], plugin: str | None = None
) -> dict[str, Any]:
    """Parameters of a request as they are stored: with the markers that tell them from older parameters.

    Raises:
        InvalidTrainingParams: a parameter is unknown or out of range.
    """
    # the costs are defaults of parameters and make no parameter invalid
    described = recipe(model_type, params, Costs(), plugin).describe()
    markers = [older.marker for older in find_kind(model_type, plugin).older_params]
    return dict(params) | {name: described[name] for name in markers}


def stored_params(
    model_type: ModelType, params: Mapping[str, Any], plugin: str | None = None
) -> dict[str, Any]:
    """Stored parameters (of a card, version, job or search) with their meaning at the time explicit.

    A name that an older release did not know is not filled with the default of this release.
    """
    explicit = dict(params)
    for older in find_kind(model_type, plugin).older_params:
        if older.marker not in params:
            explicit = {**older.meaning, **explicit}
    return explicit


def load(folder: Path, card: ModelCard) -> Model:
    """Model of a verified bundle.

    Raises:
        FeatureMismatch: a feature of the model is missing here, or has another source.
        PluginMissing: the plug-in that fitted the model is not installed here; names the distribution.
    """
    own_features.require(card.own_features)
    if card.plugin is not None:
        return plugins.required(card.plugin).load(folder, card)
    params = stored_params(card.model_type, card.params)
    return find_kind(card.model_type).load(folder, card.model_copy(update={"params": params}))


def search_space(model_type: ModelType, plugin: str | None = None) -> SearchSpace:
    """Parameters that a tuning of the kind of model varies.

    Raises:
        MissingExtra: the model's library is not installed.
        ModelError: the model type has no implementation, or no parameter to tune.
    """
    if not (space := find_kind(model_type, plugin).search_space()):
        raise ModelError(
            f"{Kind(model_type, plugin)} names no parameter to tune: mark those worth tuning in the training "
            "parameters, as `Annotated[int, Between(2, 6)]`"
        )
    return space


def origin(of: Model | Recipe) -> PluginOrigin | None:
    """Plug-in that made the model or recipe; None for a built-in kind."""
    return of.origin if isinstance(of, plugins.PluginModel | plugins.PluginRecipe) else None


def seeds(recipe: Recipe) -> int:
    """Number of walk-forwards, each with another seed, needed to separate skill from the seed's luck."""
    return max(kind.seeds for kind in _kinds_of(recipe))


def tolerance(model: Model) -> float:
    """Largest accepted difference between answers of one bundle on two machines; 0.0 demands equality."""
    return max(kind.tolerance for kind in _kinds_of(model))


def distributions(of: Model | Recipe) -> tuple[str, ...]:
    """Distributions needed to fit or load the model, besides CLM."""
    brought = [made_by.distribution for part in _parts(of) if (made_by := origin(part))]
    ours = [name for kind in _kinds_of(of) for name in (kind.library, *kind.depends_on)]
    return tuple(dict.fromkeys([*ours, *brought]))


def plugin_code(of: Model | Recipe) -> dict[str, str]:
    """Digest of the source of each plug-in in use, by name: a version number does not show every change."""
    names = [made_by.name for part in _parts(of) if (made_by := origin(part))]
    return {name: plugins.code_digest(name) for name in names}


def _modules() -> dict[ModelType, str]:
    """Full name of the module that implements each type; lists files, imports no kind."""
    types = list(ModelType)
    return {
        ModelType(module.name): f"{wing}.{module.name}"
        for wing in WINGS
        for module in iter_modules(import_module(wing).__path__)
        if module.name in types
    }


def _parts(of: Model | Recipe) -> tuple[Model | Recipe, ...]:
    """The model or recipe itself, followed by the parts of a composite."""
    return (of, *of.parts) if isinstance(of, Composite) else (of,)


def _kinds_of(of: Model | Recipe) -> list[ModelKind]:
    return [
        find_kind(part.model_type, made_by.name if (made_by := origin(part)) else None) for part in _parts(of)
    ]


def _plugin_kind(installed: plugins.Installed) -> ModelKind:
    plugin = installed.plugin

    def recipe(params: Mapping[str, Any], costs: MarketCosts) -> Recipe:
        return installed.recipe(plugin.params.parse(params, kind=installed.origin.name), costs)

    return ModelKind(
        recipe=recipe,
        load=installed.load,
        library=plugin.library,
        seeds=plugin.seeds,
        tolerance=plugin.tolerance,
        search_space=plugin.params.search_space,
        retrain_every=plugin.retrain_every,
    )
