import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from clm_core.cli.app import app
from clm_core.domain.errors import FeatureFailed

CODE = """
import numpy as np
from clm_core.market.own_features import feature

@feature(warm_up=5)
def slope(bars):
    "close / close 5 bars ago - 1"
    values = np.full(len(bars), np.nan)
    values[5:] = bars.close[5:] / bars.close[:-5] - 1
    return values
"""
LEAK = """
@feature(warm_up=0)
def tomorrow(bars):
    return np.append(bars.close[1:] / bars.close[:-1] - 1, 0.0)
"""
Run = Callable[..., Result]


@pytest.fixture
def clm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("CLM_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Result:
        return CliRunner().invoke(app, ["features", *words])

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(CODE)
    return path


def test_a_file_is_examined_before_the_settings_name_it(clm: Run, file: Path) -> None:
    result = clm("check", "mine.py", "--json")

    [slope] = json.loads(result.stdout)
    assert result.exit_code == 0
    assert slope["problem"] is None
    assert (slope["warm_up"], slope["first_value"], slope["memory"], slope["bars_needed"]) == (5, 5, 5, 261)
    assert 0 < slope["milliseconds_per_10k_bars"] < 10_000


def test_a_leak_is_named_and_ends_with_1(clm: Run, file: Path) -> None:
    file.write_text(CODE + LEAK)
    result = clm("check", "mine.py")

    assert result.exit_code == 1
    assert "tomorrow: the feature tomorrow (mine.py) sees the future" in result.output
    assert "no fault found" in result.output


def test_features_in_force_are_listed_with_their_source(
    clm: Run, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLM_FEATURES__FILES", '["mine.py"]')
    listed = {each["name"]: each for each in json.loads(clm("list", "--json").stdout)}

    assert listed["slope"]["source"] == "mine.py"
    assert listed["slope"]["description"] == "close / close 5 bars ago - 1"
    assert listed["rsi_14"]["source"] == "built-in"
    assert len(json.loads(clm("check", "--json").stdout)) == 1


def test_without_own_features_the_examination_says_where_they_come_from(clm: Run) -> None:
    assert "set [features] files in the settings" in clm("check").output


def test_an_absent_file_is_an_error_with_the_setting(clm: Run) -> None:
    failed = clm("check", "gone.py")
    assert isinstance(failed.exception, FeatureFailed)
    assert "correct [features] files in the settings" in str(failed.exception)
