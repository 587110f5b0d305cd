"""Ensembles: weighted sums of the positions of versions of other models.

The weights are at least 0 and sum to 1, or all are 0 if no member has earned a weight:

- `vote`: given weights, or weights in proportion to the members' out-of-fold Sharpe ratios, negative ratios
  counting as 0.
- `stack`: the weights with the highest out-of-fold Sharpe ratio of the mix of the members' returns, by
  regression of 1 on the returns without an intercept (Britten-Jones 1999, Journal of Finance 54), by
  non-negative least squares (Lawson & Hanson 1974), with a ridge, because members are much alike.
- `regime`: a pool of members for each regime of the market. The position of a bar is that of the pool of the
  regime known at its close (`market.regime_reader`): equal weights for the `best` members with the highest
  Sharpe ratios above 0 over the out-of-fold bars of the regime.

Out of fold: within the training bars, every member's recipe is fitted anew on older bars and takes positions
on the bars after. So in a fold of a walk-forward, where the training bars are older bars only, members and
weights are fitted on nothing else, and the judgement is of the recipe: the kinds, parameters and combination.

The registered ensemble holds the very members: `with_bundled` makes a recipe whose model contains the
members' bundles, so later changes of the versions have no effect. The weights come from all out-of-fold
positions.
"""

import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from clm_core.domain.costs import MarketCosts
from clm_core.domain.errors import BundleCorrupt, InvalidTrainingParams, NotEnoughBars
from clm_core.domain.kinds import OfKind, PluginName
from clm_core.domain.sizing import Sizing
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars, Floats
from clm_core.market.carry import holding_rates
from clm_core.market.regime_reader import RegimeReader
from clm_core.market.regimes import STATES, UNKNOWN
from clm_core.models import catalog
from clm_core.models.bundle import load_bundle, save_bundle
from clm_core.models.contract import Model, ModelCard, OffersConvictions, Progress, Recipe, TrainedOn
from clm_core.models.kind import EXPENSIVE_FOLDS, ModelKind
from clm_core.models.params import TrainingParams, split_commas
from clm_core.models.sizing import SizedRecipe, unsized_model

FILE = "ensemble.json"
MAX_MEMBERS = 20
MIN_POOL_DAYS = 20
"""Out-of-fold days in a regime below which its pool is chosen by all out-of-fold bars."""
FIRST_FRACTION = 0.4
"""Share of the bars before the first out-of-fold bar, as in a walk-forward."""


def _version_name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9_.-]{1,150}@[a-z0-9_]{1,50}", text):
        raise ValueError(f"{text!r} names no version: write MODEL@LABEL, or MODEL@production")
    return text


Reference = Annotated[str, AfterValidator(_version_name)]
"""Reference to a version: `xgboost_btcusd_1h@v20251204_143022`, `xgboost_btcusd_1h@production`."""


class Member(OfKind):
    """Version a reference resolved to when the job was opened, and the parameters for a new fit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    asked: Reference
    """Reference in the request."""
    model_id: str
    version: str
    model_type: ModelType
    plugin: PluginName | None = None
    params: dict[str, Any]
    """Every training parameter with its effective value."""
    bundle_digest: str

    @model_validator(mode="after")
    def _not_nested(self) -> Self:
        if self.model_type is ModelType.ENSEMBLE:
            raise ValueError(f"{self.name} is an ensemble itself: name the members instead")
        return self

    @property
    def name(self) -> str:
        return f"{self.model_id}@{self.version}"

    def recipe(self, costs: MarketCosts) -> Recipe:
        """Recipe of the version's training."""
        params = catalog.stored_params(self.model_type, self.params, self.plugin)
        return catalog.recipe(self.model_type, params, costs, self.plugin)


def _parsed(members: object) -> object:
    """Members parsed by type: a union would report the errors of both alternatives."""
    listed = split_commas(members)
    return [_member(each) for each in listed] if isinstance(listed, list | tuple) else listed


def _member(each: object) -> Member | str:
    match each:
        case Member():
            return each
        case str():
            return _version_name(each)
    return Member.model_validate(each)


class EnsembleParams(TrainingParams):
    model_type: ClassVar[ModelType] = ModelType.ENSEMBLE

    members: Annotated[tuple[Member | str, ...], BeforeValidator(_parsed)] = Field(
        default=(), max_length=MAX_MEMBERS
    )
    """Versions of this market (as text: separated by commas), each `MODEL@LABEL` or `MODEL@production`."""
    combine: Literal["vote", "stack", "regime"] = "vote"
    """Combination of the positions; regime for a pool of members in each regime of the market."""
    best: int = Field(default=2, ge=1, le=20)
    """Members in the pool of a regime at most, with combine=regime; 1..20."""
    members_from: Literal["names", "market"] = "names"
    """Versions by name, or the newest judged version of each recipe of the market, at most 20."""
    weights: Annotated[tuple[float, ...] | None, BeforeValidator(split_commas)] = None
    """Weights of a vote, in the order of the members; None for weights by the out-of-fold results."""
    folds: int = Field(default=3, ge=2, le=20)
    """Number of fits of each member to find the weights, inside every training; 2..20."""
    ridge: float = Field(default=0.1, ge=0, le=100)
    """Ridge of stacking, as a share of each member's mean squared return; 0..100."""
    allow_failed: bool = False
    """True to accept members with status failed."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [each if isinstance(each, str) else each.name for each in self.members]
        if len(names) < 2 and (names or self.members_from == "names"):
            raise ValueError(
                "name at least 2 versions: members=MODEL@LABEL,MODEL@production, or members_from=market"
            )
        if self.combine != "regime" and "best" in self.model_fields_set:
            raise ValueError("best is the size of the pool of a regime: combine=regime, or leave it out")
        if len(set(names)) < len(names):
            raise ValueError("a version is named twice: give the version more weight instead")
        if self.weights is not None:
            self._check(self.weights)
        return self

    def _check(self, weights: tuple[float, ...]) -> None:
        if self.combine != "vote":
            raise ValueError(
                f"combine={self.combine} finds the weights itself: leave them out, or combine by vote"
            )
        if len(weights) != len(self.members):
            raise ValueError(f"{len(weights)} weights for {len(self.members)} members")
        if min(weights) < 0 or sum(weights) == 0:
            raise ValueError("weights are at least 0, and not all of them 0")


@dataclass(frozen=True, eq=False)
class BundledMember:
    """A member's model and the files of the member's bundle."""

    name: str
    digest: str
    model: Model = field(repr=False)
    files: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def read(cls, name: str, bundle: Path, digest: str) -> "BundledMember":
        """Member read from a bundle.

        Raises:
            BundleCorrupt: the bundle has another digest.
        """
        model = load_bundle(bundle, digest)
        return cls(name, digest, model, {path.name: path.read_bytes() for path in bundle.iterdir()})


@dataclass(frozen=True)
class EnsembleRecipe:
    """Recipe that fits members and weights; bundled members are taken as they are."""

    params: EnsembleParams
    costs: MarketCosts
    parts: tuple[Recipe, ...]
    """Recipes of the members; empty while the members are not resolved."""
    bundled: tuple[BundledMember, ...] = ()
    """Registered members to use instead of newly fitted members."""

    @classmethod
    def of(cls, params: EnsembleParams, costs: MarketCosts) -> "EnsembleRecipe":
        members = [each for each in params.members if isinstance(each, Member)]
        if len(members) < len(params.members):
            return cls(params, costs, ())
        return cls(params, costs, tuple(each.recipe(costs) for each in members))

    @property
    def model_type(self) -> ModelType:
        return ModelType.ENSEMBLE

    @property
    def members(self) -> tuple[Member, ...]:
        return tuple(each for each in self.params.members if isinstance(each, Member))

    def describe(self) -> dict[str, Any]:
        # as before there were pools of regimes where none is asked for: the same card, and the same recipe
        unset = {"best"} if self.params.combine != "regime" else set[str]()
        unset |= {"members_from"} if self.params.members_from == "names" else set()
        return self.params.model_dump(mode="json", exclude=unset)

    def with_bundled(self, members: Sequence[BundledMember]) -> "EnsembleRecipe":
        return replace(self, bundled=tuple(members))

    def fit(self, bars: Bars, seed: int, progress: Progress | None = None) -> "EnsembleModel":
        """Fit weights, and members unless bundled.

        The training metrics are the weights, and the out-of-fold Sharpe ratios (annualised, after costs), by
        member; with pools of regimes also by regime.
        """
        if not self.parts:
            raise InvalidTrainingParams(
                "the members are not resolved, as at the opening of a job: start a job with clm retrain"
            )
        rounds = (not self.bundled) + (self.params.folds if self._finds_weights else 0)
        report = _SummedProgress(progress, len(self.parts) * rounds)
        members = self.bundled or self._fitted(bars, seed, report)
        self._require_older(members, bars)
        if self.params.combine == "regime":
            return self._pooled(members, bars, seed, report)
        metrics = dict[str, float]()
        weights = np.asarray(self.params.weights or ())
        if self._finds_weights:
            returns = self._out_of_fold(bars, seed, report)
            ratios = sharpe_ratios(returns) * math.sqrt(bars.periods_per_year)
            metrics = _by_member("out_of_fold_sharpe", members, ratios)
            by_stacking = self.params.combine == "stack"
            weights = stacked(returns, self.params.ridge) if by_stacking else np.maximum(ratios, 0.0)
        shares = _shares(weights)
        report.end()
        metrics |= _by_member("weight", members, shares)
        return EnsembleModel(members, tuple(shares.tolist()), TrainedOn.of(bars, seed), metrics)

    def _pooled(
        self, members: tuple[BundledMember, ...], bars: Bars, seed: int, report: "_SummedProgress"
    ) -> "EnsembleModel":
        """Ensemble with a pool of members for each regime, chosen on the out-of-fold bars of the regime."""
        reader = RegimeReader.of(bars)
        if len(bars) < reader.bars_needed:
            raise NotEnoughBars(
                f"{bars.symbol} {bars.timeframe}: {len(bars):,} bars to train on, and a regime is told from "
                f"{reader.bars_needed:,}. Give more days of bars, or combine by vote or stack",
                reader.bars_needed,
            )
        returns = self._out_of_fold(bars, seed, report)
        states = reader.labels(bars)[int(len(bars) * FIRST_FRACTION) :][: len(returns)]
        annual = math.sqrt(bars.periods_per_year)
        overall = sharpe_ratios(returns) * annual
        metrics = _by_member("out_of_fold_sharpe", members, overall)
        pools = []
        for state, name in enumerate(STATES):
            within = states == state
            enough = np.count_nonzero(within) >= MIN_POOL_DAYS * reader.bars_a_day
            ratios = sharpe_ratios(returns[within]) * annual if enough else overall
            pools.append(best_members(ratios, self.params.best))
            metrics |= _by_member(f"out_of_fold_sharpe_{name}", members, ratios)
            metrics |= _by_member(f"weight_{name}", members, pools[-1])
            metrics[f"out_of_fold_share_{name}"] = float(within.mean())
        shares = np.mean([pools[state] for state in states[states != UNKNOWN]] or pools, axis=0)
        metrics |= _by_member("weight", members, shares)
        report.end()
        by_regime = RegimeWeights(reader=reader, weights=[pool.tolist() for pool in pools])
        seen = TrainedOn.of(bars, seed)
        return EnsembleModel(members, tuple(shares.tolist()), seen, metrics, by_regime=by_regime)

    @property
    def _finds_weights(self) -> bool:
        return self.params.weights is None

    def _fitted(self, bars: Bars, seed: int, report: "_SummedProgress") -> tuple[BundledMember, ...]:
        return tuple(
            _bundled(member.name, part.fit(bars, seed, report.next()), part, bars)
            for member, part in zip(self.members, self.parts, strict=True)
        )

    def _out_of_fold(self, bars: Bars, seed: int, report: "_SummedProgress") -> Floats:
        """Net returns of the members on the out-of-fold bars, shape (n_rows, n_members)."""
        first = int(len(bars) * FIRST_FRACTION)
        edges = np.linspace(first, len(bars), self.params.folds + 1).astype(int).tolist()
        positions = np.zeros((len(bars), len(self.parts)))
        for start, stop in pairwise(edges):
            for column, part in enumerate(self.parts):
                model = part.fit(bars[:start], seed, report.next())
                positions[start:stop, column] = model.positions(bars[:stop])[start:stop]
        return net_returns(bars[first:], positions[first:], self.costs)

    def _require_older(self, members: Sequence[BundledMember], bars: Bars) -> None:
        for member in members:
            member.model.trained_on.require_same_series(bars)
            if member.model.trained_on.end > bars.end.to_pydatetime():
                raise NotEnoughBars(
                    f"{member.name} was trained on bars up to {member.model.trained_on.end:%Y-%m-%d %H:%M}, "
                    "after the last bar given: bring the series up to date, or choose an older version"
                )


class RegimeWeights(BaseModel):
    """Weights of the members by regime."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    reader: RegimeReader
    weights: list[list[Annotated[float, Field(ge=0, le=1)]]] = Field(
        min_length=len(STATES), max_length=len(STATES)
    )
    """Weight of each member in each state, in the order of the states and of the members."""

    def at(self, bars: Bars) -> Floats:
        """Weight of each member after each bar, shape (n_members, n_bars); 0 where the regime is unknown."""
        by_state = np.array([*self.weights, [0.0] * len(self.weights[0])])
        return np.ascontiguousarray(by_state[self.reader.labels(bars)].T)


@dataclass(frozen=True, eq=False)
class EnsembleModel:
    """Bundled members, each with a share in the position."""

    members: tuple[BundledMember, ...]
    weights: tuple[float, ...]
    """Weight of each member; with pools of regimes the mean over the out-of-fold bars."""
    trained_on: TrainedOn
    """Bars the weights were fitted on; every member was trained on other bars."""
    train_metrics: dict[str, float]
    learning_curve: tuple[float, ...] = ()
    by_regime: RegimeWeights | None = None
    """Weights by regime; None for the same weights after every bar."""

    @property
    def model_type(self) -> ModelType:
        return ModelType.ENSEMBLE

    @property
    def parts(self) -> tuple[Model, ...]:
        return tuple(member.model for member in self.members)

    @property
    def bars_needed(self) -> int | None:
        """Largest number of a member, or that of the regime; None if a member's number is unknown."""
        return self._with_regime(_largest([model.bars_needed for model in self.parts]))

    @property
    def bars_by_convictions(self) -> int | None:
        """Largest number of a member for the smoothed and scaled signal, before any position is held."""
        return self._with_regime(
            _largest(
                [
                    model.bars_by_convictions if isinstance(model, OffersConvictions) else model.bars_needed
                    for model in self.parts
                ]
            )
        )

    def _with_regime(self, bars: int | None) -> int | None:
        if self.by_regime is None or bars is None:
            return bars
        return max(bars, self.by_regime.reader.bars_needed)

    def _weights_at(self, bars: Bars) -> Sequence[float] | Floats:
        """Weight of each member, or its weights after each bar."""
        return self.weights if self.by_regime is None else self.by_regime.at(bars)

    def positions(self, bars: Bars) -> Floats:
        bars = self.trained_on.accept(bars)
        total = np.zeros(len(bars))
        for weight, model in zip(self._weights_at(bars), self.parts, strict=True):
            total += weight * model.positions(bars)
        # rounding may bring the sum of the shares above 1
        return np.clip(total, -1.0, 1.0)

    def convictions(self, bars: Bars) -> Floats:
        """Weighted sum of the members' signals before their sizing: a sized ensemble is sized once."""
        bars = self.trained_on.accept(bars)
        total = np.zeros(len(bars))
        for weight, model in zip(self._weights_at(bars), self.parts, strict=True):
            offered = model.convictions(bars) if isinstance(model, OffersConvictions) else None
            total += weight * (model.positions(bars) if offered is None else offered)
        return np.clip(total, -1.0, 1.0)

    def forecast(self, bars: Bars) -> Floats:
        """Weighted mean of the members' forecasts of a bar; NaN if no member with a weight has a forecast."""
        bars = self.trained_on.accept(bars)
        total = np.zeros(len(bars))
        known = np.zeros(len(bars))
        for weight, model in zip(self._weights_at(bars), self.parts, strict=True):
            answers = model.forecast(bars)
            own = np.where(np.isnan(answers), 0.0, weight)
            total += own * np.nan_to_num(answers)
            known += own
        mean = np.full(len(bars), np.nan)
        np.divide(total, known, out=mean, where=known > 0)
        return np.asarray(np.clip(mean, 0.0, 1.0))

    def importances(self) -> dict[str, float]:
        """Weighted mean of the importances of the members with importances."""
        summed = dict[str, float]()
        for weight, model in zip(self.weights, self.parts, strict=True):
            for name, share in model.importances().items():
                summed[name] = summed.get(name, 0.0) + weight * share
        total = sum(summed.values())
        return {name: share / total for name, share in summed.items() if share > 0}

    def save(self, folder: Path) -> None:
        """Write the members' files side by side; each file name begins with the member's number."""
        for number, member in enumerate(self.members):
            for name, content in member.files.items():
                (folder / f"member{number}.{name}").write_bytes(content)
        stored = StoredEnsemble(
            weights=list(self.weights),
            members=[StoredMember(name=each.name, bundle_digest=each.digest) for each in self.members],
            by_regime=self.by_regime,
        )
        # without pools of regimes the file stays readable by earlier releases
        unused = {"by_regime"} if self.by_regime is None else None
        (folder / FILE).write_text(stored.model_dump_json(exclude=unused))


class StoredMember(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    bundle_digest: str


class StoredEnsemble(BaseModel):
    """Weights and members of an ensemble, as stored in the bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    weights: list[Annotated[float, Field(ge=0, le=1)]] = Field(min_length=2)
    members: list[StoredMember]
    by_regime: RegimeWeights | None = None

    @model_validator(mode="after")
    def _one_weight_a_member(self) -> Self:
        for weights in (self.weights, *(self.by_regime.weights if self.by_regime else ())):
            if len(weights) != len(self.members):
                raise ValueError(f"{len(weights)} weights for {len(self.members)} members")
        return self


def with_members(recipe: Recipe, folder: Path) -> Recipe:
    """Recipe of an ensemble with members read from numbered folders; other recipes are returned unchanged.

    Raises:
        BundleCorrupt: a bundle differs from the registered bundle.
    """
    if isinstance(recipe, SizedRecipe):
        return recipe.with_inner(with_members(recipe.inner, folder))
    if not isinstance(recipe, EnsembleRecipe):
        return recipe
    return recipe.with_bundled(
        [
            BundledMember.read(member.name, folder / str(number), member.bundle_digest)
            for number, member in enumerate(recipe.members)
        ]
    )


def with_members_of(recipe: Recipe, model: Model) -> Recipe:
    """Recipe of an ensemble with the members of the model; other recipes are returned unchanged."""
    if isinstance(recipe, SizedRecipe):
        return recipe.with_inner(with_members_of(recipe.inner, unsized_model(model)))
    if isinstance(recipe, EnsembleRecipe) and isinstance(model, EnsembleModel):
        return recipe.with_bundled(model.members)
    return recipe


def load(folder: Path, card: ModelCard) -> EnsembleModel:
    """Ensemble of a verified bundle; the members' bundles are verified once more, by digest."""
    try:
        stored = StoredEnsemble.model_validate_json((folder / FILE).read_bytes())
    except ValidationError as error:
        raise BundleCorrupt(f"{FILE} holds no ensemble: train the model again") from error
    members = tuple(_read_member(folder, number, member) for number, member in enumerate(stored.members))
    weights = tuple(stored.weights)
    return EnsembleModel(members, weights, card.trained_on, card.train_metrics, by_regime=stored.by_regime)


def net_returns(bars: Bars, positions: Floats, costs: MarketCosts) -> Floats:
    """Net return of each member on each bar, as a fraction, starting flat.

    A position of bar t is traded at the open of t + 1 and earns the price move until the open of t + 2, less
    fee and slippage of the traded volume, and the constant costs of holding into t + 2. So the last two bars
    have no return. A long-only market trades positions below 0 as 0.

    Args:
        positions: shape (n_bars, n_members).

    Returns:
        Shape (n_bars - 2, n_members).
    """
    moved = bars.open[2:] / bars.open[1:-1] - 1.0
    positions = np.maximum(positions, 0.0) if costs.long_only else positions
    traded = np.abs(np.diff(positions, axis=0, prepend=0.0))
    rate = (costs.fee_bps + costs.slippage_bps) / 10_000
    held = positions[:-2]
    returns = np.asarray(held * moved[:, None] - traded[:-2] * rate)
    rates = holding_rates(bars, costs.holding)
    if rates is not None:
        returns -= np.maximum(held, 0.0) * rates.long[2:, None]
        returns -= np.maximum(-held, 0.0) * rates.short[2:, None]
    return returns


def sharpe_ratios(returns: Floats) -> Floats:
    """Mean over standard deviation of each column, per bar; 0.0 for a constant column."""
    deviations = returns.std(axis=0)
    ratios = np.zeros(returns.shape[1])
    np.divide(returns.mean(axis=0), deviations, out=ratios, where=deviations > 0)
    return ratios


def best_members(ratios: Floats, best: int) -> Floats:
    """Equal weights, of sum 1, for the members with the highest Sharpe ratios above 0; the first of equals.

    All weights are 0 if no ratio is above 0.

    Args:
        ratios: shape (n_members,).
        best: number of members at most.
    """
    kept = [member for member in np.argsort(-ratios, kind="stable")[:best] if ratios[member] > 0]
    weights = np.zeros(len(ratios))
    if kept:
        weights[kept] = 1.0 / len(kept)
    return weights


def stacked(returns: Floats, ridge: float) -> Floats:
    """Weights >= 0, up to a factor, of the mix of columns with the highest ratio of mean to root mean square.

    All weights are 0 if no mix has a positive mean. A member without trades gets no weight.

    Args:
        returns: net returns, shape (n_rows, n_members).
        ridge: penalty, as a share of each column's mean square.
    """
    from scipy.optimize import nnls

    rows = len(returns)
    sizes = np.sqrt((returns**2).mean(axis=0))
    traded = np.flatnonzero(sizes > 0)
    weights = np.zeros(returns.shape[1])
    if not len(traded):
        return weights
    scaled = returns[:, traded] / sizes[traded]
    penalised = np.vstack([scaled, math.sqrt(ridge * rows) * np.eye(len(traded))])
    solution, _ = nnls(penalised, np.concatenate([np.ones(rows), np.zeros(len(traded))]))
    weights[traded] = solution / sizes[traded]
    return weights


class _SummedProgress:
    """Progress of several fits in sequence, as a single share of the work."""

    def __init__(self, progress: Progress | None, fits: int) -> None:
        self._progress = progress
        self._fits = fits
        self._begun = 0

    def next(self) -> Progress:
        number = self._begun
        self._begun += 1

        def report(done: float) -> None:
            # 1.0 is reported once the weights are known
            if self._progress is not None:
                self._progress(min((number + done) / self._fits, 0.999))

        return report

    def end(self) -> None:
        if self._progress is not None:
            self._progress(1.0)


def _bundled(name: str, model: Model, recipe: Recipe, bars: Bars) -> BundledMember:
    with tempfile.TemporaryDirectory(prefix="clm-") as folder:
        bundle = Path(folder, "bundle")
        digest = save_bundle(model, recipe, bundle, bars)
        return BundledMember(name, digest, model, {path.name: path.read_bytes() for path in bundle.iterdir()})


def _read_member(folder: Path, number: int, member: StoredMember) -> BundledMember:
    with tempfile.TemporaryDirectory(prefix="clm-") as empty:
        for path in folder.glob(f"member{number}.*"):
            Path(empty, path.name.removeprefix(f"member{number}.")).write_bytes(path.read_bytes())
        return BundledMember.read(member.name, Path(empty), member.bundle_digest)


def _largest(numbers: Sequence[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return max(known) if len(known) == len(numbers) else None


def _shares(weights: Floats) -> Floats:
    total = weights.sum()
    return weights / total if total > 0 else np.zeros(len(weights))


def _by_member(metric: str, members: Sequence[BundledMember], values: Floats) -> dict[str, float]:
    """Metrics by member; MLflow allows no @ in the name of a metric."""
    return {
        f"{metric}.{member.name.replace('@', '.')}": float(value)
        for member, value in zip(members, values, strict=True)
    }


def recipe(params: Mapping[str, Any], costs: MarketCosts) -> EnsembleRecipe:
    """Recipe of an ensemble with validated parameters.

    Raises:
        InvalidTrainingParams: a parameter is unknown or out of range.
    """
    return EnsembleRecipe.of(EnsembleParams.parse(params), costs)


KIND = ModelKind(
    recipe=recipe,
    load=load,
    library="scipy",
    max_folds=EXPENSIVE_FOLDS,
    # the members' signals are smoothed already
    sizing=Sizing(smoothing_half_life=0.0),
)
