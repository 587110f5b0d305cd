"""Example of own features and an own series: files up to date, and steps as in its README."""

import json
import re
import runpy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clm_core.cli.app import app
from clm_core.domain.errors import SeriesMissing
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.vocabulary import ModelType
from clm_core.market import feature_files
from clm_core.market.series_reading import SeriesLayout, read_series
from clm_core.market.sources import MarketData
from clm_core.retraining import jobs, steps
from clm_core.services import Services
from clm_core.testing.features import bundled_bars, examine_features

EXAMPLE = Path(__file__).parents[2] / "examples" / "own-features"


def test_the_series_is_the_output_of_its_script() -> None:
    made = runpy.run_path(str(EXAMPLE / "make_series.py"))["text"]()
    assert (EXAMPLE / "attention.csv").read_text() == made


def test_the_features_keep_the_contract(tmp_path: Path) -> None:
    layout = SeriesLayout(time_column="week", known_column="published", value_column="index")
    attention = read_series("attention", "attention.csv", (EXAMPLE / "attention.csv").read_bytes(), layout)
    market = MarketData(tmp_path)
    market.own_series.add(attention, None, "attention.csv", datetime.now(UTC))
    bars = market.with_series(bundled_bars(), ["attention"])

    examined = examine_features(EXAMPLE / "my_features.py", bars)
    assert {each.name: each.memory for each in examined} == {
        "attention_against_volatility": 24,
        "drawdown_72": 72,
        "momentum_48": 48,
        "slow_gap": 500,
    }


def test_the_commands_of_the_readme_import_examine_and_train(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (EXAMPLE / "README.md").read_text()
    monkeypatch.setenv("CLM_HOME", str(tmp_path))
    monkeypatch.chdir(EXAMPLE)
    monkeypatch.setenv("CLM_FEATURES__FILES", '["my_features.py"]')
    commands = [
        each.split()
        for each in re.findall(r"^    clm (data import .*|features check .*)$", readme, re.MULTILINE)
    ]
    assert len(commands) == 2
    for command in commands:
        done = CliRunner().invoke(app, command, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    [params] = re.findall(r"^    clm retrain .*--param features=(\S+)", readme, re.MULTILINE)

    own = replace(services, open_market=lambda: MarketData(tmp_path))
    request = RetrainRequest(
        model_type=ModelType.LIGHTGBM,
        symbol="BTCUSD",
        dataset_span_days=120,
        training_params={"rounds": 20, "threshold": 0, "features": params},
        requested_by="tests",
    )
    with feature_files.use([EXAMPLE / "my_features.py"]):
        job = jobs.open_job(own, request)
        with jobs.running(own, job) as lease:
            bars = steps.fetch_bars(own, job)
            version = steps.register(own, lease, job, bars, steps.train(own, job, bars))
        assert {"feature momentum_48", "feature attention_against_volatility"} <= version.environment.keys()
        model = own.registry.load(version.model_path, version.bundle_digest)
        with pytest.raises(SeriesMissing):
            model.positions(replace(bars, series={}))
        assert model.positions(bars).any()
    assert json.loads((EXAMPLE / "request.json").read_text())["training_params"]["features"] == params.split(
        ","
    )
