"""Commands that show something, typed where there is no home."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from clm_core.cli.app import app
from clm_core.domain.errors import NoHome

LOOKS = [
    ["jobs"],
    ["models"],
    ["show", "xgboost_btcusd_1h"],
    ["report", "xgboost_btcusd_1h"],
    ["status"],
    ["explain", "xgboost_btcusd_1h"],
    ["compare", "a", "b"],
    ["attribution"],
    ["drift", "xgboost_btcusd_1h"],
    ["regimes", "BTCUSD"],
    ["triggers"],
    ["candidates", "list"],
    ["approvals"],
    ["deliveries", "show"],
    ["tokens", "list"],
    ["watch"],
    ["shadow"],
    ["maintenance"],
]


@pytest.mark.parametrize("command", LOOKS, ids=" ".join)
def test_a_look_makes_no_home(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLM_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(NoHome, match=r"elsewhere does not exist: `clm demo` or `clm retrain` makes one"):
        CliRunner().invoke(app, command, catch_exceptions=False)
    assert list(tmp_path.iterdir()) == []


def test_a_home_with_settings_alone_has_no_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLM_HOME", str(tmp_path))
    with pytest.raises(NoHome, match="has no models yet"):
        CliRunner().invoke(app, ["models"], catch_exceptions=False)
