"""Every kind of model through the same flow: retrained, registered, judged, drawn, and loaded elsewhere."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from jobs import end_all_jobs
from kind_cases import CASES

from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.kinds import Kind
from clm_core.domain.vocabulary import JobStatus, ModelStatus, ModelType
from clm_core.domain.walk_forward import WalkForwardPlan
from clm_core.market.bars import FIELDS
from clm_core.models import catalog, golden
from clm_core.models.bundle import load_bundle
from clm_core.platform.prefect_runs import load_flow
from clm_core.retraining.results import RetrainResult
from clm_core.services import Services, open_services

TREES = (ModelType.XGBOOST, ModelType.LIGHTGBM)
"""Retrained through the same flow by `test_retrain`."""
PARAMS: dict[Kind, dict[str, Any]] = {
    Kind(each): CASES[each].quick for each in catalog.kinds() if each not in (*TREES, ModelType.ENSEMBLE)
} | {Kind(ModelType.OTHER, "ridge"): {"horizon": 6, "threshold": 0.0}}
LOADED = """
import json, sys
import mlflow
import pandas as pd

answers = {}
for uri, rows in json.load(sys.stdin).items():
    bars = pd.DataFrame(rows)
    bars["timestamp"] = pd.to_datetime(bars.pop("time"), utc=True)
    served = mlflow.pyfunc.load_model(uri).predict(bars)
    answers[uri] = {name: served[name].tolist() for name in ("position", "forecast")}
print(json.dumps(answers))
"""
"""What a trader runs who has MLflow alone."""


@pytest.fixture(scope="module")
def clm(services: Services, prefect_url: str) -> Iterator[Services]:
    """Two folds and one seed: what is asked here is whether it runs through, not what comes of it."""
    plan = WalkForwardPlan(folds=2, seeds=1)
    with open_services(services.settings.model_copy(update={"walk_forward": plan})) as opened:
        end_all_jobs(opened)
        yield opened


@pytest.fixture(scope="module")
def outcomes(clm: Services) -> dict[Kind, RetrainResult]:
    found = {kind: retrained(kind, params) for kind, params in PARAMS.items()}
    members = [found[Kind(ModelType.NHITS)].version, found[Kind(ModelType.RL_V3)].version]
    params = {
        "members": ",".join(f"{each.model_id}@{each.version}" for each in members),
        **CASES[ModelType.ENSEMBLE].quick,
    }
    return found | {Kind(ModelType.ENSEMBLE): retrained(Kind(ModelType.ENSEMBLE), params)}


def retrained(kind: Kind, params: dict[str, Any]) -> RetrainResult:
    request = RetrainRequest(
        model_type=kind.model_type,
        plugin=kind.plugin,
        symbol="EURUSD",
        dataset_span_days=120,
        training_params=params,
        requested_by="tests",
    )
    outcome: RetrainResult = load_flow("flows.retrain.retrain")(request)
    return outcome


@pytest.fixture(scope="module")
def recorded(
    clm: Services, outcomes: dict[Kind, RetrainResult]
) -> dict[str, tuple[golden.GoldenRows, float]]:
    """Golden rows of each version and the tolerance of its kind, by what MLflow calls the version."""
    found = {}
    for outcome in outcomes.values():
        version = outcome.version
        with clm.registry.fetched(version.model_path) as bundle:
            rows = golden.GoldenRows.model_validate_json((bundle / golden.FILE).read_bytes())
            found[version.model_path] = rows, catalog.tolerance(load_bundle(bundle, version.bundle_digest))
    return found


def test_each_ends_in_a_completed_job_a_judged_version_and_a_report(
    clm: Services, outcomes: dict[Kind, RetrainResult]
) -> None:
    for kind, outcome in outcomes.items():
        version = clm.ledger.version(outcome.version.model_id, outcome.version.version)
        assert version.kind == kind
        assert clm.ledger.job(version.training_job_id).status is JobStatus.COMPLETED
        assert version.status in {ModelStatus.CANDIDATE, ModelStatus.SHADOW, ModelStatus.FAILED}
        assert clm.ledger.evaluation(version.model_id, version.version)[1] == outcome.verdict
        assert version.model_id in outcome.report.html.read_text()


def test_a_fresh_process_without_pickle_answers_as_each_did_when_it_was_saved(
    clm: Services, recorded: dict[str, tuple[golden.GoldenRows, float]]
) -> None:
    asked = {uri: rows.model_dump(include={"time", *FIELDS}) for uri, (rows, _) in recorded.items()}
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": clm.database.url("mlflow", driver="psycopg"),
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    ran = subprocess.run(
        [sys.executable, "-c", LOADED],
        input=json.dumps(asked),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    answers = json.loads(ran.stdout.splitlines()[-1])
    for uri, (rows, tolerance) in recorded.items():
        assert "@v" in uri
        for name, said in (("position", rows.positions), ("forecast", rows.forecast)):
            found, expected = (np.array(each, dtype=np.float64) for each in (answers[uri][name], said))
            assert np.allclose(found, expected, rtol=0.0, atol=tolerance, equal_nan=True), (uri, name)
        assert np.ptp(rows.positions) > 0, uri
