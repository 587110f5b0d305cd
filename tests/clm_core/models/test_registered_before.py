"""Compatibility with a version registered by release 0.1.0, before models moved into wings.

`tests/data/registered_by_0_1_0` is the registered directory as MLflow stored it (an XGBoost model of BTCUSD,
20 rounds); only the absolute paths noted in `MLmodel`, which nothing reads, were replaced.
"""

import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml

from clm_core.domain.errors import InvalidBars
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import FIELDS
from clm_core.market.features import LOOK_BACK
from clm_core.market.newest_bars import GAP_RULES
from clm_core.models import golden
from clm_core.models.bundle import load_bundle

REGISTERED = Path(__file__).parents[2] / "data" / "registered_by_0_1_0"
BUNDLE = REGISTERED / "artifacts" / "bundle"
SERVING_CODE = "e80ae58b83d9e81e5802d0a7659db979c3b1fbe528d67399737953bb81c6c7cb"
"""SHA-256 of the serving code that the release stored beside the version."""


@pytest.fixture(scope="module")
def flavor() -> dict[str, Any]:
    mlmodel = yaml.safe_load((REGISTERED / "MLmodel").read_text())
    python_function: dict[str, Any] = mlmodel["flavors"]["python_function"]
    return python_function


def test_the_bundle_loads_by_its_digest_and_gives_its_golden_answers(flavor: dict[str, Any]) -> None:
    model = load_bundle(BUNDLE, digest=flavor["config"]["bundle_digest"])
    assert model.model_type is ModelType.XGBOOST
    golden.preflight(model, BUNDLE)


def test_the_bundle_keeps_the_gap_rules_of_its_release(flavor: dict[str, Any]) -> None:
    """Release 0.1.0 had a forecast again 150 bars after any outage; the field is missing in its cards."""
    model = load_bundle(BUNDLE, digest=flavor["config"]["bundle_digest"])
    assert model.trained_on.gap_rules == 1
    bars = golden.GoldenRows.model_validate_json((BUNDLE / golden.FILE).read_bytes()).bars(model.trained_on)
    hole = np.r_[0:250, 252 : len(bars)]
    columns: dict[str, Any] = {name: getattr(bars, name)[hole] for name in ("time", *FIELDS)}
    holed = replace(bars, **columns, gap_rules=GAP_RULES)
    incomplete = np.flatnonzero(np.isnan(model.forecast(holed))).tolist()
    assert incomplete == [*range(LOOK_BACK), *range(250, 250 + LOOK_BACK)]
    assert not model.positions(holed)[incomplete].any()


def test_mlflow_runs_the_stored_serving_code_and_predicts_the_golden_positions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hashlib.sha256((REGISTERED / "serving.py").read_bytes()).hexdigest() == SERVING_CODE
    # MLflow writes a database where it is started unless told otherwise
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    rows = golden.GoldenRows.model_validate_json((BUNDLE / golden.FILE).read_bytes())
    bars = pd.DataFrame(rows.model_dump(include=set(FIELDS)))
    bars["timestamp"] = pd.to_datetime(rows.time, utc=True)
    served = mlflow.pyfunc.load_model(str(REGISTERED))
    code = sys.modules[type(served.unwrap_python_model()).__module__].__file__
    assert code is not None
    assert Path(code).resolve().is_relative_to(REGISTERED)
    with pytest.raises(InvalidBars, match="keep one bar of each"):
        served.predict(pd.concat([bars, bars.tail(1)]))
    predicted = served.predict(bars)
    assert predicted["position"].tolist() == rows.positions
    np.testing.assert_array_equal(predicted["forecast"], np.array(rows.forecast, dtype=np.float64))
