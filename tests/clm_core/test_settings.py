import os
import re
import traceback
import warnings
from pathlib import Path

import pytest
from pydantic import ValidationError

from clm_core.domain.errors import DeprecatedSetting, SettingsError
from clm_core.domain.training_settings import TrainingPlace
from clm_core.settings import Settings, child_variables, effective, load_settings, settings_file


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Current folder with an empty home `.clm`, without the developer's own variables."""
    for name in list(os.environ):
        if name.upper().startswith("CLM_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".clm").mkdir()
    return tmp_path


def test_without_file_and_variables_the_defaults_hold(folder: Path) -> None:
    settings = load_settings()
    assert settings.home == folder / ".clm"
    assert settings.database_url is None
    assert settings.policy.file is None


def test_a_variable_beats_the_file_and_the_file_beats_the_default(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ".clm" / "clm.toml").write_text("[costs]\nfee_bps = 7.5\nslippage_bps = 3.0\n")
    monkeypatch.setenv("CLM_COSTS__FEE_BPS", "9")
    settings = load_settings()
    assert (settings.costs.fee_bps, settings.costs.slippage_bps) == (9.0, 3.0)
    assert settings.execution.initial_cash == 10_000.0


def test_home_is_absolute_and_understands_the_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLM_HOME", "~/clm")
    assert load_settings().home == Path.home() / "clm"


def test_the_settings_of_a_home_are_the_same_in_every_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ".clm" / "clm.toml").write_text("[costs]\nfee_bps = 7.5\n")
    monkeypatch.setenv("CLM_HOME", str(folder / ".clm"))
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert load_settings().costs.fee_bps == 7.5
    assert settings_file() == folder / ".clm" / "clm.toml"


def test_relative_paths_start_at_the_folder_of_the_file_that_names_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ".clm" / "clm.toml").write_text('[policy]\nfile = "policy.toml"\n')
    monkeypatch.setenv("CLM_HOME", str(folder / ".clm"))
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert load_settings().policy.file == folder / ".clm" / "policy.toml"
    monkeypatch.setenv("CLM_POLICY__FILE", "policy.toml")
    assert load_settings().policy.file == folder / "elsewhere" / "policy.toml"


def test_a_linked_file_is_read_in_the_folder_of_its_target(folder: Path) -> None:
    (folder / "repository").mkdir()
    (folder / "repository" / "team.toml").write_text('[policy]\nfile = "policy.toml"\n')
    (folder / ".clm" / "clm.toml").symlink_to(folder / "repository" / "team.toml")
    assert load_settings().policy.file == folder / "repository" / "policy.toml"
    (folder / "repository" / "team.toml").unlink()
    with pytest.raises(SettingsError, match=r"team.toml cannot be read"):
        load_settings()


def test_a_file_named_by_clm_config_is_used_where_the_home_has_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "other").mkdir()
    (folder / "other" / "my.toml").write_text('home = "my-home"\n[policy]\nfile = "policy.toml"\n')
    monkeypatch.setenv("CLM_CONFIG", "other/my.toml")
    settings = load_settings()
    assert settings.home == folder / "other" / "my-home"
    assert settings.policy.file == folder / "other" / "policy.toml"


@pytest.mark.parametrize("name", ["CLM_CONFIG", "current folder"])
def test_a_second_file_is_refused_by_name_where_it_differs_and_left_aside_where_equal(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ".clm" / "clm.toml").write_text(
        f"[costs]\nfee_bps = 7.5\n[policy]\nfile = '{folder}/policy.toml'\n"
    )
    second = folder / ("second.toml" if name == "CLM_CONFIG" else "clm.toml")
    if name == "CLM_CONFIG":
        monkeypatch.setenv("CLM_CONFIG", str(second))
    second.write_text('[costs]\nfee_bps = 7.5\n[policy]\nfile = "policy.toml"\n')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert settings_file(load_settings().home) == folder / ".clm" / "clm.toml"
    second.write_text('lease_seconds = 9\n[costs]\nfee_bps = 8\n[policy]\nfile = "policy.toml"\n')
    with pytest.raises(SettingsError, match=r"other settings: costs.fee_bps, lease_seconds\. ") as refused:
        load_settings()
    assert str(second) in str(refused.value)
    assert str(folder / ".clm" / "clm.toml") in str(refused.value)


def test_a_file_in_the_current_folder_is_used_with_a_warning_where_the_home_has_none(folder: Path) -> None:
    (folder / "clm.toml").write_text('home = "place"\n[costs]\nfee_bps = 3\n')
    with pytest.warns(DeprecatedSetting, match=r"`clm init --from clm\.toml` moves the file into the home"):
        settings = load_settings()
    assert (settings.home, settings.costs.fee_bps) == (folder / "place", 3.0)


def test_a_home_in_the_file_of_a_home_is_refused(folder: Path) -> None:
    (folder / ".clm" / "clm.toml").write_text("home = '/srv/clm'\n")
    with pytest.raises(SettingsError, match=r"home in \S+/clm.toml is not allowed.* remove the line"):
        load_settings()


def test_the_file_of_another_home_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = folder / "other"
    other.mkdir()
    (other / "home.json").touch()
    (other / "clm.toml").write_text("[costs]\nfee_bps = 3\n")
    monkeypatch.setenv("CLM_CONFIG", str(other / "clm.toml"))
    with pytest.raises(SettingsError, match=rf"settings file of the home {other}.* set CLM_HOME={other}"):
        load_settings()
    monkeypatch.delenv("CLM_CONFIG")
    monkeypatch.chdir(other)
    with pytest.raises(SettingsError, match=f"is a home: set CLM_HOME={other}"):
        load_settings()
    monkeypatch.setenv("CLM_HOME", str(folder / ".clm"))
    assert load_settings().costs.fee_bps is None


def test_a_child_in_any_folder_loads_the_settings_of_its_parent(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "here.toml").write_text("[costs]\nfee_bps = 3\n")
    monkeypatch.setenv("CLM_CONFIG", "here.toml")
    monkeypatch.setenv("CLM_HOME", "place")
    monkeypatch.setenv("CLM_POLICY__FILE", "policy.toml")
    settings = load_settings()
    for name, value in child_variables(settings).items():
        monkeypatch.setenv(name, value)
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert load_settings() == settings
    assert settings.policy.file == folder / "policy.toml"


@pytest.mark.parametrize(
    ("variables", "file", "message"),
    [
        pytest.param(
            {"CLM_COSTS__FEE": "1"},
            "",
            r"CLM_COSTS__FEE is not .* did you mean CLM_COSTS__FEE_BPS\?",
            id="misspelt",
        ),
        pytest.param({"CLM_COSTS": '{"fee_bps": 1}'}, "", "CLM_COSTS is not a setting", id="group-as-json"),
        pytest.param({"clm_hom": "x"}, "", r"clm_hom is not .* did you mean CLM_HOME\?", id="lower-case"),
        pytest.param({}, "hom = 'x'", r"hom in \S+/clm.toml is not .* did you mean home\?", id="unknown-key"),
        pytest.param(
            {},
            "[costs]\nfee = 1",
            r"costs.fee in \S+/clm.toml .* did you mean costs.fee_bps\?",
            id="unknown-nested-key",
        ),
        pytest.param(
            {"CLM_COSTS__FEE_BPS": "-1"},
            "",
            r"costs.fee_bps = '-1', set by CLM_COSTS__FEE_BPS, .* greater than or equal to 0\.",
            id="out-of-range-variable",
        ),
        pytest.param(
            {},
            "[costs]\nfee_bps = nan",
            r"costs.fee_bps = nan, set by \S+/clm.toml, .* finite",
            id="nan-in-file",
        ),
        pytest.param({}, "costs = 5", r"costs = 5, set by \S+/clm.toml, is not allowed", id="group-as-value"),
        pytest.param({}, "lease_seconds = ", "clm.toml is not valid TOML: Invalid value", id="broken-toml"),
        pytest.param(
            {"CLM_CONFIG": "gone.toml"}, "", r"gone.toml cannot be read \(No such file", id="no-such-file"
        ),
        pytest.param({"CLM_DATABASE_URL": ""}, "", "must look like postgresql://", id="empty-database-url"),
        pytest.param(
            {"CLM_WEBHOOKS": '{"monitor": {"secrets": ["whsec_c2hvcnQ="]}}'},
            "",
            r"webhooks.monitor.secrets.0 = \(hidden\), set by CLM_WEBHOOKS, .* 24 to 64 bytes",
            id="short-webhook-secret",
        ),
        pytest.param({"CLM_WEBHOOKS": "monitor"}, "", "written as JSON in a variable", id="no-json"),
    ],
)
def test_unknown_names_and_values_out_of_range_are_refused_in_a_message(
    variables: dict[str, str], file: str, message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if file:
        (folder / ".clm" / "clm.toml").write_text(file)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=message):
        load_settings()


@pytest.mark.parametrize(
    ("variables", "file", "warning"),
    [
        (
            {"CLM_UPKEEP__VERIFY_MINUTES": "5", "CLM_TRAINING__APART": "false"},
            "",
            r"CLM_UPKEEP__VERIFY_MINUTES is now CLM_MAINTENANCE__VERIFY_MINUTES: rename it",
        ),
        (
            {},
            "[upkeep]\nverify_minutes = 5\n[training]\napart = false\n",
            r"upkeep.verify_minutes in \S+/clm.toml is now maintenance.verify_minutes: rename it",
        ),
        (
            {"CLM_UPKEEP__VERIFY_MINUTES": "5", "CLM_TRAINING__APART": "0"},
            '[maintenance]\nverify_minutes = 5.0\n[training]\nwhere = "inline"\n',
            r"CLM_TRAINING__APART is now CLM_TRAINING__WHERE = inline: write that",
        ),
        (
            {"CLM_UPKEEP__VERIFY_MINUTES": "5"},
            "[upkeep]\nverify_minutes = 30\n[training]\napart = false\n",
            r"training.apart in \S+/clm.toml is now training.where = inline: write that",
        ),
        (
            {"CLM_UPKEEP__VERIFY_MINUTES": "5", "CLM_TRAINING__ISOLATED": "False"},
            "[training]\nisolated = true\n",
            r"CLM_TRAINING__ISOLATED is now CLM_TRAINING__WHERE = inline: write that",
        ),
    ],
    ids=["variables", "file", "both with one value", "variable over file", "isolated"],
)
def test_former_names_are_accepted_with_a_warning_that_has_the_new_name(
    variables: dict[str, str], file: str, warning: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ".clm" / "clm.toml").write_text(file)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.warns(DeprecatedSetting, match=warning):
        settings = load_settings()
    assert settings.maintenance.verify_minutes == 5.0
    assert settings.training.where is TrainingPlace.INLINE
    assert "upkeep" not in effective(settings)
    assert {"apart", "isolated"}.isdisjoint(effective(settings)["training"])


def test_new_names_give_no_warning(folder: Path) -> None:
    file = '[maintenance]\nverify_minutes = 5\n[training]\nwhere = "inline"\n'
    (folder / ".clm" / "clm.toml").write_text(file)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        settings = load_settings()
    assert (settings.maintenance.verify_minutes, settings.training.where) == (5.0, TrainingPlace.INLINE)


@pytest.mark.parametrize(
    ("variables", "file", "message"),
    [
        (
            {},
            "[upkeep]\nverify_minutes = 5\n[maintenance]\nverify_minutes = 6\n",
            r"upkeep.verify_minutes in \S+/clm.toml is a former name of maintenance.verify_minutes and has",
        ),
        (
            {"CLM_TRAINING__APART": "true", "CLM_TRAINING__WHERE": "inline"},
            "",
            r"CLM_TRAINING__APART is a former name of CLM_TRAINING__WHERE and has another value",
        ),
        (
            {"CLM_TRAINING__APART": "true"},
            '[training]\nwhere = "inline"',
            r"CLM_TRAINING__APART is a former name of CLM_TRAINING__WHERE and has another value",
        ),
        ({}, "[training]\nisolated = 'maybe'", r"training.where = 'maybe', .* is not allowed"),
        (
            {"CLM_TRAINING__WHERE": "kubernetes"},
            "",
            r'where = "kubernetes" needs training.kubernetes.image and training.kubernetes.claim',
        ),
        (
            {"CLM_UPKEEP__VERIFY": "1"},
            "",
            r"CLM_UPKEEP__VERIFY is not .* did you mean CLM_MAINTENANCE__VERIFY_MINUTES\?",
        ),
        ({}, "[upkeep]\nverify = 1", r"upkeep in \S+/clm.toml .* did you mean maintenance.verify_minutes\?"),
    ],
    ids=[
        *("file", "variables", "variable and file", "no boolean", "incomplete"),
        *("misspelt variable", "misspelt key"),
    ],
)
def test_a_former_name_beside_another_value_or_misspelt_is_refused(
    variables: dict[str, str], file: str, message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ".clm" / "clm.toml").write_text(file)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=message):
        load_settings()


@pytest.mark.filterwarnings("ignore::clm_core.domain.errors.DeprecatedSetting")
def test_a_bad_value_of_a_former_variable_is_refused_with_the_variable_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLM_UPKEEP__VERIFY_MINUTES", "-1")
    with pytest.raises(SettingsError, match="= '-1', set by CLM_UPKEEP__VERIFY_MINUTES, is not allowed"):
        load_settings()


def test_every_bad_value_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLM_COSTS__FEE_BPS", "-1")
    monkeypatch.setenv("CLM_EXECUTION__STOP_LOSS", "2")
    with pytest.raises(
        SettingsError, match=re.compile(r"costs\.fee_bps.*\n?.*execution\.stop_loss", re.DOTALL)
    ):
        load_settings()


def test_a_secret_shows_in_no_message_and_no_print_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLM_DATABASE_URL", "mysql://clm:s3cret@host/x")
    with pytest.raises(SettingsError, match=r"database_url = \(hidden\)") as refused:
        load_settings()
    assert "s3cret" not in "".join(traceback.format_exception(refused.value))
    monkeypatch.setenv("CLM_DATABASE_URL", "postgresql://clm:s3cret@host/x")
    settings = load_settings()
    assert "s3cret" not in f"{effective(settings)} {settings!r}"


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("[alerts]\nurls = ['s3cret']", r"alerts.urls.0 = \(hidden\), set by \S+/clm.toml, .* slack://"),
        (
            "[[events.subscribers]]\nurl = 'ftp://x'\nsecret = 's3cret'",
            r"events.subscribers.0.secret = \(hidden\), set by \S+/clm.toml, is not allowed: must be base64",
        ),
        (
            "[[events.subscribers]]\nurl = 'http://x'\nsecret = 's3cretsecret'",
            "must be 24 to 64 bytes long",
        ),
    ],
    ids=["alert url", "no base64", "short secret"],
)
def test_a_secret_in_a_list_shows_in_no_message(file: str, message: str, folder: Path) -> None:
    (folder / ".clm" / "clm.toml").write_text(file)
    with pytest.raises(SettingsError, match=message) as refused:
        load_settings()
    assert "s3cret" not in "".join(traceback.format_exception(refused.value))


def test_receivers_can_be_set_by_variables_and_are_printed_as_stars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLM_ALERTS__URLS", '["json://host/s3cret"]')
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    monkeypatch.setenv("CLM_EVENTS__SUBSCRIBERS", f'[{{"url": "http://x/y", "secret": "{secret}"}}]')
    settings = load_settings()
    assert settings.alerts.urls[0].get_secret_value() == "json://host/s3cret"
    assert effective(settings)["alerts"]["urls"] == ["**********"]
    printed = f"{effective(settings)} {settings!r}"
    assert "s3cret" not in printed
    assert secret not in printed


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_settings().home = Path("/elsewhere")  # type: ignore[misc]


def test_printed_settings_load_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLM_EXECUTION__LOT_SIZE", "0.001")
    printed = effective(load_settings())
    monkeypatch.delenv("CLM_EXECUTION__LOT_SIZE")
    assert Settings(**printed) == Settings(execution={"lot_size": 0.001})
