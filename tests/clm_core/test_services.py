"""Services of a process."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clm_core.services import Services, loading_problem
from clm_core.settings import Settings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Home in an empty current folder, without the developer's own variables."""
    for name in list(os.environ):
        if name.upper().startswith("CLM_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLM_CONFIG", str(tmp_path / "settings.toml"))
    return tmp_path


def test_settings_and_policy_that_load_are_no_problem(folder: Path) -> None:
    (folder / "policy.toml").write_text('version = 1\npreset = "strict"\n')
    (folder / "settings.toml").write_text(f'[policy]\nfile = "{folder}/policy.toml"\n')
    assert loading_problem() is None


@pytest.mark.parametrize(
    ("settings", "policy", "named"),
    [
        ("[costs]\nfee = 1\n", "", "costs.fee"),
        ('[policy]\nfile = "/nowhere/policy.toml"\n', "", "/nowhere/policy.toml cannot be read"),
        ('[policy]\nfile = "{folder}/policy.toml"\n', "version = 1\n", "policy.toml is not allowed: preset"),
        ('[policy]\npreset = "lax"\n', "", "no policy preset lax"),
    ],
    ids=["settings", "no policy document", "invalid policy document", "unknown preset"],
)
def test_settings_or_a_policy_that_no_process_could_load_are_named(
    settings: str, policy: str, named: str, folder: Path
) -> None:
    (folder / "policy.toml").write_text(policy)
    (folder / "settings.toml").write_text(settings.format(folder=folder))
    assert named in str(loading_problem())


def test_a_long_only_market_trades_shorts_as_no_position(services: Services) -> None:
    settings = Settings(home=services.settings.home, markets={"BTCUSD": {"long_only": True}})
    market = replace(services, settings=settings).terms("BTCUSD", "24x7")
    bars = services.market.bars("BTCUSD", "1h", days=10, closed_by=services.clock())
    positions = np.where(np.arange(len(bars)) % 20 < 10, -1.0, 0.5)
    result = market.backtest(bars, positions)
    assert (result.exposure >= 0).all()
    assert (result.trades.direction == 1).all()
    plain = services.terms("BTCUSD", "24x7").backtest(bars, np.maximum(positions, 0.0))
    assert result.equity.tobytes() == plain.equity.tobytes()
