"""Ensembles of registered versions, on a real ledger and a real MLflow."""

import json
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from jobs import end_all_jobs
from records import a_job, a_version
from typer.testing import CliRunner

from clm_core.cli.app import app
from clm_core.domain.errors import InvalidTrainingParams, NotFound
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.training_settings import TrainingPlace
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.models.ensemble import EnsembleModel
from clm_core.models.sizing import bars_per_year, size_positions
from clm_core.retraining import jobs, steps
from clm_core.retraining.ensembles import member_of
from clm_core.retraining.reproduce import reproduce
from clm_core.services import Services
from clm_core.serving import load
from clm_core.triggers import dispatch, inbox

TREES = {"rounds": 3, "threshold": 0.0, "learning_rate": 0.2, "min_child_weight": 1}
PREDICT = """
import sys
from datetime import UTC, datetime
import mlflow
from clm_core.market.sources import MarketData
from pathlib import Path
mlflow.set_tracking_uri(sys.argv[2])
served = mlflow.pyfunc.load_model(sys.argv[3])
bars = MarketData(Path(sys.argv[1])).bars("EURUSD", "1h", days=240, closed_by=datetime.now(UTC))
frame = bars.to_frame().reset_index(names="timestamp")
print(served.predict(frame)["position"].abs().sum())
"""


@pytest.fixture(scope="module")
def quick(services: Services) -> Services:
    changed = {
        "walk_forward": WalkForwardPlan(folds=2),
        "training": services.settings.training.model_copy(update={"where": TrainingPlace.INLINE}),
    }
    return replace(services, settings=services.settings.model_copy(update=changed))


def request_for(model_type: str, **changes: Any) -> RetrainRequest:
    values = {"symbol": "EURUSD", "dataset_span_days": 240, "requested_by": "tests", "seed": 11}
    return RetrainRequest(model_type=model_type, **values | changes)


def retrain(services: Services, request: RetrainRequest) -> ModelVersion:
    job = jobs.open_job(services, request)
    with jobs.running(services, job) as lease:
        bars = steps.fetch_bars(services, job)
        trained = steps.train(services, job, bars)
        version = steps.register(services, lease, job, bars, trained)
        services.ledger.set_version_status(
            version.model_id, version.version, ModelStatus.CANDIDATE, services.clock(), lease
        )
    return services.ledger.version(version.model_id, version.version)


def name(version: ModelVersion) -> str:
    return f"{version.model_id}@{version.version}"


@pytest.fixture(scope="module")
def trees(quick: Services) -> ModelVersion:
    return retrain(quick, request_for("lightgbm", training_params=TREES))


@pytest.fixture(scope="module")
def ridge(quick: Services) -> ModelVersion:
    return retrain(quick, request_for("other", plugin="ridge", training_params={"threshold": 0.0}))


@pytest.fixture(scope="module")
def ensemble(quick: Services, trees: ModelVersion, ridge: ModelVersion) -> ModelVersion:
    params = {"members": f"{name(trees)},{name(ridge)}", "weights": "1,3", "folds": 2}
    return retrain(quick, request_for("ensemble", training_params=params))


def test_an_ensemble_serves_its_member_versions_by_weight(
    quick: Services, ensemble: ModelVersion, trees: ModelVersion, ridge: ModelVersion
) -> None:
    served = load("ensemble_eurusd_1h", ensemble.version, registry=quick.registry, ledger=quick.ledger)
    assert isinstance(served.model.inner, EnsembleModel)
    assert [part.digest for part in served.model.inner.members] == [trees.bundle_digest, ridge.bundle_digest]
    bars = quick.market.bars("EURUSD", "1h", days=240, closed_by=quick.clock())
    own = [
        quick.registry.load(each.model_path, each.bundle_digest).positions(bars) for each in (trees, ridge)
    ]
    assert served.model.inner.positions(bars) == pytest.approx(0.25 * own[0] + 0.75 * own[1])


def test_an_ensemble_of_sized_members_is_sized_once(
    quick: Services, ensemble: ModelVersion, trees: ModelVersion, ridge: ModelVersion
) -> None:
    model = quick.registry.load(ensemble.model_path, ensemble.bundle_digest)
    bars = quick.market.bars("EURUSD", "1h", days=240, closed_by=quick.clock())
    members = [quick.registry.load(each.model_path, each.bundle_digest) for each in (trees, ridge)]
    signal = 0.25 * members[0].convictions(bars) + 0.75 * members[1].convictions(bars)
    expected = size_positions(
        bars, np.clip(signal, -1, 1), model.sizing, periods_per_year=bars_per_year(model.trained_on)
    )
    assert np.array_equal(model.positions(bars), expected)
    unsized = 0.25 * members[0].inner.positions(bars) + 0.75 * members[1].inner.positions(bars)
    assert not np.array_equal(signal, unsized)


def test_job_and_version_of_an_ensemble_name_the_member_versions(
    quick: Services, ensemble: ModelVersion, trees: ModelVersion
) -> None:
    job = quick.ledger.job(ensemble.training_job_id)
    for params in (job.training_params, ensemble.params):
        assert params["members"][0]["version"] == trees.version
        assert params["members"][0]["params"] == trees.params
    assert ensemble.environment.keys() >= {"lightgbm", "scikit-learn", "clm-ridge"}


def test_clm_show_names_the_members_and_their_weights(
    quick: Services, ensemble: ModelVersion, trees: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLM_HOME", str(quick.settings.home))
    result = CliRunner().invoke(app, ["show", name(ensemble)])
    assert f"{name(trees)}, weight 0.250" in result.stdout


def test_an_ensemble_is_reproduced_with_the_stored_members(quick: Services, ensemble: ModelVersion) -> None:
    reproduction = reproduce(quick, ensemble)
    assert (reproduction.reproduced, reproduction.differences) == (True, ())


def test_mlflow_serves_an_ensemble_in_another_process(quick: Services, ensemble: ModelVersion) -> None:
    arguments = (quick.settings.home, quick.database.url("mlflow", driver="psycopg"), ensemble.model_path)
    ran = subprocess.run(
        [sys.executable, "-c", PREDICT, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout) > 1


@pytest.mark.parametrize(
    ("members", "market", "problem"),
    [
        ("{trees},{ridge}", "BTCUSD", "is a model of EURUSD 1h, not of BTCUSD 1h"),
        ("{trees},{ensemble}", "EURUSD", "is an ensemble: name the members instead"),
        ("{trees},{trees}", "EURUSD", "a version is named twice"),
    ],
    ids=["another market", "nested", "twice"],
)
def test_members_that_cannot_be_combined_are_refused_when_the_job_is_opened(
    quick: Services,
    trees: ModelVersion,
    ridge: ModelVersion,
    ensemble: ModelVersion,
    members: str,
    market: str,
    problem: str,
) -> None:
    names = members.format(trees=name(trees), ridge=name(ridge), ensemble=name(ensemble))
    with pytest.raises(InvalidTrainingParams, match=problem):
        jobs.new_job(quick, request_for("ensemble", symbol=market, training_params={"members": names}))


@pytest.mark.parametrize("label", ["production", "v20200101_000000"])
def test_a_member_that_does_not_exist_is_refused(quick: Services, ridge: ModelVersion, label: str) -> None:
    params = {"members": f"{name(ridge)},patchtst_eurusd_1h@{label}"}
    with pytest.raises(NotFound, match="patchtst_eurusd_1h"):
        jobs.new_job(quick, request_for("ensemble", training_params=params))


def test_a_failed_version_is_a_member_only_with_allow_failed(
    quick: Services, ridge: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = jobs.open_job(quick, request_for("lightgbm", training_params=TREES | {"rounds": 2}))
    lease = quick.ledger.start_job(job.id, "tests", quick.clock(), timedelta(minutes=1))
    failed = quick.ledger.add_version(
        ridge.model_copy(
            update={
                "model_id": job.model_id,
                "version": "v20240101_000000",
                "model_type": job.model_type,
                "plugin": None,
                "training_job_id": job.id,
                "status": ModelStatus.TRAINING,
                "params": TREES,
            }
        ),
        lease,
    )
    params: dict[str, Any] = {"members": f"{name(failed)},{name(ridge)}"}
    with pytest.raises(InvalidTrainingParams, match="is not judged yet"):
        jobs.new_job(quick, request_for("ensemble", training_params=params))
    quick.ledger.fail_job(lease, "tests", quick.clock())
    refusal = "failed its gate: choose another version, or set"
    with pytest.raises(InvalidTrainingParams, match=refusal):
        jobs.new_job(quick, request_for("ensemble", training_params=params))
    # an address without a server: the command checks the members in the ledger before it needs the server
    monkeypatch.setenv("CLM_HOME", str(quick.settings.home))
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    typed = ["--model", "ensemble", "--symbol", "EUR/USD", "--param", f"members={params['members']}"]
    with pytest.raises(InvalidTrainingParams, match=refusal):
        CliRunner().invoke(app, ["retrain", *typed], catch_exceptions=False)
    allowed = request_for("ensemble", training_params=params | {"allow_failed": "true"})
    assert jobs.new_job(quick, allowed).training_params["members"][0]["version"] == failed.version


@pytest.mark.parametrize(
    ("kind", "device"),
    [({"model_type": "nhits"}, "auto"), ({"model_type": "other", "plugin": "ridge"}, "cuda")],
    ids=["built-in model", "plug-in"],
)
def test_a_built_in_member_trained_on_a_gpu_is_fitted_again_without_a_gpu(
    kind: dict[str, Any], device: str
) -> None:
    version = a_version(a_job(**kind), plugin=kind.get("plugin"), params={"device": "cuda", "horizon": 6})
    assert member_of(version, "nhits_btcusd_1h@production").params == {"device": device, "horizon": 6}


def test_members_of_an_earlier_job_are_resolved_again(quick: Services, ensemble: ModelVersion) -> None:
    before = quick.ledger.job(ensemble.training_job_id).training_params
    forged = json.loads(json.dumps(before))
    forged["members"][0]["bundle_digest"] = "f" * 64
    again = jobs.new_job(quick, request_for("ensemble", training_params=forged))
    assert again.training_params == before


def test_a_message_without_members_takes_the_members_of_the_newest_version(
    quick: Services, ensemble: ModelVersion
) -> None:
    data = {"symbol": "EURUSD", "model_type": "ensemble", "detector": "psi"}
    body = json.dumps({"type": "model.drift_detected", "data": data}).encode()
    inbox.receive(quick, "tests", "ensemble", body, quick.clock())
    dispatch.answer_messages(quick)
    [answer] = quick.ledger.triggers.answers(message=("tests", "ensemble"))
    assert answer.job_id is not None
    before = quick.ledger.job(ensemble.training_job_id)
    assert quick.ledger.job(answer.job_id).training_params == before.training_params
    end_all_jobs(quick)


def test_an_ensemble_survives_the_deletion_of_its_members(
    quick: Services, ensemble: ModelVersion, trees: ModelVersion
) -> None:
    """Last in the file, because the test deletes a member from MLflow."""
    from mlflow import MlflowClient

    client = MlflowClient(quick.database.url("mlflow", driver="psycopg"))
    client.delete_model_version(trees.model_id, str(trees.mlflow_version))
    served = load("ensemble_eurusd_1h", ensemble.version, registry=quick.registry, ledger=quick.ledger)
    assert served.positions(quick.market.bars("EURUSD", "1h", days=240, closed_by=quick.clock())).any()
    assert reproduce(quick, ensemble).reproduced
