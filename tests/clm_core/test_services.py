"""Services of a process."""

import os
from pathlib import Path

import pytest

from clm_core.services import loading_problem


@pytest.fixture(autouse=True)
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
