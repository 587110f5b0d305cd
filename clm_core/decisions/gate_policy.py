"""What a version must show: levels from a policy document, by preset, market and model.

A policy document is TOML:

    version = 1
    preset = "strict"                       # of every model that nothing below speaks of

    [markets.BTCUSDT.criteria]              # on top of the preset, for every model of a symbol
    max_drawdown = 0.20

    [models.xgboost_btcusdt_1h]             # on top of both, for one model
    preset = "strict"
    evidence.min_deflated_sharpe = 0.99

    [presets.cautious.criteria]             # a preset of one's own
    min_trades = 200
    [presets.cautious.evidence]

Its own presets stand beside those that come with the package, `strict` and `thresholds-only`. A level that is
not named keeps its default; an unknown one is refused.
"""

import hashlib
import tomllib
from collections.abc import Mapping
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clm_core.decisions.criteria import PromotionCriteria
from clm_core.domain.errors import PolicyError

M = TypeVar("M", bound=BaseModel)

STORE_KEYS = {
    "min_sharpe_ratio": "clm_v3.min_sharpe",
    "min_win_rate": "clm_v3.min_win_rate",
    "min_profit_factor": "clm_v3.min_profit_factor",
    "max_drawdown": "clm_v3.max_dd",
    "min_trades": "clm_v3.min_trades",
    "seed_quantile": "clm_v3.seed_quantile",
}
"""Under which name a policy store keeps each criterion."""


class EvidenceLevels(BaseModel):
    """How sure the gate must be."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    min_deflated_sharpe: float = Field(default=0.95, ge=0.5, lt=1)
    """Least probability that the true Sharpe ratio is above what the luckiest of all trials would show."""
    fewest_trials: float = Field(default=10.0, ge=1, le=1e9)
    """Independent trials presumed at least: people tried things before anything was counted."""
    champion_alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """Chance that a challenger as good as the champion is ever called worse."""
    champion_bars: int = Field(default=500, ge=1)
    """Common bars after which the comparison with the champion is sharpest."""


class GatePolicy(BaseModel):
    """Every level one version is judged by."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Of the preset; "+ overrides" where a market or the model has levels of its own."""
    criteria: PromotionCriteria = PromotionCriteria()
    evidence: EvidenceLevels | None = EvidenceLevels()
    """None: thresholds alone decide, which luck passes."""

    @property
    def digest(self) -> str:
        """SHA-256 over name and levels, hexadecimal: the same levels, the same digest."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class Levels(BaseModel):
    """What a preset, a market or a model says; as read, checked once they are put together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: str | None = None
    criteria: dict[str, Any] = Field(default_factory=dict)
    evidence: dict[str, Any] | None = None


class PolicyDocument(BaseModel):
    """All levels of an installation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = Field(ge=1)
    """Counted up by whoever edits it; for people."""
    preset: str
    presets: dict[str, Levels] = Field(default_factory=dict)
    markets: dict[str, Levels] = Field(default_factory=dict)
    """By symbol."""
    models: dict[str, Levels] = Field(default_factory=dict)
    """By model id."""

    def policy(self, model_id: str, symbol: str) -> GatePolicy:
        """The levels for one model.

        Raises:
            PolicyError: names the level that is unknown or out of range, or the preset there is none of.
        """
        overrides = [self.markets[symbol]] if symbol in self.markets else []
        overrides += [self.models[model_id]] if model_id in self.models else []
        named = [self.preset, *(levels.preset for levels in overrides if levels.preset)][-1]
        if named not in self.presets:
            raise PolicyError(f"There is no policy preset {named}: choose from {', '.join(self.presets)}.")
        layers = [self.presets[named], *overrides]
        changed = any(levels.criteria or levels.evidence for levels in overrides)
        evidence = [levels.evidence for levels in layers if levels.evidence is not None]
        merged = {
            "name": f"{named} + overrides" if changed else named,
            "criteria": _merged([levels.criteria for levels in layers]),
            "evidence": _merged(evidence) if evidence else None,
        }
        return _validated(GatePolicy, merged, f"The policy of {model_id}")


class PolicyStore(Protocol):
    """Where a risk side keeps its limits; asked anew for every verdict."""

    def get(self, key: str, default: float) -> float: ...


def with_store(policy: GatePolicy, store: PolicyStore) -> GatePolicy:
    """The policy with the criteria that the store holds, by `STORE_KEYS`, in place of its own.

    Raises:
        PolicyError: the store answered something that is no limit.
    """
    own = policy.criteria.model_dump()
    held = {name: store.get(key, own[name]) for name, key in STORE_KEYS.items()}
    criteria = _validated(PromotionCriteria, held, "What the policy store answered")
    return policy.model_copy(update={"criteria": criteria})


def load_store(name: str) -> PolicyStore:
    """The policy store that `package.module:name` names: an object with `get`, or what a function makes.

    Raises:
        PolicyError: there is none of that name, or it has no `get`.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise PolicyError(
            f"The policy store {name} cannot be loaded ({error}): correct policy.store."
        ) from error
    store = found() if callable(found) else found
    if not hasattr(store, "get"):
        raise PolicyError(f"The policy store {name} has no get(key, default): correct policy.store.")
    checked: PolicyStore = store
    return checked


def load_document(file: Path | None = None, preset: str | None = None) -> PolicyDocument:
    """The document that comes with the package, or a file's, whose presets are added to it.

    Args:
        preset: in place of the one that the document chooses.

    Raises:
        PolicyError: the file cannot be read or holds what no policy can be; names it.
    """
    own = _read(files("clm_core.decisions").joinpath("policy.toml").read_text(encoding="utf-8"), "built in")
    document = own
    if file is not None:
        try:
            document = _read(file.read_text(encoding="utf-8"), str(file))
        except OSError as error:
            raise PolicyError(
                f"The policy {file} cannot be read ({error.strerror}): correct policy.file."
            ) from error
    document = document.model_copy(
        update={"presets": own.presets | document.presets, "preset": preset or document.preset}
    )
    _check_all(document)
    return document


def _check_all(document: PolicyDocument) -> None:
    """Before anything is judged by it: an error must not wait for the one model it concerns."""
    document.policy("any model", "any market")
    for name in document.presets:
        document.model_copy(update={"preset": name, "markets": {}, "models": {}}).policy(name, name)
    for symbol in document.markets:
        document.policy("any model", symbol)
    for model_id in document.models:
        document.policy(model_id, "any market")


def _read(text: str, origin: str) -> PolicyDocument:
    try:
        return _validated(PolicyDocument, tomllib.loads(text), f"The policy {origin}")
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"The policy {origin} is not valid TOML: {error}.") from error


def _merged(layers: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: value for layer in layers for name, value in layer.items()}


def _validated(model: type[M], values: Mapping[str, Any], what: str) -> M:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise PolicyError(f"{what} is not allowed: {problems}.") from error
