"""Gradient-boosted trees: XGBoost and LightGBM behind one recipe.

The trees give p, the probability that the price rises over the next `horizon` bars. The position follows
from p by one rule:

- signal: sign(p - 1/2) where |p - 1/2| >= `threshold`, else 0; also 0 in rows without a full look-back;
  with `long_only`, -1 becomes 0.
- position: the mean of the last `horizon` signals of the unbroken stretch, signals before its start
  counting as 0. Each signal is so held for the horizon it was trained on: holdings overlap, turnover is
  low, and memory is finite: the last LOOK_BACK + horizon bars give the same position as the whole history
  (up to the tolerance the features state for theirs).
"""

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from clm_core.domain.errors import (
    BundleCorrupt,
    FeatureMismatch,
    NotEnoughBars,
)
from clm_core.domain.search_space import Between
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars, Floats
from clm_core.market.features import FEATURES, compute_features
from clm_core.market.labels import direction
from clm_core.market.splits import purged_tail
from clm_core.models.contract import ModelCard, Progress, TrainedOn
from clm_core.models.params import Device, FeatureNames, TrainingParams, choose_device, require_features
from clm_core.models.threads import exclusive_gpu

MIN_ROWS = 200
"""Fewest labelled rows to fit on, and to stop early on a quarter of it: below, trees learn the noise."""
MAX_BINS = 63
"""Histogram bins a feature: finer splits than a 63rd of the rows say nothing about noisy returns."""


class BoostingParams(TrainingParams):
    """Training parameters both libraries share."""

    horizon: Annotated[int, Between(6, 72, log=True)] = Field(default=24, ge=1, le=500)
    """Bars over which the price is predicted and each signal is held; 1..500."""
    threshold: Annotated[float, Between(0.0, 0.06)] = Field(default=0.02, ge=0, lt=0.5)
    """Distance of the probability from 1/2 from which a signal is given; 0..0.5."""
    long_only: bool = False
    """Whether falling prices are sat out instead of sold short."""
    features: FeatureNames = Field(default_factory=lambda: tuple(FEATURES), min_length=1)
    """Names of the features used (as text: separated by commas); default all."""
    validation_fraction: float = Field(default=0.2, gt=0, le=0.5)
    """Share of the labelled rows, the newest, that decides when boosting stops; 0..0.5."""
    rounds: int = Field(default=500, ge=1, le=10_000)
    """Most trees; 1..10,000."""
    early_stopping_rounds: int = Field(default=100, ge=1, le=10_000)
    """Trees without a better validation loss after which boosting stops; 1..10,000."""
    learning_rate: Annotated[float, Between(0.005, 0.1, log=True)] = Field(default=0.02, gt=0, le=1)
    """Share of each tree's answer that is added; 0..1."""
    min_child_weight: Annotated[float, Between(5.0, 200.0, log=True)] = Field(default=50.0, ge=0)
    """Least sum of hessians in a leaf; a row weighs at most 1/4, so 50 asks for 200 rows."""
    subsample: Annotated[float, Between(0.3, 1.0)] = Field(default=0.5, gt=0, le=1)
    """Share of the rows each tree sees; 0..1."""
    colsample: Annotated[float, Between(0.3, 1.0)] = Field(default=0.5, gt=0, le=1)
    """Share of the features each tree sees; 0..1."""
    reg_lambda: Annotated[float, Between(0.1, 100.0, log=True)] = Field(default=10.0, ge=0)
    """L2 penalty on leaf values, in units of summed hessians."""


class XGBoostParams(BoostingParams):
    model_type: ClassVar[ModelType] = ModelType.XGBOOST

    max_depth: Annotated[int, Between(2, 6)] = Field(default=3, ge=1, le=12)
    """Splits between root and leaf; 1..12."""
    device: Device = "auto"
    """Where it is trained: "cpu", "cuda", or "auto", a GPU where there is one."""


class LightGBMParams(BoostingParams):
    model_type: ClassVar[ModelType] = ModelType.LIGHTGBM

    num_leaves: Annotated[int, Between(4, 64, log=True)] = Field(default=8, ge=2, le=1024)
    """Leaves of a tree; 2..1024."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Labelled rows to learn from."""

    values: Floats
    """Features, shape (n_rows, n_features)."""
    rises: Floats
    """1.0 where the price rises over the horizon, else 0.0, shape (n_rows,)."""


class Trees(Protocol):
    """Parsed trees of either library."""

    @property
    def features(self) -> tuple[str, ...]: ...

    @property
    def rounds(self) -> int: ...

    def probability(self, values: Floats) -> Floats: ...

    def gains(self) -> dict[str, float]: ...


class XGBoostTrees:
    FILE = "trees.ubj"

    def __init__(self, raw: bytes) -> None:
        import xgboost

        # to some bytes that are no UBJSON object XGBoost answers by ending the process
        if not raw.startswith(b"{"):
            raise BundleCorrupt(f"{self.FILE} holds no trees of XGBoost: train the model again")
        try:
            # answers are computed on the processor, wherever the trees have grown
            native = {"nthread": 1, "device": "cpu"}
            self._booster: Any = xgboost.Booster(native, model_file=bytearray(raw))
        except xgboost.core.XGBoostError as error:
            raise BundleCorrupt(f"{self.FILE} cannot be read: train the model again ({error})") from error

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(self._booster.feature_names or ())

    @property
    def rounds(self) -> int:
        return int(self._booster.num_boosted_rounds())

    def probability(self, values: Floats) -> Floats:
        return np.asarray(self._booster.inplace_predict(values), dtype=np.float64)

    def gains(self) -> dict[str, float]:
        return {
            name: float(gain) for name, gain in self._booster.get_score(importance_type="total_gain").items()
        }


class LightGBMTrees:
    FILE = "trees.txt"

    def __init__(self, raw: bytes) -> None:
        import lightgbm

        if not raw.startswith(b"tree\n"):
            raise BundleCorrupt(f"{self.FILE} holds no trees of LightGBM: train the model again")
        try:
            self._booster: Any = lightgbm.Booster(model_str=raw.decode())
        except (lightgbm.basic.LightGBMError, UnicodeDecodeError) as error:
            raise BundleCorrupt(f"{self.FILE} cannot be read: train the model again ({error})") from error

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(self._booster.feature_name())

    @property
    def rounds(self) -> int:
        return int(self._booster.num_trees())

    def probability(self, values: Floats) -> Floats:
        return np.asarray(self._booster.predict(values, num_threads=1), dtype=np.float64)

    def gains(self) -> dict[str, float]:
        gains = self._booster.feature_importance(importance_type="gain")
        return dict(zip(self.features, gains.tolist(), strict=True))


TREES: dict[ModelType, type[XGBoostTrees] | type[LightGBMTrees]] = {
    ModelType.XGBOOST: XGBoostTrees,
    ModelType.LIGHTGBM: LightGBMTrees,
}


@dataclass(frozen=True, eq=False)
class BoostedModel:
    """A fitted model of either library; see the module's docstring for its positions."""

    params: BoostingParams
    trained_on: TrainedOn
    train_metrics: dict[str, float]
    raw: bytes
    """The trees as the library writes them: the file in the bundle."""
    trees: Trees
    learning_curve: tuple[float, ...] = ()

    @property
    def model_type(self) -> ModelType:
        return self.params.model_type

    def positions(self, bars: Bars) -> Floats:
        return held(self._signals(self.forecast(bars)), bars, self.params.horizon)

    def forecast(self, bars: Bars) -> Floats:
        self.trained_on.require_same_series(bars)
        table = compute_features(bars, self.params.features)
        probability = np.full(len(bars), np.nan)
        if table.complete.any():
            probability[table.complete] = self.trees.probability(table.values[table.complete])
        return probability

    def importances(self) -> dict[str, float]:
        gains = self.trees.gains()
        total = sum(gains.values())
        return {name: gain / total for name, gain in gains.items() if gain > 0}

    def save(self, folder: Path) -> None:
        (folder / TREES[self.model_type].FILE).write_bytes(self.raw)

    def _signals(self, probability: Floats) -> NDArray[np.int64]:
        edge = probability - 0.5
        # NaN compares false: a row without a forecast gives no signal
        signals = np.where(np.abs(edge) >= self.params.threshold, np.sign(edge), 0.0).astype(np.int64)
        return np.maximum(signals, 0) if self.params.long_only else signals


def held(signals: NDArray[np.int64], bars: Bars, horizon: int) -> Floats:
    """Mean of the last `horizon` signals within each unbroken stretch, shape (n_bars,), in [-1, 1].

    Sums are of whole numbers, so a position does not depend on how much history came before it.
    """
    positions = np.zeros(len(signals))
    for rows in bars.stretches():
        total = np.cumsum(signals[rows])
        total[horizon:] -= total[:-horizon].copy()
        positions[rows] = total / horizon
    return positions


@dataclass(frozen=True)
class BoostingRecipe:
    params: XGBoostParams | LightGBMParams

    @property
    def model_type(self) -> ModelType:
        return self.params.model_type

    def describe(self) -> dict[str, Any]:
        return self.params.model_dump(mode="json")

    def fit(self, bars: Bars, seed: int, progress: Progress | None = None) -> BoostedModel:
        """Boost on the older rows until the newest, purged `validation_fraction` of them stops improving.

        Measures of itself: rows and log loss of both parts, validation accuracy, and the validation log
        loss of always answering with the fitted rows' share of rises, which useful trees stay below; of
        XGBoost also whether a GPU was used.
        """
        fit, validation = _samples(bars, self.params)
        report = progress or (lambda done: None)
        grown = _boost(self.params, fit, validation, seed, report)
        trees = TREES[self.model_type](grown.raw)
        report(1.0)
        measured = _metrics(trees, fit, validation) | grown.measured
        return BoostedModel(
            self.params, TrainedOn.of(bars, seed), measured, grown.raw, trees, tuple(grown.losses)
        )


def load(folder: Path, card: ModelCard) -> BoostedModel:
    """The model of a verified bundle.

    Raises:
        FeatureMismatch: its trees were fitted on features that this release does not compute.
    """
    require_features(card.params["features"])
    params = (XGBoostParams if card.model_type is ModelType.XGBOOST else LightGBMParams).parse(card.params)
    trees_type = TREES[card.model_type]
    raw = (folder / trees_type.FILE).read_bytes()
    trees = trees_type(raw)
    if trees.features != params.features:
        raise FeatureMismatch(
            f"the trees were fitted on {', '.join(trees.features)}, in this order, but the model's card "
            f"names {', '.join(params.features)}: retrain the model"
        )
    return BoostedModel(params, card.trained_on, card.train_metrics, raw, trees)


def _samples(bars: Bars, params: BoostingParams) -> tuple[Sample, Sample]:
    """Rows to fit on and, purged by the end of their labels, newer rows to stop early on."""
    table = compute_features(bars, params.features)
    labels = direction(bars, params.horizon)
    label_end = np.where(table.complete, labels.end, -1)
    tail = purged_tail(label_end, params.validation_fraction, embargo=0)
    fit, validation = tail.fit, tail.validation
    if len(fit) < MIN_ROWS or len(validation) < MIN_ROWS // 4:
        raise NotEnoughBars(
            f"{bars.symbol} {bars.timeframe}: {len(bars)} bars leave {len(fit)} rows to fit on and "
            f"{len(validation)} to validate on; {MIN_ROWS} and {MIN_ROWS // 4} are needed. "
            "Give more days of bars, a shorter horizon or fewer folds"
        )
    if len(np.unique(labels.values[fit])) < 2:
        raise NotEnoughBars(
            f"{bars.symbol} {bars.timeframe}: every row to fit on has the same label, so there is nothing "
            "to tell apart. Give more days of bars or a shorter horizon"
        )
    values = table.values
    return Sample(values[fit], labels.values[fit]), Sample(values[validation], labels.values[validation])


class Grown(NamedTuple):
    raw: bytes
    """The trees as the library writes them."""
    losses: list[float]
    """Validation log loss after each of the rounds tried."""
    measured: dict[str, float]
    """What only the library could tell."""


def _boost(params: BoostingParams, fit: Sample, validation: Sample, seed: int, progress: Progress) -> Grown:
    # the libraries hold their seeds in 31 bits
    native_seed = seed % 2**31
    if isinstance(params, XGBoostParams):
        return _boost_xgboost(params, fit, validation, native_seed, progress)
    assert isinstance(params, LightGBMParams)
    return _boost_lightgbm(params, fit, validation, native_seed, progress)


def _boost_xgboost(
    params: XGBoostParams, fit: Sample, validation: Sample, seed: int, progress: Progress
) -> Grown:
    import xgboost

    class Report(xgboost.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            progress((epoch + 1) / params.rounds)
            return False

    names, device = list(params.features), found_device(params.device)
    train, tail = _matrices(names, fit, validation, device)
    history: dict[str, dict[str, list[float]]] = {}
    native = {
        "objective": "binary:logistic",
        "eval_metric": "logloss",
        "tree_method": "hist",
        "device": device,
        "max_bin": MAX_BINS,
        "nthread": 1,
        "seed": seed,
        "learning_rate": params.learning_rate,
        "max_depth": params.max_depth,
        "min_child_weight": params.min_child_weight,
        "subsample": params.subsample,
        "colsample_bytree": params.colsample,
        "reg_lambda": params.reg_lambda,
    }
    with exclusive_gpu(device):
        booster = xgboost.train(
            native,
            train,
            num_boost_round=params.rounds,
            evals=[(tail, "validation")],
            evals_result=history,
            callbacks=[
                xgboost.callback.EarlyStopping(rounds=params.early_stopping_rounds, save_best=True),
                Report(),
            ],
            verbose_eval=False,
        )
    used_gpu = {"gpu": float(device == "cuda")}
    return Grown(bytes(booster.save_raw("ubj")), history["validation"]["logloss"], used_gpu)


def _boost_lightgbm(
    params: LightGBMParams, fit: Sample, validation: Sample, seed: int, progress: Progress
) -> Grown:
    import lightgbm

    def report(state: Any) -> None:
        progress((state.iteration + 1) / params.rounds)

    native = {
        "objective": "binary",
        "metric": "binary_logloss",
        "max_bin": MAX_BINS,
        "num_threads": 1,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
        "seed": seed,
        "learning_rate": params.learning_rate,
        "num_leaves": params.num_leaves,
        "min_sum_hessian_in_leaf": params.min_child_weight,
        # the summed hessian alone decides, as in XGBoost
        "min_data_in_leaf": 1,
        "bagging_fraction": params.subsample,
        "bagging_freq": 1,
        "feature_fraction": params.colsample,
        "lambda_l2": params.reg_lambda,
    }
    train = lightgbm.Dataset(fit.values, fit.rises, feature_name=list(params.features), params=native)
    history: dict[str, dict[str, list[float]]] = {}
    booster = lightgbm.train(
        native,
        train,
        num_boost_round=params.rounds,
        valid_sets=[lightgbm.Dataset(validation.values, validation.rises, reference=train, params=native)],
        valid_names=["validation"],
        callbacks=[
            lightgbm.early_stopping(params.early_stopping_rounds, verbose=False),
            lightgbm.record_evaluation(history),
            report,
        ],
    )
    text: str = booster.model_to_string(num_iteration=booster.best_iteration)
    return Grown(text.encode(), history["validation"]["binary_logloss"], {})


def _matrices(names: list[str], fit: Sample, validation: Sample, device: str) -> tuple[Any, Any]:
    """What is fitted on, and what decides when to stop; on a GPU the library bins the rows itself."""
    import xgboost

    if device == "cuda":
        train, tail = (
            xgboost.DMatrix(sample.values, sample.rises, feature_names=names, nthread=1)
            for sample in (fit, validation)
        )
        return train, tail
    train = xgboost.QuantileDMatrix(fit.values, fit.rises, feature_names=names, max_bin=MAX_BINS, nthread=1)
    tail = xgboost.QuantileDMatrix(
        validation.values, validation.rises, feature_names=names, max_bin=MAX_BINS, nthread=1, ref=train
    )
    return train, tail


def found_device(wanted: Device) -> str:
    """
    Raises:
        InvalidTrainingParams: a GPU is asked for, and there is none or XGBoost was built without.
    """
    import xgboost

    there = bool(xgboost.build_info()["USE_CUDA"]) and _gpus() > 0
    return choose_device(wanted, there, "XGBoost")


def _gpus() -> int:
    """As NVIDIA's driver counts them; the base install has no torch to ask."""
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    return 0 if failed else count.value


def _metrics(trees: Trees, fit: Sample, validation: Sample) -> dict[str, float]:
    fitted, unseen = trees.probability(fit.values), trees.probability(validation.values)
    constant = np.full(len(unseen), fit.rises.mean())
    return {
        "fit_rows": float(len(fitted)),
        "validation_rows": float(len(unseen)),
        "rounds": float(trees.rounds),
        "fit_log_loss": _log_loss(fitted, fit.rises),
        "validation_log_loss": _log_loss(unseen, validation.rises),
        "validation_log_loss_of_constant": _log_loss(constant, validation.rises),
        "validation_accuracy": float(np.mean((unseen > 0.5) == (validation.rises > 0.5))),
    }


def _log_loss(probability: Floats, rises: Floats) -> float:
    """Mean of -log of the probability given to what happened; 0.693 is a coin's."""
    return float(-np.mean(np.log(np.where(rises > 0.5, probability, 1 - probability))))
