"""XGBoost: parameters, trees and training, on a processor or a GPU."""

import ctypes
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from clm_core.domain.costs import Costs
from clm_core.domain.errors import BundleCorrupt
from clm_core.domain.search_space import Between
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Floats
from clm_core.models.contract import Model, ModelCard, Progress
from clm_core.models.kind import ModelKind
from clm_core.models.params import Device, choose_device
from clm_core.models.threads import exclusive_gpu
from clm_core.models.trees.boosting import (
    MAX_BINS,
    OLDER_LEAVES,
    OLDER_PARAMS,
    SIZING,
    Boosted,
    BoostingParams,
    BoostingRecipe,
    Sample,
    load_trees,
)

MAX_ROWS_COPIED = 50_000
"""Most rows of a fit that XGBoost copies before it bins them: the same trees in half the time, while bins of
the rows themselves take a tenth of the memory."""


class XGBoostParams(BoostingParams):
    model_type: ClassVar[ModelType] = ModelType.XGBOOST

    max_depth: Annotated[int, Between(2, 6)] = Field(default=3, ge=1, le=12)
    """Splits between root and leaf; 1..12."""
    device: Device = "auto"
    """Training device: "cpu", "cuda", or "auto" for a GPU where available."""


class XGBoostTrees:
    FILE: ClassVar[str] = "trees.ubj"

    def __init__(self, raw: bytes) -> None:
        import xgboost

        # XGBoost ends the process on some inputs that are not a UBJSON object
        if not raw.startswith(b"{"):
            raise BundleCorrupt(f"{self.FILE} holds no trees of XGBoost: train the model again")
        try:
            # predictions are computed on the processor, also for trees grown on a GPU
            native = {"nthread": 1, "device": "cpu"}
            self._booster: Any = parsed_booster(raw, native)
        except xgboost.core.XGBoostError as error:
            raise BundleCorrupt(f"{self.FILE} cannot be read: train the model again ({error})") from error

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(self._booster.feature_names or ())

    @property
    def rounds(self) -> int:
        return int(self._booster.num_boosted_rounds())

    def answers(self, values: Floats) -> Floats:
        return np.asarray(self._booster.inplace_predict(values), dtype=np.float64)

    def gains(self) -> dict[str, float]:
        return {
            name: float(gain) for name, gain in self._booster.get_score(importance_type="total_gain").items()
        }


def parsed_booster(raw: bytes, native: Mapping[str, Any]) -> Any:
    """Booster of the content of a file, parsed by a single thread.

    XGBoost parses with as many threads as OpenMP has processors, whatever the parameters name, and each of
    the threads then spins for milliseconds in vain. The number set for OpenMP belongs to the thread that sets
    the number: a thread of its own leaves that of the caller as it was.

    Raises:
        XGBoostError: the content is not that of a booster.
    """
    import xgboost

    def parse() -> Any:
        with xgboost.config_context(nthread=1):
            return xgboost.Booster(dict(native), model_file=bytearray(raw))

    with ThreadPoolExecutor(1) as own_thread:
        return own_thread.submit(parse).result()


@dataclass(frozen=True)
class XGBoostRecipe(BoostingRecipe):
    trees = XGBoostTrees
    params: XGBoostParams

    def boost(self, fit: Sample, validation: Sample, seed: int, progress: Progress) -> Boosted:
        import xgboost

        rounds = self.fixed_rounds or self.params.rounds

        class ReportRounds(xgboost.callback.TrainingCallback):
            def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
                progress((epoch + 1) / rounds)
                return False

        device = xgboost_device(self.params.device)
        train, tail = _matrices(fit, validation, device)
        history: dict[str, dict[str, list[float]]] = {}
        metric = "rmse" if self.params.learns_returns else "logloss"
        native = {
            "objective": "reg:squarederror" if self.params.learns_returns else "binary:logistic",
            "eval_metric": metric,
            "tree_method": "hist",
            "device": device,
            "max_bin": MAX_BINS,
            "nthread": 1,
            "seed": seed,
            "learning_rate": self.params.learning_rate,
            "max_depth": self.params.max_depth,
            "min_child_weight": self.params.leaf_weight(len(fit.target)),
            "subsample": self.params.subsample,
            "colsample_bytree": self.params.colsample,
            "reg_lambda": self.params.reg_lambda * self.params.curvature,
        }
        early = xgboost.callback.EarlyStopping(rounds=self.params.early_stopping_rounds, save_best=True)
        stopping = [early] if self.fixed_rounds is None else []
        with exclusive_gpu(device):
            booster = xgboost.train(
                native,
                train,
                num_boost_round=rounds,
                evals=[(tail, "validation")],
                evals_result=history,
                callbacks=[*stopping, ReportRounds()],
                verbose_eval=False,
            )
        # only now: XGBoost would compare the names of the columns twice a round
        booster.feature_names = list(self.params.features)
        used_gpu = {"gpu": float(device == "cuda")}
        return Boosted(bytes(booster.save_raw("ubj")), history["validation"][metric], used_gpu)


def recipe(params: Mapping[str, Any], costs: Costs) -> XGBoostRecipe:
    """Recipe with validated parameters.

    Raises:
        InvalidTrainingParams: a parameter is unknown or out of range, or no GPU is available for device=cuda.
    """
    parsed = XGBoostParams.parse(params).with_costs(costs)
    if parsed.device == "cuda":
        xgboost_device(parsed.device)
    return XGBoostRecipe(parsed)


def load(folder: Path, card: ModelCard) -> Model:
    return load_trees(folder, card, XGBoostParams, XGBoostTrees)


def import_without_sklearn() -> None:
    """Import XGBoost without the interface to scikit-learn: 0.7 s of processor time, a tenth of a retrain.

    For a process that runs no code of others: XGBRegressor and its kin refuse to work afterwards.
    """
    if sys.modules.keys() & {"xgboost", "sklearn"}:
        return
    # an import of a module that is None fails, and XGBoost goes on without
    sys.modules["sklearn"] = None  # type: ignore[assignment]
    try:
        import xgboost  # noqa: F401
    finally:
        del sys.modules["sklearn"]


def xgboost_device(requested: Device) -> str:
    """Device to train on: "cpu" or "cuda".

    Raises:
        InvalidTrainingParams: a GPU is requested, and none is found or XGBoost was built without CUDA.
    """
    import xgboost

    available = bool(xgboost.build_info()["USE_CUDA"]) and count_gpus() > 0
    return choose_device(requested, available, "XGBoost")


def count_gpus() -> int:
    """Number of GPUs according to NVIDIA's driver; the base installation has no torch to query."""
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    return 0 if failed else count.value


def _matrices(fit: Sample, validation: Sample, device: str) -> tuple[Any, Any]:
    """Training and validation data in XGBoost's format."""
    import xgboost

    # on a GPU the library bins the rows itself
    if device == "cuda" or len(fit.target) <= MAX_ROWS_COPIED:
        train, tail = (
            xgboost.DMatrix(sample.values, sample.target, weight=sample.weight, nthread=1)
            for sample in (fit, validation)
        )
        return train, tail
    train = xgboost.QuantileDMatrix(fit.values, fit.target, weight=fit.weight, max_bin=MAX_BINS, nthread=1)
    tail = xgboost.QuantileDMatrix(
        validation.values, validation.target, max_bin=MAX_BINS, nthread=1, ref=train
    )
    return train, tail


KIND = ModelKind(
    recipe=recipe,
    load=load,
    library="xgboost",
    search_space=XGBoostParams.search_space,
    retrain_every=timedelta(hours=168),
    sizing=SIZING,
    older_params=(OLDER_PARAMS, OLDER_LEAVES),
    pools=True,
    weighs_regimes=True,
)
