"""Own features from the request to serving: recorded, required by bundles, refused when they leak."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from clm_core.domain.costs import MarketCosts
from clm_core.domain.errors import FeatureFailed, FeatureMismatch, InvalidTrainingParams, LookAhead
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.training_settings import TrainingPlace, TrainingPodSettings, TrainingSettings
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import JobStatus, ModelType
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.market import own_features
from clm_core.market.bars import Bars
from clm_core.models import catalog, golden
from clm_core.models.bundle import load_bundle, read_card, save_bundle
from clm_core.retraining import jobs, steps, training
from clm_core.retraining.reproduce import reproduce
from clm_core.retraining.training import TrainingSpec
from clm_core.retraining.training_following import TrainingTask
from clm_core.retraining.training_manifest import job_manifest
from clm_core.retraining.training_places import train_in_subprocess
from clm_core.services import Services
from clm_core.settings import Settings
from deployments.fork_server import ENVIRONMENT

FILE = """
import numpy as np
import pandas as pd
from clm_core.market.own_features import feature


@feature(warm_up=20)
def momentum_20(bars):
    "log(close / close 20 bars ago)"
    values = np.full(len(bars), np.nan)
    values[20:] = np.log(bars.close[20:] / bars.close[:-20])
    return values


@feature(warm_up=0, memory=400)
def gap_30(bars):
    "close over its exponential average of 30 bars, minus 1"
    close = pd.Series(bars.close)
    return close / close.ewm(span=30, adjust=False).mean() - 1


@feature(warm_up=0)
def tomorrow(bars):
    "a leak"
    return np.append(bars.close[1:] / bars.close[:-1] - 1, 0.0)
"""
FEATURES = ["momentum_20", "gap_30", "volatility_24"]
PARAMS: dict[ModelType, dict[str, Any]] = {
    ModelType.XGBOOST: {"rounds": 20, "horizon": 6, "threshold": 0.0},
    ModelType.LIGHTGBM: {"rounds": 20, "horizon": 6, "threshold": 0.0},
    ModelType.NHITS: {"steps": 4, "horizon": 6, "hidden_size": 8, "round_trip_bps": 0.0, "shrink": False},
    ModelType.RL_V3: {"bars_played": 2_000, "checks": 1, "fee_bps": 0, "slippage_bps": 0},
}


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    with own_features.use([path]):
        yield path


@pytest.fixture(scope="module")
def bars(services: Services) -> Bars:
    return services.market.bars("EURUSD", "1h", days=90, closed_by=services.clock())


def request_with(features: list[str], **changes: Any) -> RetrainRequest:
    fields: dict[str, Any] = {
        "model_type": ModelType.LIGHTGBM,
        "symbol": "EURUSD",
        "dataset_span_days": 120,
        "training_params": {**PARAMS[ModelType.LIGHTGBM], "features": features},
        "requested_by": "tests",
    }
    return RetrainRequest.model_validate(fields | changes)


def register(services: Services, request: RetrainRequest) -> ModelVersion:
    job = jobs.open_job(services, request)
    with jobs.running(services, job) as lease:
        bars = steps.fetch_bars(services, job)
        return steps.register(services, lease, job, bars, steps.train(services, job, bars))


@pytest.mark.parametrize("model_type", PARAMS)
def test_every_kind_trains_saves_and_loads_with_own_features(
    model_type: ModelType, file: Path, bars: Bars, tmp_path: Path
) -> None:
    params = PARAMS[model_type] | {"features": ",".join(FEATURES)}
    recipe = catalog.recipe(model_type, params, MarketCosts())
    model = recipe.fit(bars, seed=1)
    digest = save_bundle(model, recipe, tmp_path / "bundle", bars)

    loaded = load_bundle(tmp_path / "bundle", digest)
    card = read_card(tmp_path / "bundle")

    assert recipe.describe()["features"] == ["volatility_24", "gap_30", "momentum_20"]
    assert [str(each) for each in card.own_features] == [
        "the feature gap_30 (mine.py)",
        "the feature momentum_20 (mine.py)",
    ]
    assert np.array_equal(loaded.positions(bars), model.positions(bars))
    if model_type is not ModelType.RL_V3:  # a policy learns to trade in more bars than these
        golden.preflight(loaded, tmp_path / "bundle")
    assert model.bars_needed is not None
    assert model.bars_needed > 400 + 255
    assert model.positions(bars[-model.bars_needed :])[-1] == model.positions(bars)[-1]


def test_a_bundle_without_own_features_names_none(bars: Bars, tmp_path: Path) -> None:
    recipe = catalog.recipe(ModelType.LIGHTGBM, {"rounds": 2}, MarketCosts())
    save_bundle(recipe.fit(bars, seed=1), recipe, tmp_path / "bundle", bars)

    assert "own_features" not in json.loads((tmp_path / "bundle" / "model.json").read_text())


def test_a_bundle_is_refused_where_a_feature_is_missing_or_has_another_source(
    file: Path, bars: Bars, tmp_path: Path
) -> None:
    recipe = catalog.recipe(
        ModelType.XGBOOST, PARAMS[ModelType.XGBOOST] | {"features": FEATURES}, MarketCosts()
    )
    save_bundle(recipe.fit(bars, seed=1), recipe, tmp_path / "bundle", bars)

    file.write_text(FILE.replace("span=30", "span=31"))
    with pytest.raises(
        FeatureMismatch, match=r"another source of the feature gap_30 \(mine\.py\).*next retrain"
    ):
        load_bundle(tmp_path / "bundle")
    with (
        own_features.use(()),
        pytest.raises(
            FeatureMismatch,
            match=r"needs the feature gap_30 \(mine\.py\), which is not installed.*CLM_FEATURES__FILES",
        ),
    ):
        load_bundle(tmp_path / "bundle")
    file.write_text(
        FILE + "\n# one more feature changes nothing\n" + FILE.partition("\n\n\n")[2].replace("20", "9")
    )
    file.write_text(FILE.replace('"a leak"', '"no leak"'))
    assert load_bundle(tmp_path / "bundle").model_type is ModelType.XGBOOST


def spec(features: list[str]) -> TrainingSpec:
    return TrainingSpec(
        model_type=ModelType.LIGHTGBM,
        params={**PARAMS[ModelType.LIGHTGBM], "features": features},
        costs=MarketCosts(),
        seed=3,
        seeds=1,
        plan=WalkForwardPlan(folds=2),
    )


def a_task(spec: TrainingSpec, bars: Bars, folder: Path) -> TrainingTask:
    return TrainingTask("job", spec, bars, folder, None)


def ignore(step: str, share: float) -> None:
    pass


def test_a_subprocess_uses_the_same_features(file: Path, bars: Bars, tmp_path: Path) -> None:
    inline = tmp_path / "inline"
    inline.mkdir()
    training.train(spec(FEATURES), bars, inline, ignore)
    train_in_subprocess(a_task(spec(FEATURES), bars, tmp_path / "isolated"), ignore, 600)

    own = training.read(inline, bars)
    other = training.read(tmp_path / "isolated", bars)
    assert other.bundle_digest == own.bundle_digest


def test_a_pod_sees_the_file_of_a_feature_in_use(file: Path, bars: Bars, tmp_path: Path) -> None:
    pod = TrainingPodSettings(image="clm:0.1.0", claim="clm-home", mount_path=tmp_path)
    settings = TrainingSettings(where=TrainingPlace.KUBERNETES, kubernetes=pod)

    def files_of(features: list[str]) -> list[dict[str, Any]]:
        manifest = job_manifest(a_task(spec(features), bars, tmp_path / "work"), settings, "try-1")
        [container] = manifest["spec"]["template"]["spec"]["containers"]
        return [each for each in container["volumeMounts"] if each.get("readOnly")]

    assert files_of(FEATURES) == [
        {"name": "home", "mountPath": str(file), "subPath": "mine.py", "readOnly": True}
    ]
    assert files_of(["volatility_24"]) == []


def test_a_leaking_feature_ends_the_training_before_the_first_fold_with_its_name(
    file: Path, bars: Bars, tmp_path: Path
) -> None:
    begun: list[str] = []
    with pytest.raises(LookAhead, match=r"the feature tomorrow \(mine\.py\) sees the future"):
        train_in_subprocess(
            a_task(spec([*FEATURES, "tomorrow"]), bars, tmp_path / "isolated"),
            lambda step, _: begun.append(step),
            600,
        )
    assert begun == []


def test_the_key_of_results_changes_with_the_source_of_a_feature_in_use(file: Path) -> None:
    before = training.results_key(spec(FEATURES), "data")
    file.write_text(FILE.replace('"a leak"', '"another leak"').replace("[1:] / bars", "[1:] - bars"))
    assert training.results_key(spec(FEATURES), "data") == before
    file.write_text(FILE.replace("span=30", "span=31"))
    assert training.results_key(spec(FEATURES), "data") != before


def test_a_request_for_an_unknown_feature_is_refused_before_a_job_is_made(
    services: Services, file: Path
) -> None:
    with pytest.raises(InvalidTrainingParams, match=r"no feature is called momentum_21.*gap_30.*mine\.py"):
        jobs.new_job(services, request_with(["momentum_21"]))


def test_a_leak_fails_the_job_and_registers_no_version(services: Services, file: Path) -> None:
    versions = len(services.ledger.versions(model_id="lightgbm_eurusd_1h", limit=1000))
    request = request_with(["tomorrow"])
    job = jobs.open_job(services, request)
    with pytest.raises(LookAhead), jobs.running(services, job):
        steps.train(services, job, steps.fetch_bars(services, job))

    failed = services.ledger.job(job.id)
    assert failed.status is JobStatus.FAILED
    assert "the feature tomorrow (mine.py) sees the future" in str(failed.failure_cause)
    assert len(services.ledger.versions(model_id="lightgbm_eurusd_1h", limit=1000)) == versions


def test_a_version_records_its_features_and_is_reproduced_and_a_changed_source_is_named(
    services: Services, file: Path
) -> None:
    version = register(services, request_with(FEATURES))
    digest = own_features.table()["gap_30"].origin.digest

    assert version.environment["feature gap_30"] == f"mine.py {digest[:12]}"
    assert reproduce(services, version).reproduced
    file.write_text(FILE.replace("span=30", "span=31"))
    with pytest.raises(FeatureMismatch, match="gap_30"):
        reproduce(services, version)


def test_pyfunc_takes_the_files_from_the_settings_of_its_process(
    services: Services, file: Path, tmp_path: Path
) -> None:
    version = register(services, request_with(FEATURES, seed=1))
    assert services.registry._fluent
    folder = mlflow.artifacts.download_artifacts(version.model_path, dst_path=str(tmp_path / "files"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CLM_")}
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD, folder],
        env=environment
        | ENVIRONMENT
        | {"MLFLOW_DISABLE_TELEMETRY": "true", "CLM_HOME": str(tmp_path / "home")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "FeatureMismatch: the model needs the feature gap_30 (mine.py)" in loaded.stderr
    assert loaded.stdout.splitlines() == ["without the setting: 1", "loaded"]


LOAD = """
import mlflow.pyfunc, os, sys
if without := os.fork():
    print("without the setting:", os.waitstatus_to_exitcode(os.waitpid(without, 0)[1]), flush=True)
    os.environ["CLM_FEATURES__FILES"] = '["mine.py"]'
mlflow.pyfunc.load_model(sys.argv[1])
print("loaded")
"""
"""Two traders: a fork, which has the modules and not the setting, and its parent."""


def test_settings_take_relative_files_from_the_folder_of_the_settings_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "clm.toml").write_text('[features]\nfiles = ["mine.py", "/elsewhere/other.py"]\n')
    for name in [name for name in os.environ if name.startswith("CLM_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLM_HOME", str(home))

    assert Settings().features.files == (home / "mine.py", Path("/elsewhere/other.py"))
    monkeypatch.setenv("CLM_FEATURES__FILES", '["here.py"]')
    assert Settings().features.files == (tmp_path / "here.py",)


def test_a_feature_that_fails_at_one_bar_fails_the_job_with_the_bar(services: Services, file: Path) -> None:
    file.write_text(
        FILE.replace("return close / close", "close[bars.close > 1.2] = np.nan\n    return close / close")
    )
    job = jobs.open_job(services, request_with(["gap_30"]))
    with (
        pytest.raises(FeatureFailed, match=r"gap_30 \(mine\.py\) gives no value for .*bar"),
        jobs.running(services, job),
    ):
        steps.train(replace(services), job, steps.fetch_bars(services, job))
