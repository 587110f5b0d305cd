"""The settings file of a home, written and moved by `clm init`."""

import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from clm_core.domain.errors import AlreadyExists, SettingsError, StackRunning
from clm_core.operations.settings_check import record_settings
from clm_core.operations.settings_init import move_settings, write_settings
from clm_core.platform import stack_state
from clm_core.platform.stack_state import StackState
from clm_core.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty current folder, without the developer's own variables."""
    for name in list(os.environ):
        if name.upper().startswith("CLM_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_written_file_changes_no_setting_and_is_private(folder: Path) -> None:
    before = load_settings()
    assert write_settings() == f"Wrote {folder}/.clm/clm.toml: every setting with its default, as a comment."
    assert load_settings() == before
    assert stat.S_IMODE((folder / ".clm" / "clm.toml").stat().st_mode) == 0o600


def test_a_file_that_exists_is_never_overwritten(folder: Path) -> None:
    (folder / ".clm").mkdir()
    (folder / ".clm" / "clm.toml").write_text("lease_seconds = 9\n")
    (folder / "other.toml").write_text("lease_seconds = 8\n")
    with pytest.raises(AlreadyExists, match="was left as it is"):
        write_settings()
    with pytest.raises(AlreadyExists, match="was left as it is"):
        move_settings(folder / "other.toml")
    assert (folder / ".clm" / "clm.toml").read_text() == "lease_seconds = 9\n"
    assert (folder / "other.toml").exists()


@pytest.mark.filterwarnings("ignore::clm_core.domain.errors.DeprecatedSetting")
@pytest.mark.parametrize("name", ["clm.toml", "named.toml"])
def test_no_file_is_written_beside_one_in_use_elsewhere(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / name).write_text("lease_seconds = 9\n")
    if name != "clm.toml":
        monkeypatch.setenv("CLM_CONFIG", str(folder / name))
    with pytest.raises(AlreadyExists, match=f"`clm init --from {folder}/{name}` moves"):
        write_settings()
    assert not (folder / ".clm" / "clm.toml").exists()


def test_a_moved_file_keeps_comments_and_meaning(folder: Path) -> None:
    (folder / "clm.toml").write_text(
        'home = "place"\n[policy]\nfile = "rules/policy.toml"  # ours\n[costs]\nfee_bps = 3\n'
    )
    with pytest.warns(FutureWarning, match="clm init --from"):
        before = load_settings()
    said = move_settings(Path("clm.toml"))
    moved = folder / "place" / "clm.toml"
    assert said == [
        f"policy.file is now {folder}/rules/policy.toml.",
        f"Moved {folder}/clm.toml to {moved}.",
        f"Set CLM_HOME={folder}/place from now on: no file names the home any more.",
    ]
    assert not (folder / "clm.toml").exists()
    assert "# ours" in moved.read_text()
    assert Settings(home=folder / "place") == before


def test_a_path_that_cannot_be_rewritten_leaves_everything_as_it_was(folder: Path) -> None:
    text = 'policy = { "fi\\u006ce" = "policy.toml" }\n'
    (folder / "clm.toml").write_text(text)
    with pytest.raises(SettingsError, match="write absolute paths"):
        move_settings(Path("clm.toml"))
    assert (folder / "clm.toml").read_text() == text
    assert not (folder / ".clm" / "clm.toml").exists()


@pytest.mark.filterwarnings("ignore::clm_core.domain.errors.DeprecatedSetting")
def test_the_file_of_a_running_stack_is_not_moved_and_gets_no_second_beside(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "clm.toml").write_text("lease_seconds = 9\n")
    state = StackState(
        pid=1,
        started_at=datetime(2025, 12, 4, tzinfo=UTC),
        prefect_url="http://127.0.0.1:1",
        mlflow_url="http://127.0.0.1:2",
    )
    with stack_state.stack_lock(folder / ".clm"):
        record_settings(load_settings(), state.started_at)
        stack_state.write_state(folder / ".clm", state)
        monkeypatch.setenv("CLM_HOME", str(folder / ".clm"))
        (folder / "elsewhere").mkdir()
        monkeypatch.chdir(folder / "elsewhere")
        with pytest.raises(StackRunning, match=f"running stack reads {folder}/clm.toml: `clm down`"):
            write_settings()
        monkeypatch.chdir(folder)
        with pytest.raises(StackRunning, match="`clm down` first"):
            move_settings(Path("clm.toml"))
    assert (folder / "clm.toml").exists()
