"""Every kind of model through the same flow: retrained, registered, judged, reported, loaded elsewhere."""

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
from clm_core.platform.prefect_server import load_flow
from clm_core.retraining.results import RetrainResult
from clm_core.services import Services, open_services

TREES = (ModelType.XGBOOST, ModelType.LIGHTGBM)
"""Kinds that `test_retrain` sends through the same flow."""
PARAMS: dict[Kind, dict[str, Any]] = {
    Kind(each): CASES[each].quick for each in catalog.kinds() if each not in (*TREES, ModelType.ENSEMBLE)
} | {
    Kind(ModelType.OTHER, "ridge"): {"horizon": 6, "threshold": 0.0},
    Kind(ModelType.OTHER, "momentum"): {"threshold": 0.002},
}
SERVING_SCRIPT = """
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
"""Script of a trader with nothing but MLflow."""


@pytest.fixture(scope="module")
def clm(services: Services, prefect_url: str) -> Iterator[Services]:
    """Services with two folds and a single seed: the tests check completion, not quality."""
    plan = WalkForwardPlan(folds=2, seeds=1)
    with open_services(services.settings.model_copy(update={"walk_forward": plan})) as opened:
        end_all_jobs(opened)
        yield opened


@pytest.fixture(scope="module")
def outcomes(clm: Services) -> dict[Kind, RetrainResult]:
    results = {kind: retrained(kind, params) for kind, params in PARAMS.items()}
    members = [results[Kind(ModelType.NHITS)].version, results[Kind(ModelType.RL_V3)].version]
    params = {
        "members": ",".join(f"{each.model_id}@{each.version}" for each in members),
        **CASES[ModelType.ENSEMBLE].quick,
    }
    return results | {Kind(ModelType.ENSEMBLE): retrained(Kind(ModelType.ENSEMBLE), params)}


def retrained(kind: Kind, params: dict[str, Any]) -> RetrainResult:
    request = RetrainRequest(
        model_type=kind.model_type,
        plugin=kind.plugin,
        symbol="EURUSD",
        dataset_span_days=150,
        training_params=params,
        requested_by="tests",
    )
    outcome: RetrainResult = load_flow("flows.retrain.retrain")(request)
    return outcome


@pytest.fixture(scope="module")
def recorded(
    clm: Services, outcomes: dict[Kind, RetrainResult]
) -> dict[str, tuple[golden.GoldenRows, float]]:
    """Golden rows of each version and the tolerance of the kind, by the version's MLflow URI."""
    golden_rows = {}
    for outcome in outcomes.values():
        version = outcome.version
        with clm.registry.fetched(version.model_path) as bundle:
            rows = golden.GoldenRows.model_validate_json((bundle / golden.FILE).read_bytes())
            tolerance = catalog.tolerance(load_bundle(bundle, version.bundle_digest))
            golden_rows[version.model_path] = rows, tolerance
    return golden_rows


def test_each_kind_ends_in_a_completed_job_a_judged_version_and_a_report(
    clm: Services, outcomes: dict[Kind, RetrainResult]
) -> None:
    for kind, outcome in outcomes.items():
        version = clm.ledger.version(outcome.version.model_id, outcome.version.version)
        assert version.kind == kind
        assert clm.ledger.job(version.training_job_id).status is JobStatus.COMPLETED
        assert version.status in {ModelStatus.CANDIDATE, ModelStatus.SHADOW, ModelStatus.FAILED}
        verdict = clm.ledger.evaluation(version.model_id, version.version)[1]
        # NaN, the margin of a profit factor without a loss, counts as equal to itself
        np.testing.assert_equal(verdict.model_dump(), outcome.verdict.model_dump())
        assert version.model_id in outcome.report.html.read_text()


def test_a_fresh_process_without_pickle_reproduces_the_golden_rows_of_each_kind(
    clm: Services, recorded: dict[str, tuple[golden.GoldenRows, float]]
) -> None:
    request = {uri: rows.model_dump(include={"time", *FIELDS}) for uri, (rows, _) in recorded.items()}
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": clm.database.url("mlflow", driver="psycopg"),
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    ran = subprocess.run(
        [sys.executable, "-c", SERVING_SCRIPT],
        input=json.dumps(request),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    answers = json.loads(ran.stdout.splitlines()[-1])
    for uri, (rows, tolerance) in recorded.items():
        assert "@v" in uri
        for name, stored in (("position", rows.positions), ("forecast", rows.forecast)):
            served = np.array(answers[uri][name], dtype=np.float64)
            expected = np.array(stored, dtype=np.float64)
            assert np.allclose(served, expected, rtol=0.0, atol=tolerance, equal_nan=True), (uri, name)
        assert np.ptp(rows.positions) > 0, uri
