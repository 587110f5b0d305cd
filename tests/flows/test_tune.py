"""One tuning as a flow, and as it is typed."""

import sys
from pathlib import Path

import httpx
import pytest
from tunings import a_request

from clm_core.domain.tuning import Ended, TuneResult
from clm_core.runner import load_flow
from clm_core.services import Services

CLM = Path(sys.executable).with_name("clm")


@pytest.fixture(scope="module")
def result(services: Services, prefect_url: str) -> TuneResult:
    found: TuneResult = load_flow("flows.tune.tune")(a_request(trials=3, workers=1))
    return found


def test_the_flow_answers_with_the_best_parameters_and_a_page_that_needs_no_network(
    result: TuneResult,
) -> None:
    assert result.ended is Ended.ALL_TRIALS
    assert result.best is not None
    assert result.report is not None
    page = result.report.read_text()
    assert "default-src 'none'" in page
    for place in ("history", "parallel", "slice"):
        assert f'<div id="{place}"' in page
    assert f"--params-from {result.study}" in page


def test_the_run_page_shows_the_best_parameters_and_a_picture(result: TuneResult, prefect_url: str) -> None:
    key = result.model_id.replace("_", "-")
    artifact = httpx.get(f"{prefect_url}/artifacts/{key}-tuning/latest").json()
    assert result.study in artifact["data"]
    assert "data:image/png;base64," in artifact["data"]
    progress = httpx.get(f"{prefect_url}/artifacts/{key}-tuning-progress/latest").json()
    assert progress["data"] == 100.0
