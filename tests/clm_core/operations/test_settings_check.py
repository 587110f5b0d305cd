"""Checks of settings before a start, against this machine and against the running stack."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from secret_servers import SecretServer
from typer.testing import CliRunner

from clm_core.cli.app import app
from clm_core.cli.settings_in_force import settings_for_change, settings_for_repair
from clm_core.domain.errors import SettingsError
from clm_core.operations import settings_check
from clm_core.platform import stack_state
from clm_core.platform.stack_settings import FILE
from clm_core.platform.stack_state import StackState
from clm_core.settings import Settings, load_settings

AT = datetime(2025, 12, 4, 14, 30, tzinfo=UTC)
STATE = StackState(pid=1, started_at=AT, prefect_url="http://127.0.0.1:1", mlflow_url="http://127.0.0.1:2")
FILE_OF_STACK = """
[costs]
fee_bps = 4
[alerts]
urls = ["json://host/s3cret"]
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.upper().startswith("CLM_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLM_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def stack(home: Path) -> Iterator[Path]:
    """Home of a running stack with costs and a receiver of alerts."""
    (home / "clm.toml").write_text(FILE_OF_STACK)
    with stack_state.stack_lock(home):
        settings_check.record_settings(load_settings(), AT)
        stack_state.write_state(home, STATE)
        yield home


def test_all_that_cannot_be_used_is_named_at_once(home: Path) -> None:
    unusable: dict[str, Any] = {
        "policy": {"file": str(home / "gone.toml"), "store": "nothing.like:this"},
        "alerts": {"urls": ["nosuchservice://x"]},
        "universe": [{"symbol": "BTCUSD", "plugins": ["unheard_of"]}],
        "audit": {"timestamp_url": "http://localhost/", "timestamp_certificates": str(home / "gone.pem")},
        "training": {"where": "kubernetes", "kubernetes": {"image": "clm", "claim": "clm-home"}},
    }
    with pytest.raises(SettingsError) as refused:
        settings_check.require_usable(Settings(home=home, **unusable))
    message = str(refused.value)
    files = (str(home / "gone.toml"), str(home / "gone.pem"))
    for named in (
        *files,
        "policy store nothing.like:this",
        "[alerts] urls",
        "unheard_of",
        "kubernetes.mount_path",
    ):
        assert named in message


def test_secrets_that_cannot_be_read_are_named_at_once_and_settings_load_without_them(
    home: Path, bao: SecretServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_TOKEN", bao.token())
    path = bao.new_path(slack="nosuchservice://s3cret", fine="json://host/s3cret")
    urls = [f"vault://{path}#{key}" for key in ("fine", "gone")]
    (home / "clm.toml").write_text(
        f'database_url = "vault://kv/other#url"\n[alerts]\nurls = {urls}\n[vault]\naddress = "{bao.address}"'
    )
    answer = CliRunner().invoke(app, ["config"])
    assert json.loads(answer.stdout)["alerts"]["urls"] == urls
    with pytest.raises(SettingsError) as refused:
        app(["config", "--check"], standalone_mode=False)
    assert sorted(line.partition(",")[0] for line in str(refused.value).splitlines()) == [
        f"alerts.urls.1 is vault://{path}#gone",
        "database_url is vault://kv/other#url",
    ]
    assert "s3cret" not in str(refused.value)


def test_default_settings_are_usable(home: Path) -> None:
    settings_check.require_usable(Settings(home=home))


def test_the_settings_of_the_stack_are_accepted_in_every_folder(
    stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    settings_check.require_settings_of_stack(load_settings(), unused=())
    assert settings_check.differences(load_settings()) == []


def test_other_settings_than_the_stacks_are_refused_with_names_and_without_values(
    stack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # with a point, as no folder for temporary files has in its numbers
    monkeypatch.setenv("CLM_COSTS__FEE_BPS", "7.75")
    monkeypatch.setenv("CLM_ALERTS__URLS", '["json://host/0ther"]')
    with pytest.raises(SettingsError, match=r"other settings: costs\.fee_bps, alerts\.urls\. ") as refused:
        settings_check.require_settings_of_stack(load_settings())
    message = str(refused.value)
    assert "unset CLM_ALERTS__URLS, unset CLM_COSTS__FEE_BPS" in message
    assert str(stack / "clm.toml") in message
    for value in ("7.75", "0ther", "s3cret"):
        assert value not in message


def test_a_setting_that_a_command_does_not_read_may_differ(
    stack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLM_STACK__CONCURRENT_RUNS", "7")
    settings_check.require_settings_of_stack(load_settings())
    monkeypatch.setenv("CLM_ALERTS__URLS", "[]")
    settings_check.require_settings_of_stack(
        load_settings(), unused=(*settings_check.SERVED, *settings_check.DELIVERED)
    )
    assert settings_check.differences(load_settings()) == ["alerts.urls", "stack.concurrent_runs"]


def test_an_edited_universe_is_taken_up_by_a_deploy_from_the_file_of_the_stack_alone(
    stack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stack / "clm.toml").write_text(FILE_OF_STACK + '[[universe]]\nsymbol = "EURUSD"\n')
    edited = load_settings()
    with pytest.raises(SettingsError, match=r"other settings: universe\. [\s\S]*`clm deploy` takes up"):
        settings_check.require_settings_of_stack(edited)
    settings_check.require_settings_of_stack(edited, deploys=True)
    settings_check.record_deployed(edited)
    settings_check.require_settings_of_stack(edited)
    monkeypatch.setenv("CLM_UNIVERSE", '[{"symbol": "BTCUSD"}]')
    with pytest.raises(SettingsError, match=r"unset CLM_UNIVERSE"):
        settings_check.require_settings_of_stack(load_settings(), deploys=True)


def test_a_running_stack_may_take_its_policy_from_a_variable(
    stack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLM_POLICY__PRESET", "thresholds-only")
    settings_check.require_policy_of_home(load_settings())


def test_without_a_stack_a_promotion_takes_no_policy_from_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLM_HOME", str(tmp_path))
    (tmp_path / "clm.toml").write_text('[policy]\npreset = "strict"\n')
    settings_check.require_policy_of_home(load_settings())
    monkeypatch.setenv("CLM_POLICY__PRESET", "strict")
    settings_check.require_policy_of_home(load_settings())
    monkeypatch.setenv("CLM_POLICY__PRESET", "thresholds-only")
    with pytest.raises(SettingsError, match="CLM_POLICY__PRESET names another gate policy"):
        settings_check.require_policy_of_home(load_settings())


def test_a_rollback_is_refused_for_another_database_alone(
    stack: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLM_COSTS__FEE_BPS", "77")
    assert settings_for_repair().costs.fee_bps == 77
    assert "other settings: costs.fee_bps." in capsys.readouterr().err
    with pytest.raises(SettingsError, match=r"other settings: costs\.fee_bps"):
        settings_for_change()
    monkeypatch.setenv("CLM_DATABASE_URL", "postgresql://clm:s3cret@elsewhere/postgres")
    with pytest.raises(SettingsError, match=r"other settings: database_url\."):
        settings_for_repair()


def test_a_deploy_does_not_take_up_edited_costs(stack: Path) -> None:
    (stack / "clm.toml").write_text(FILE_OF_STACK.replace("fee_bps = 4", "fee_bps = 5"))
    with pytest.raises(SettingsError, match=r"other settings: costs\.fee_bps\."):
        settings_check.require_settings_of_stack(load_settings(), deploys=True)
    settings_check.record_deployed(load_settings())
    assert settings_check.differences(load_settings()) == ["costs.fee_bps"]


def test_without_a_running_stack_nothing_is_compared(home: Path) -> None:
    (home / "clm.toml").write_text(FILE_OF_STACK)
    with stack_state.stack_lock(home):
        settings_check.record_settings(load_settings(), AT)
        stack_state.write_state(home, STATE)
    (home / "clm.toml").write_text("[costs]\nfee_bps = 9\n")
    settings_check.require_settings_of_stack(load_settings())
    assert settings_check.differences(load_settings()) == []


def test_the_record_holds_no_secret(stack: Path) -> None:
    assert "s3cret" not in (stack / "stack" / FILE).read_text()


def test_a_check_in_a_fork_names_the_problem_and_leaves_no_library_behind(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from clm_core.domain.errors import SettingsError
from clm_core.operations.settings_check import require_usable_in_fork
from clm_core.settings import Settings
require_usable_in_fork(Settings(home=Path(sys.argv[1])))
try:
    require_usable_in_fork(Settings(home=Path(sys.argv[1]), policy={"file": "nowhere.toml"}))
except SettingsError as error:
    print(error, {"numba", "pandas"} & set(sys.modules))
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.endswith(
        "nowhere.toml cannot be read (No such file or directory): correct policy.file. set()\n"
    )
