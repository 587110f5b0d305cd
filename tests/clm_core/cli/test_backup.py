"""The server of a restored home comes from its settings, also where this release refuses one of them."""

from pathlib import Path

import pytest

from clm_core.cli.backup import _stores
from clm_core.domain.errors import SettingsError
from clm_core.operations.restoring import HomeStores

REFUSED = "setting_of_another_release = 1\n"


@pytest.fixture(autouse=True)
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLM_DATABASE_URL", "CLM_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    # set by the command itself
    monkeypatch.setenv("CLM_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_a_home_without_a_named_server_has_the_embedded_one(tmp_path: Path) -> None:
    assert _stores(tmp_path) == HomeStores()


def test_a_refused_setting_does_not_hide_the_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clm.toml").write_text(f'database_url = "postgresql://ada@db/clm"\n{REFUSED}')
    url = _stores(tmp_path).database_url
    assert url is not None
    assert url.get_secret_value() == "postgresql://ada@db/clm"
    assert "setting_of_another_release" in capsys.readouterr().err


def test_a_server_that_cannot_be_read_without_the_settings_has_to_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clm.toml").write_text(f'database_url = "vault://clm/database#url"\n{REFUSED}')
    with pytest.raises(SettingsError, match="Set CLM_DATABASE_URL to the server of the restored home"):
        _stores(tmp_path)
    monkeypatch.setenv("CLM_DATABASE_URL", "postgresql://ada@db/clm")
    url = _stores(tmp_path).database_url
    assert url is not None
    assert url.get_secret_value() == "postgresql://ada@db/clm"


@pytest.mark.parametrize("refused", ["", REFUSED])
def test_the_bucket_of_a_restored_home_comes_from_the_file_and_the_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    (tmp_path / "clm.toml").write_text(
        f'{refused}[storage]\nurl = "s3://bars/clm"\nregion = "eu-central-1"\n'
    )
    monkeypatch.setenv("CLM_STORAGE__REGION", "eu-west-1")
    storage = _stores(tmp_path).storage
    assert (storage.url, storage.region) == ("s3://bars/clm", "eu-west-1")
