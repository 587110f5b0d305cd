"""Catalog of the kinds of model, found by name: the type `nhits` is implemented by a module `nhits`.

The modules of the wings are listed without being imported; a kind's module is imported when the kind is used.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from pydantic import BaseModel, ValidationError

from clm_core.domain.costs import Costs, MarketCosts
from clm_core.domain.errors import InvalidTrainingParams, MissingExtra, ModelError
from clm_core.domain.execution import FIXED_UNITS, NEW_VERSIONS, ExecutionRules
from clm_core.domain.kinds import Kind
from clm_core.domain.recipes import EXECUTION, REGIME, SIZING, regime_of
from clm_core.domain.search_space import SearchSpace
from clm_core.domain.sizing import NO_SIZING, Sizing, sizing_of
from clm_core.domain.vocabulary import ModelType, RuleFamily
from clm_core.market import own_features
from clm_core.models import plugins
from clm_core.models.contract import Composite, Model, ModelCard, PluginOrigin, Pooling, Recipe
from clm_core.models.kind import DISTRIBUTION, ModelKind
from clm_core.models.params import no_regime_of_pool
from clm_core.models.sizing import (
    SizedModel,
    SizedRecipe,
    sections,
    unsized_model,
    unsized_recipe,
    with_costs,
)
from clm_core.models.strategies.rules import RuleModel, RuleRecipe

WINGS = (
    "clm_core.models.trees",
    "clm_core.models.networks",
    "clm_core.models.policies",
    "clm_core.models",
)
"""Packages whose modules implement kinds of model."""
STRATEGIES = "clm_core.models.strategies"
"""Package with a module for each rule strategy."""


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


def strategy(family: RuleFamily) -> ModelKind:
    """Declaration of a rule strategy."""
    kind: ModelKind = import_module(f"{STRATEGIES}.{family.value}").KIND
    return kind


def find_kind(model_type: ModelType, plugin: str | None = None) -> ModelKind:
    """Kind of model that can be trained and loaded here.

    Args:
        plugin: name of the plug-in or rule strategy, for the type OTHER.

    Raises:
        MissingExtra: the library is not installed.
        ModelError: the model type has no implementation, or the plug-in cannot be used.
    """
    if plugin is not None:
        if plugin in list(RuleFamily) and not plugins.origins(plugin):
            return strategy(RuleFamily(plugin))
        return _plugin_kind(plugins.find(plugin))
    kind = declared(model_type)
    if kind is None:
        raise ModelError(f"{model_type.value} has no implementation yet; choose one of {', '.join(kinds())}")
    if find_spec(kind.library) is None:
        raise MissingExtra(kind.library, kind.extra)
    return kind


def recipe(
    model_type: ModelType, params: Mapping[str, Any], costs: Costs, plugin: str | None = None
) -> SizedRecipe:
    """Validated training parameters of a model type, defaults filled in; loads no data.

    Args:
        params: parameters of the kind, and the sections `sizing` and `execution`; a value of a section may be
            named by both: "sizing.target_volatility". Stored parameters: see `stored_params`.
        costs: costs of the market, for the kinds of model that take costs into account; costs of trading
            alone mean free holding.
        plugin: name of the plug-in, for the type OTHER.

    Raises:
        InvalidTrainingParams: a parameter is unknown or out of range.
        MissingExtra: the model's library is not installed.
        ModelError: the model type has no implementation, or the plug-in cannot be used.
    """
    kind = find_kind(model_type, plugin)
    _require_weights(model_type, params, plugin)
    market = MarketCosts.of(costs)
    split = _Split.of(params)
    sizing = with_costs(split.sizing_section(kind.sizing), market)
    return SizedRecipe(kind.recipe(split.own, market), sizing, split.execution_section(NEW_VERSIONS))


def weighs_regimes(model_type: ModelType, plugin: str | None = None) -> bool:
    """True for a kind whose trainings can be weighted towards a regime.

    Raises:
        MissingExtra: the library is not installed.
        ModelError: the model type has no implementation, or the plug-in cannot be used.
    """
    return find_kind(model_type, plugin).weighs_regimes


def _require_weights(model_type: ModelType, params: Mapping[str, Any], plugin: str | None) -> None:
    """
    Raises:
        InvalidTrainingParams: a regime is named for a kind whose fits weigh no bars.
    """
    is_plugin = plugin is not None and plugin not in list(RuleFamily)
    # a plug-in may have a parameter of the name
    if params.get(REGIME) is None or is_plugin or weighs_regimes(model_type, plugin):
        return
    why = "its fit has no weights of bars"
    if plugin is not None:
        why = "a rule is not fitted, its parameters are the whole rule"
    elif model_type is ModelType.ENSEMBLE:
        why = "its members are, each by its own parameters"
    able = [each.value for each in kinds() if (kind := declared(each)) is not None and kind.weighs_regimes]
    raise InvalidTrainingParams(
        f"{REGIME}={params[REGIME]}: {Kind(model_type, plugin)} cannot be trained towards a regime, {why}. "
        f"Leave {REGIME} out, or choose one of {', '.join(able)}"
    )


def pooling(recipe: Recipe) -> Pooling:
    """The recipe as one that fits one model to several symbols.

    Raises:
        ModelError: the kind of model cannot; the message names the kinds that can.
        InvalidTrainingParams: the recipe is weighted towards a regime, which each market has of its own.
    """
    made_by = origin(recipe)
    if made_by is None and (regime := regime_of(recipe.describe())) is not None:
        raise no_regime_of_pool(regime)
    require_pooling(recipe.model_type, None if made_by is None else made_by.name)
    assert isinstance(recipe, Pooling)
    return recipe


def require_pooling(model_type: ModelType, plugin: str | None = None) -> None:
    """Refuse a kind of model that cannot fit one model to several symbols.

    Raises:
        ModelError: the message names the kinds that can.
    """
    if find_kind(model_type, plugin).pools:
        return
    able = [each.value for each in kinds() if (kind := declared(each)) is not None and kind.pools]
    raise ModelError(
        f"{Kind(model_type, plugin)} cannot fit one model to several symbols: choose one of "
        f"{', '.join(able)}, or retrain each symbol by itself"
    )


def requested_params(
    model_type: ModelType,
    params: Mapping[str, Any],
    plugin: str | None = None,
    execution: ExecutionRules = NEW_VERSIONS,
) -> dict[str, Any]:
    """Parameters of a request for storage: with the markers of this release, sizing and execution.

    Values have the types of the parameters: text of a command line, "5", is stored as the number 5.

    Args:
        execution: rules of the installation, for rules missing in the request.

    Raises:
        InvalidTrainingParams: a parameter is unknown or out of range.
    """
    # the costs are defaults of parameters and make no parameter invalid
    described = recipe(model_type, params, Costs(), plugin).describe()
    kind = find_kind(model_type, plugin)
    split = _Split.of(params)
    explicit = sections(split.sizing_section(kind.sizing), split.execution_section(execution))
    named = {name: described[name] for name in markers(model_type, plugin)}
    typed = {name: described.get(name, value) for name, value in split.own.items()}
    return typed | named | explicit


def markers(model_type: ModelType, plugin: str | None = None) -> tuple[str, ...]:
    """Names of parameters of the kind that every stored set has: without one, a set is older than the name.

    Raises:
        MissingExtra: the library is not installed.
        ModelError: the model type has no implementation, or the plug-in cannot be used.
    """
    return tuple(older.marker for older in find_kind(model_type, plugin).older_params)


def stored_params(
    model_type: ModelType,
    params: Mapping[str, Any],
    plugin: str | None = None,
    execution: ExecutionRules = FIXED_UNITS,
) -> dict[str, Any]:
    """Stored parameters (of a card, version, job or search) with their meaning at the time explicit.

    A name that an older release did not know is not filled with the default of this release: without a
    section, signals are positions and a fixed number of units is held.

    Args:
        execution: rules of the installation, for parameters without a section.
    """
    return _explicit(find_kind(model_type, plugin), params, execution)


def own_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of the kind, without sizing and execution."""
    return dict(_Split.of(params).own)


def version_execution(params: Mapping[str, Any], installation: ExecutionRules) -> ExecutionRules:
    """Execution of a version by its stored parameters.

    Args:
        installation: rules of the installation, for a version of an older release: a fixed number of units.
    """
    if EXECUTION not in params:
        return installation.model_copy(update={"rebalance_band": None})
    return _Split.of(params).execution_section(FIXED_UNITS)


def version_sizing(params: Mapping[str, Any]) -> Sizing | None:
    """Sizing of a version by its stored parameters; None for positions that are the signals themselves."""
    return _Split.of(params).sizing_section(None)


def load(folder: Path, card: ModelCard) -> SizedModel:
    """Model of a verified bundle.

    Raises:
        FeatureMismatch: a feature of the model is missing here, or has another source.
        PluginMissing: the plug-in that fitted the model is not installed here; names the distribution.
    """
    own_features.require(card.own_features)
    kind = _kind_by(card.model_type, card.plugin)
    split = _Split.of(_explicit(kind, card.params, FIXED_UNITS))
    sizing = split.sizing_section(None)
    unsized = {"params": dict(split.own), "bars_needed": _bars_by_signal(card, sizing)}
    inner = kind.load(folder, card.model_copy(update=unsized))
    return SizedModel(inner, sizing, split.execution_section(FIXED_UNITS))


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
    """Plug-in or rule strategy that made the model or recipe; None for a kind with a type of its own."""
    inner = unsized_model(of) if isinstance(of, SizedModel) else of
    inner = unsized_recipe(inner) if isinstance(inner, SizedRecipe) else inner
    named = plugins.PluginModel | plugins.PluginRecipe | RuleModel | RuleRecipe
    return inner.origin if isinstance(inner, named) else None


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
    made_by = [each for part in _parts(of) if (each := origin(part)) and each.distribution != DISTRIBUTION]
    return {each.name: plugins.code_digest(each.name) for each in made_by}


def _modules() -> Mapping[ModelType, str]:
    """Full name of the module that implements each type; imports no kind."""
    return _listed(WINGS)


@cache
def _listed(wings: tuple[str, ...]) -> Mapping[ModelType, str]:
    """Modules of kinds in the wings, listed once in a process: a listing takes milliseconds, and each
    loading of a version needs several."""
    types = list(ModelType)
    return {
        ModelType(module.name): f"{wing}.{module.name}"
        for wing in wings
        for module in iter_modules(import_module(wing).__path__)
        if module.name in types
    }


def _parts(of: Model | Recipe) -> tuple[Model | Recipe, ...]:
    """The model or recipe itself, followed by the parts of a composite."""
    return (of, *of.parts) if isinstance(of, Composite) else (of,)


def _kinds_of(of: Model | Recipe) -> list[ModelKind]:
    return [_kind_by(part.model_type, origin(part)) for part in _parts(of)]


def _kind_by(model_type: ModelType, made_by: PluginOrigin | None) -> ModelKind:
    """Kind of a model or recipe, from the distribution that made it."""
    if made_by is None:
        return find_kind(model_type)
    if made_by.distribution == DISTRIBUTION:
        return strategy(RuleFamily(made_by.name))
    return _plugin_kind(plugins.required(made_by))


def _explicit(kind: ModelKind, params: Mapping[str, Any], execution: ExecutionRules) -> dict[str, Any]:
    """Stored parameters with the meaning of names that did not exist at the time."""
    explicit = sections(None, execution.model_copy(update={"rebalance_band": None})) | dict(params)
    for older in kind.older_params:
        if older.marker not in params:
            explicit = {**older.meaning, **explicit}
    return explicit


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
        sizing=plugin.sizing,
    )


@dataclass(frozen=True)
class _Split:
    """Training parameters, split into those of the kind and the two sections."""

    own: Mapping[str, Any]
    sizing: Any
    execution: Any
    """Section as given; None for no section."""

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> "_Split":
        """
        Raises:
            InvalidTrainingParams: a section is no table, or a value is named twice.
        """
        own = {name: value for name, value in params.items() if _section_of(name) is None}
        return cls(own, _section(params, SIZING), _section(params, EXECUTION))

    def sizing_section(self, default: Sizing | None) -> Sizing | None:
        """
        Raises:
            InvalidTrainingParams: a value is unknown or out of range.
        """
        try:
            return sizing_of(self.sizing, default)
        except ValidationError as error:
            raise _invalid(SIZING, error, Sizing) from error

    def execution_section(self, default: ExecutionRules) -> ExecutionRules:
        """
        Raises:
            InvalidTrainingParams: a value is unknown or out of range.
        """
        try:
            return ExecutionRules.model_validate(default.model_dump() | (self.execution or {}))
        except ValidationError as error:
            raise _invalid(EXECUTION, error, ExecutionRules) from error


def _section_of(name: str) -> str | None:
    """Section that a parameter's name belongs to, if any."""
    section = name.partition(".")[0]
    return section if section in (SIZING, EXECUTION) else None


def _section(params: Mapping[str, Any], section: str) -> Any:
    """Table of a section, values named with a dot included; "none" for no sizing, None without a section."""
    whole = params.get(section)
    named = {
        name.partition(".")[2]: value
        for name, value in params.items()
        if name != section and _section_of(name) == section
    }
    if whole is None or not (named or isinstance(whole, Mapping)):
        if isinstance(whole, str) and section == SIZING and whole == NO_SIZING:
            return whole
        if whole is None:
            return named or None
        none = f', or {SIZING}="{NO_SIZING}"' if section == SIZING else ""
        example = "target_volatility=0.15" if section == SIZING else "stop_loss=0.05"
        raise InvalidTrainingParams(f"{section}={whole}: name a value, as {section}.{example}{none}")
    twice = sorted(named.keys() & whole.keys()) if isinstance(whole, Mapping) else [section]
    if twice:
        raise InvalidTrainingParams(f"{section}.{twice[0]} is given twice: keep one")
    return dict(whole) | named


def _invalid(section: str, error: ValidationError, record: type[BaseModel]) -> InvalidTrainingParams:
    problems = "; ".join(f"{section}.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    names = ", ".join(f"{section}.{name}" for name in record.model_fields)
    return InvalidTrainingParams(f"{problems}. Valid parameters: {names}")


def _bars_by_signal(card: ModelCard, sizing: Sizing | None) -> int | None:
    """Bars needed by the signal of a stored model, from the number needed by the positions."""
    if card.bars_needed is None or sizing is None:
        return card.bars_needed
    return sizing.bars_by_signal(card.bars_needed, card.trained_on.timeframe.seconds)
