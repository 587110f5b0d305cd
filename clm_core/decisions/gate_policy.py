"""Gate policy: the limits a version must meet, from a policy document, by preset, market and model.

A policy document is TOML:

    version = 1
    preset = "strict"                       # the default for every model not named below

    [markets.BTCUSDT.criteria]              # on top of the preset, for every model of a symbol
    max_drawdown = 0.20

    [models.xgboost_btcusdt_1h]             # on top of both, for one model
    preset = "strict"
    evidence.min_deflated_sharpe = 0.99

    [models.xgboost_btcusdt_1h.lifecycle]   # what the shadow pass may do; see `LifecycleRules`
    promotion = "off"

    [fleet]                                 # error over all markets together, a year
    budget = 0.05

    [presets.cautious.criteria]             # an additional preset
    min_trades = 200
    [presets.cautious.evidence]

Presets of the document are added to the shipped presets `strict`, `classic` and `thresholds-only`. A level
left out has its default; an unknown level is refused. A limit that a document names, or that a policy store
answers, binds as it stands, whatever the preset: see `GatePolicy.binding`.
"""

import hashlib
import tomllib
from collections.abc import Mapping
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clm_core.decisions.lifecycle_rules import LifecycleRules
from clm_core.decisions.protection_rules import ProtectionRules
from clm_core.domain.errors import PolicyError
from clm_core.evidence.repeated_looks import confidence_of_looks
from clm_core.market.whole_libraries import forget_without_sklearn

M = TypeVar("M", bound=BaseModel)

STORE_KEYS = {
    "min_sharpe_ratio": "clm_v3.min_sharpe",
    "min_win_rate": "clm_v3.min_win_rate",
    "min_profit_factor": "clm_v3.min_profit_factor",
    "max_drawdown": "clm_v3.max_dd",
    "min_trades": "clm_v3.min_trades",
    "seed_quantile": "clm_v3.seed_quantile",
}
"""Key of each criterion in a policy store."""

ALTERNATIVES = ("max_drawdown", "min_profit_factor", "min_win_rate")
"""Criteria that are judged in another way unless they bind as they stand, in alphabetical order."""


class PromotionCriteria(BaseModel):
    """Thresholds on the out-of-sample results after costs."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    min_sharpe_ratio: float = 1.0
    """Minimum annualised Sharpe ratio."""
    min_win_rate: float = Field(default=0.52, ge=0, le=1)
    """Minimum share of closed trades with a positive net return."""
    min_profit_factor: float = Field(default=1.3, ge=0)
    """Minimum of the sum of winning over the sum of losing net trade returns."""
    max_drawdown: float = Field(default=0.15, ge=0, le=1)
    """Deepest allowed fall of equity below the running peak, as a positive fraction, of the returns scaled to
    `drawdown_volatility`."""
    drawdown_volatility: float = Field(default=0.10, gt=0, le=10)
    """Annual volatility, measured on weekly returns, to which the returns are scaled before the drawdown is
    judged."""
    expectancy_confidence: float = Field(default=0.95, ge=0.5, lt=1)
    """Confidence, one-sided, of the lower bound of the expectancy of a trade; above 0, the bound carries a
    missed win rate or profit factor."""
    min_trades: int = Field(default=50, ge=0)
    """Minimum number of closed trades: results of fewer are too uncertain."""
    seed_quantile: float = Field(default=0.25, ge=0, le=1)
    """Quantile, by Sharpe ratio, of the seed that is judged when a recipe is trained with several seeds: 0 is
    the worst seed."""


class EvidenceLevels(BaseModel):
    """Confidence the evidence must reach."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    min_deflated_sharpe: float = Field(default=0.95, ge=0.5, lt=1)
    """Minimum probability that the true Sharpe ratio exceeds the expected maximum of all trials without an
    edge."""
    fewest_trials: float = Field(default=10.0, ge=1, le=1e9)
    """Minimum number of independent trials presumed, for trials made before trials were counted."""
    max_overfitting: float = Field(default=0.2, ge=0, le=1)
    """Maximum probability of overfitting of the tuning or evolution behind the parameters."""
    max_selection_loss: float = Field(default=0.05, ge=0, le=1)
    """Maximum probability that the candidate chosen on one half of the days loses on the other half, which
    carries a missed probability of overfitting."""
    min_timing_probability: float = Field(default=0.95, ge=0, lt=1)
    """Minimum share of circular shifts at which the same positions earn less, P(timing)."""
    alpha_confidence: float = Field(default=0.95, ge=0.5, lt=1)
    """One-sided confidence with which the alpha of the daily net returns on the three baselines together must
    be above zero."""
    champion_alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """Probability that a challenger as good as the champion is ever called worse."""
    champion_bars: int = Field(default=500, ge=1)
    """Number of common bars at which the comparison with the champion is sharpest."""


class GatePolicy(BaseModel):
    """Every level a version is judged by."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Name of the preset, with "+ overrides" if the market or the model changes a level."""
    criteria: PromotionCriteria = PromotionCriteria()
    evidence: EvidenceLevels | None = EvidenceLevels()
    """Levels of the evidence; None lets thresholds alone decide, which lucky versions pass."""
    verdict_days: float = Field(default=30.0, gt=0, le=3650, allow_inf_nan=False)
    """Greatest age of the newest evidence for a promotion, days: of the verdict, or of a later shadow bar."""
    binding: tuple[str, ...] = ()
    """Criteria binding as they stand, in alphabetical order: win rate or profit factor without the expectancy
    as an alternative, drawdown without scaling. All three without evidence."""

    fleet_budget: float | None = Field(default=None, gt=0, lt=0.5, allow_inf_nan=False)
    """Largest probability that luck is promoted in any market of the installation within a year; None leaves
    each market its own error."""

    def fleet_error(self, markets: int) -> float | None:
        """Largest probability, 0..1, that luck is promoted in any of the markets within a year: each market
        errs with at most 1 - `min_deflated_sharpe`, independently. None without evidence."""
        return None if self.evidence is None else 1.0 - self.evidence.min_deflated_sharpe**markets

    def within_fleet(self, markets: int) -> "GatePolicy":
        """The policy with the deflated Sharpe ratio at which the error of the markets keeps the budget: the
        n-th root of 1 - budget for n markets (Sidak 1967); unchanged where the ratio is higher already."""
        if self.fleet_budget is None or self.evidence is None:
            return self
        required = (1.0 - self.fleet_budget) ** (1.0 / max(markets, 1))
        if required <= self.evidence.min_deflated_sharpe:
            return self
        evidence = self.evidence.model_copy(update={"min_deflated_sharpe": required})
        return self.model_copy(
            update={"name": f"{self.name}, budget of {markets} markets", "evidence": evidence}
        )

    def looked_at(self, growth: float) -> "GatePolicy":
        """The policy for repeated judgements of growing evidence, all together in error as rarely as a single
        judgement; see `confidence_of_looks`.

        Args:
            growth: longest record over the shortest, n1 / n0.
        """
        if self.evidence is None:
            return self
        required = confidence_of_looks(self.evidence.min_deflated_sharpe, growth)
        evidence = self.evidence.model_copy(update={"min_deflated_sharpe": required})
        return self.model_copy(update={"name": f"{self.name}, looked at daily", "evidence": evidence})

    def binds(self, criterion: str) -> bool:
        """True if the criterion binds as it stands."""
        return self.evidence is None or criterion in self.binding

    @property
    def fewest_trials(self) -> float:
        """Independent trials presumed at least; 1 for a policy without evidence."""
        return 1.0 if self.evidence is None else self.evidence.fewest_trials

    @property
    def digest(self) -> str:
        """SHA-256 over name and levels, hexadecimal."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class Levels(BaseModel):
    """Levels of a preset, a market or a model, as read; checked after merging."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: str | None = None
    criteria: dict[str, Any] = Field(default_factory=dict)
    evidence: dict[str, Any] | None = None
    verdict_days: float | None = None
    lifecycle: dict[str, Any] = Field(default_factory=dict)
    """Levels of `LifecycleRules`; no part of the gate's policy or its digest."""
    protection: dict[str, Any] = Field(default_factory=dict)
    """Levels of `ProtectionRules`; no part of the gate's policy or its digest."""
    binding: tuple[Literal["max_drawdown", "min_profit_factor", "min_win_rate"], ...] = ()
    """Criteria binding as they stand, beside the criteria named by a document of the installation."""

    def named(self) -> "Levels":
        """The levels as of a document of the installation: each criterion named binds as it stands."""
        names = {*self.binding, *(name for name in ALTERNATIVES if name in self.criteria)}
        return self.model_copy(update={"binding": tuple(sorted(names))})


class Fleet(BaseModel):
    """Levels over all markets of an installation together."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    budget: float | None = Field(default=None, gt=0, lt=0.5)
    """Largest probability that luck is promoted in any market within a year; None for no budget."""


class PolicyDocument(BaseModel):
    """All levels of an installation: presets, and overrides by market and by model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = Field(ge=1)
    """Version number, for people; incremented by the editor."""
    preset: str
    presets: dict[str, Levels] = Field(default_factory=dict)
    markets: dict[str, Levels] = Field(default_factory=dict)
    """Overrides by symbol."""
    models: dict[str, Levels] = Field(default_factory=dict)
    """Overrides by model id."""
    fleet: Fleet = Fleet()

    def policy(self, model_id: str, symbol: str) -> GatePolicy:
        """The levels for one model.

        Raises:
            PolicyError: a level is unknown or out of range, or the preset does not exist; the message names
                the level or the preset.
        """
        preset, overrides = self._overrides(model_id, symbol)
        layers = [self.presets[preset], *overrides]
        changed = any(levels.criteria or levels.evidence or levels.verdict_days for levels in overrides)
        evidence = [levels.evidence for levels in layers if levels.evidence is not None]
        days = [levels.verdict_days for levels in layers if levels.verdict_days is not None]
        merged = {
            **({"verdict_days": days[-1]} if days else {}),
            "name": f"{preset} + overrides" if changed else preset,
            "criteria": _merged([levels.criteria for levels in layers]),
            "evidence": _merged(evidence) if evidence else None,
            "fleet_budget": self.fleet.budget,
            "binding": tuple(sorted({name for levels in layers for name in levels.binding})),
        }
        return _validated(GatePolicy, merged, f"The policy of {model_id}")

    def lifecycle(self, model_id: str, symbol: str) -> LifecycleRules:
        """The rules of a model's shadows; without evidence people alone promote, unless a level says
        otherwise: a shadow confirms a proof, and thresholds prove nothing.

        Raises:
            PolicyError: as for `policy`.
        """
        preset, overrides = self._overrides(model_id, symbol)
        layers = [self.presets[preset], *overrides]
        without_proof = all(levels.evidence is None for levels in layers)
        switches = {"promotion": "off", "refresh": "off"} if without_proof else {}
        merged = _merged([switches, *(levels.lifecycle for levels in layers)])
        return _validated(LifecycleRules, merged, f"The lifecycle of {model_id}")

    def protection(self, model_id: str, symbol: str) -> ProtectionRules:
        """The rules of the protection of a model's production version.

        Raises:
            PolicyError: as for `policy`.
        """
        preset, overrides = self._overrides(model_id, symbol)
        merged = _merged([self.presets[preset].protection, *(levels.protection for levels in overrides)])
        return _validated(ProtectionRules, merged, f"The protection of {model_id}")

    def _overrides(self, model_id: str, symbol: str) -> tuple[str, list[Levels]]:
        """Name of the preset, and the levels of market and model that lie over the preset."""
        overrides = [self.markets[symbol]] if symbol in self.markets else []
        overrides += [self.models[model_id]] if model_id in self.models else []
        preset = [self.preset, *(levels.preset for levels in overrides if levels.preset)][-1]
        if preset not in self.presets:
            raise PolicyError(f"There is no policy preset {preset}: choose from {', '.join(self.presets)}.")
        return preset, overrides


class PolicyStore(Protocol):
    """External store of limits, such as a risk department's; read anew for every verdict."""

    def get(self, key: str, default: float) -> float: ...


def with_store(policy: GatePolicy, store: PolicyStore) -> GatePolicy:
    """The policy with the criteria of the store, by `STORE_KEYS`, in place of the document's.

    An answered criterion binds as it stands; the very default handed back is no answer.

    Raises:
        PolicyError: a value in the store is not a valid limit.
    """
    present = policy.criteria.model_dump()
    # new objects, which no store can hold
    defaults = {name: float(repr(float(present[name]))) for name in STORE_KEYS}
    values = {name: store.get(key, defaults[name]) for name, key in STORE_KEYS.items()}
    answered = {name for name in ALTERNATIVES if values[name] is not defaults[name]}
    criteria = _validated(PromotionCriteria, {**present, **values}, "The answer of the policy store")
    binding = tuple(sorted({*policy.binding, *answered}))
    return policy.model_copy(update={"criteria": criteria, "binding": binding})


def load_store(name: str) -> PolicyStore:
    """The policy store named by `package.module:name`: an object with `get`, or a function returning such an
    object.

    Raises:
        PolicyError: the name cannot be imported, or the object has no `get`.
    """
    module, _, attribute = name.partition(":")
    forget_without_sklearn()
    try:
        target = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise PolicyError(
            f"The policy store {name} cannot be loaded ({error}): correct policy.store."
        ) from error
    store = target() if callable(target) else target
    if not hasattr(store, "get"):
        raise PolicyError(f"The policy store {name} has no get(key, default): correct policy.store.")
    checked: PolicyStore = store
    return checked


def load_document(file: Path | None = None, preset: str | None = None) -> PolicyDocument:
    """The shipped document, or the document of a file together with the shipped presets.

    Args:
        file: policy document in TOML; by default the shipped `policy.toml`.
        preset: name of the preset to use in place of the document's choice.

    Raises:
        PolicyError: the file cannot be read, or a level or preset is invalid; the message names the problem.
    """
    shipped = _read(
        files("clm_core.decisions").joinpath("policy.toml").read_text(encoding="utf-8"), "built in"
    )
    document = shipped
    if file is not None:
        try:
            document = _read(file.read_text(encoding="utf-8"), str(file))
        except OSError as error:
            raise PolicyError(
                f"The policy {file} cannot be read ({error.strerror}): correct policy.file."
            ) from error
        document = _named(document)
    document = document.model_copy(
        update={"presets": shipped.presets | document.presets, "preset": preset or document.preset}
    )
    _check_all(document)
    return document


def _named(document: PolicyDocument) -> PolicyDocument:
    """A document of the installation, with the named criteria binding as they stand."""
    levels = {
        group: {name: each.named() for name, each in getattr(document, group).items()}
        for group in ("presets", "markets", "models")
    }
    return document.model_copy(update=levels)


def _check_all(document: PolicyDocument) -> None:
    """Resolve every preset, market and model once, so that an error shows on loading, not at a verdict."""
    alone: dict[str, Any] = {"markets": {}, "models": {}}
    checked = [(document, "any model", "any market")]
    checked += [
        (document.model_copy(update=alone | {"preset": each}), each, each) for each in document.presets
    ]
    checked += [(document, "any model", symbol) for symbol in document.markets]
    checked += [(document, model_id, "any market") for model_id in document.models]
    for each, model_id, symbol in checked:
        each.policy(model_id, symbol)
        each.lifecycle(model_id, symbol)
        each.protection(model_id, symbol)


def _read(text: str, origin: str) -> PolicyDocument:
    try:
        return _validated(PolicyDocument, tomllib.loads(text), f"The policy {origin}")
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"The policy {origin} is not valid TOML: {error}.") from error


def _merged(layers: list[dict[str, Any]]) -> dict[str, Any]:
    """Later layers over earlier ones, tables within a layer likewise."""
    merged: dict[str, Any] = {}
    for name, value in (item for layer in layers for item in layer.items()):
        before = merged.get(name)
        if isinstance(before, dict) and isinstance(value, dict):
            merged[name] = _merged([before, value])
        else:
            merged[name] = value
    return merged


def _validated(model: type[M], values: Mapping[str, Any], subject: str) -> M:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise PolicyError(f"{subject} is not allowed: {problems}.") from error
