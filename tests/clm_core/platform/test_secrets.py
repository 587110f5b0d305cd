"""Secrets on a real server (OpenBao): logins, refusals, rotation, renewal, and that no value shows."""

import json
import logging
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import secret_servers
from secret_servers import READERS, SecretServer, by_approle, kubernetes_login, serving_secrets

from clm_core.domain.errors import MissingExtra, SecretUnavailable
from clm_core.domain.secret_references import UnreadableSecret
from clm_core.domain.vault_settings import VaultLogin, VaultSettings
from clm_core.platform import secrets
from clm_core.platform.secrets import Vault
from clm_core.settings import Settings, effective, setting_texts

VALUE = "canary-of-the-vault-0123456789"
SOURCE = {"style": "github"}


class Clock:
    """Seconds that pass when told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.upper().startswith(("CLM_", "VAULT_", "BAO_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def token_in(variables: dict[str, str], server: SecretServer, folder: Path) -> VaultSettings:
    variables["VAULT_TOKEN"] = server.token()
    return server.settings()


def token_file(variables: dict[str, str], server: SecretServer, folder: Path) -> VaultSettings:
    (folder / "token").write_text(f"{server.token()}\n")
    return server.settings(credential_file=folder / "token")


def approle_in(variables: dict[str, str], server: SecretServer, folder: Path) -> VaultSettings:
    role_id, variables["VAULT_SECRET_ID"] = server.approle()
    return by_approle(server, role_id)


def approle_file(variables: dict[str, str], server: SecretServer, folder: Path) -> VaultSettings:
    role_id, secret_id = server.approle()
    (folder / "secret-id").write_text(secret_id)
    return by_approle(server, role_id, credential_file=folder / "secret-id")


Login = Callable[[dict[str, str], SecretServer, Path], VaultSettings]


@pytest.mark.parametrize("login", [token_in, token_file, approle_in, approle_file])
def test_a_value_is_read_after_each_login(login: Login, bao: SecretServer, tmp_path: Path) -> None:
    variables = dict[str, str]()
    vault = Vault(login(variables, bao, tmp_path), variables)
    assert vault.read(bao.new_path(password=VALUE), "password") == VALUE


def test_a_pod_logs_in_by_its_service_account(bao: SecretServer, tmp_path: Path) -> None:
    file = tmp_path / "token"
    with kubernetes_login(bao, "clm") as file_text:
        file.write_text(file_text)
        settings = bao.settings(login=VaultLogin.KUBERNETES, role="clm", credential_file=file)
        assert Vault(settings).read(bao.new_path(password=VALUE), "password") == VALUE
        file.write_text(file_text[:-1])
        with pytest.raises(UnreadableSecret, match="check the credential of the login by kubernetes"):
            Vault(settings).read(bao.new_path(password=VALUE), "password")


def test_a_store_of_version_1_and_a_mount_of_two_words_are_read(bao: SecretServer) -> None:
    store = bao.admin.secrets.kv.v1
    store.create_or_update_secret("clm/database", secret={"password": VALUE}, mount_point="team/old")
    vault = Vault(bao.settings(), {"VAULT_TOKEN": bao.token()})
    assert vault.read("team/old/clm/database", "password") == VALUE


def test_a_secret_of_a_namespace_is_read_there(bao: SecretServer) -> None:
    bao.admin.adapter.post("/v1/sys/namespaces/trading")
    admin = secret_servers.hvac.Client(url=bao.address, token=secret_servers.ROOT, namespace="trading")
    admin.sys.enable_secrets_engine("kv", path="kv", options={"version": "2"})
    admin.secrets.kv.v2.create_or_update_secret("clm/own", secret={"password": VALUE}, mount_point="kv")
    variables = {"VAULT_TOKEN": secret_servers.ROOT}
    assert Vault(bao.settings(namespace="trading"), variables).read("kv/clm/own", "password") == VALUE
    with pytest.raises(UnreadableSecret, match="has no secret there"):
        Vault(bao.settings(), variables).read("kv/clm/own", "password")


@pytest.mark.parametrize(
    ("key", "login", "reason"),
    [
        pytest.param("other", {}, "the secret has no text under the key other", id="missing-key"),
        pytest.param("number", {}, "the secret has no text under the key number", id="no-text"),
        pytest.param("empty", {}, "the secret has no text under the key empty", id="empty"),
        pytest.param("password", {"policy": "default"}, "must allow to read kv/clm", id="denied"),
        pytest.param("password", {"token": "s.unknown-token"}, "login by token", id="unknown-token"),
        pytest.param("password", {"token": ""}, "neither VAULT_TOKEN nor", id="no-token"),
    ],
)
def test_a_refusal_names_setting_reference_and_reason_without_a_value(
    key: str, login: dict[str, str], reason: str, bao: SecretServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bao.new_path(password=VALUE, number=7, empty="")
    token = login.get("token", bao.token(login.get("policy", READERS)))
    monkeypatch.setenv("VAULT_TOKEN", token)
    settings = Settings(
        vault=bao.settings(), webhooks={"monitor": SOURCE | {"secrets": [f"vault://{path}#{key}"]}}
    )
    with pytest.raises(SecretUnavailable) as refused:
        print(settings.webhooks["monitor"].keys)
    message = str(refused.value)
    assert message.startswith(f"webhooks.monitor.secrets.0 is vault://{path}#{key}, which cannot be read: ")
    assert reason in message
    assert VALUE not in message
    assert not token or token not in message


def test_a_wrong_secret_id_is_refused_as_a_login(bao: SecretServer) -> None:
    role_id, _ = bao.approle()
    vault = Vault(by_approle(bao, role_id), {"VAULT_SECRET_ID": "wrong"})
    with pytest.raises(UnreadableSecret, match="refuses: check the credential of the login by approle"):
        vault.read(bao.new_path(password=VALUE), "password")


@pytest.mark.parametrize("role", ["reader", "stranger"])
def test_the_policy_of_the_role_decides(role: str, bao: SecretServer) -> None:
    role_id, secret_id = bao.approle(READERS if role == "reader" else "default")
    vault = Vault(by_approle(bao, role_id), {"VAULT_SECRET_ID": secret_id})
    path = bao.new_path(password=VALUE)
    if role == "reader":
        assert vault.read(path, "password") == VALUE
        return
    with pytest.raises(UnreadableSecret, match=f"must allow to read {path}"):
        vault.read(path, "password")


def test_a_missing_and_a_deleted_secret_are_told_apart_from_a_denied_one(bao: SecretServer) -> None:
    path = bao.new_path(password=VALUE)
    bao.delete(path)
    vault = Vault(bao.settings(), {"VAULT_TOKEN": bao.token()})
    for gone in (path, "kv/clm/never-written"):
        with pytest.raises(UnreadableSecret, match="has no secret there, or the newest is deleted"):
            vault.read(gone, "password")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"address": "http://127.0.0.1:9"}, r"the server http://127.0.0.1:9 does not answer \(Conn"),
        ({}, r"\[vault\] address is not set"),
        ({"address": "https://localhost:9", "ca": Path("/gone.pem")}, r"\[vault\] ca /gone.pem is no file"),
        (
            {"address": "http://127.0.0.1:9", "credential_file": Path("/gone")},
            r"the credential /gone cannot be read \(No such file",
        ),
    ],
    ids=["unreachable", "no-address", "no-authority", "no-credential"],
)
def test_a_server_that_cannot_be_asked_is_named(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnreadableSecret, match=reason):
        Vault(VaultSettings(**settings), {"VAULT_TOKEN": "any"}).read("kv/clm", "password")


def test_the_authority_of_the_settings_vouches_for_the_server(tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    with serving_secrets(tmp_path / "tls") as server:
        path = server.new_path(password=VALUE)
        variables = {"VAULT_TOKEN": server.token()}
        assert Vault(server.settings(ca=server.ca), variables).read(path, "password") == VALUE
        with pytest.raises(UnreadableSecret, match="is not trusted: set"):
            Vault(server.settings(), variables).read(path, "password")


def test_without_the_client_the_extra_is_named(bao: SecretServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hvac", None)
    with pytest.raises(MissingExtra, match=r"pip install 'continuous-learning-manager\[vault\]'"):
        Vault(bao.settings(), {"VAULT_TOKEN": "any"}).read("kv/clm", "password")


def test_a_token_left_in_the_folder_of_the_user_is_not_used(
    bao: SecretServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".vault-token").write_text(secret_servers.ROOT)
    monkeypatch.setenv("HOME", str(tmp_path))
    role_id, secret_id = bao.approle("default")
    vault = Vault(by_approle(bao, role_id), {"VAULT_SECRET_ID": secret_id})
    with pytest.raises(UnreadableSecret, match="must allow to read"):
        vault.read(bao.new_path(password=VALUE), "password")


def test_a_changed_value_is_read_after_the_stated_time_or_when_asked_for(
    bao: SecretServer, clock: Clock
) -> None:
    path = bao.new_path(password="first")
    vault = Vault(bao.settings(reread_seconds=300), {"VAULT_TOKEN": bao.token()}, clock)
    assert vault.read(path, "password") == "first"
    bao.write(path, password="second")
    clock.now += 299
    assert vault.read(path, "password") == "first"
    clock.now += 1
    assert vault.read(path, "password") == "second"
    bao.write(path, password="third")
    assert not vault.read_again(path), "asked a moment ago"
    clock.now += secrets.REREAD_AFTER_SECONDS
    assert vault.read_again(path)
    assert vault.read(path, "password") == "third"


def test_a_sealed_server_refuses_once_the_last_reading_is_too_old(clock: Clock) -> None:
    with serving_secrets() as server:
        path = server.new_path(password=VALUE)
        vault = Vault(server.settings(), {"VAULT_TOKEN": server.token()}, clock)
        assert vault.read(path, "password") == VALUE
        server.seal()
        assert vault.read(path, "password") == VALUE
        clock.now += 300
        for _ in range(2):
            with pytest.raises(UnreadableSecret, match="is sealed: unseal it"):
                vault.read(path, "password")


def test_a_reading_outlives_a_refused_reading_until_its_time_is_over(bao: SecretServer, clock: Clock) -> None:
    path = bao.new_path(password=VALUE)
    vault = Vault(bao.settings(), {"VAULT_TOKEN": bao.token()}, clock)
    vault.read(path, "password")
    bao.delete(path)
    clock.now += 299
    assert not vault.read_again(path)
    assert vault.read(path, "password") == VALUE
    clock.now += 1
    with pytest.raises(UnreadableSecret):
        vault.read(path, "password")


def test_a_reading_is_used_while_another_thread_waits_for_the_server(bao: SecretServer, clock: Clock) -> None:
    path = bao.new_path(password=VALUE)
    vault = Vault(bao.settings(), {"VAULT_TOKEN": bao.token()}, clock)
    vault.read(path, "password")
    with vault._lock, ThreadPoolExecutor(1) as other:
        assert other.submit(vault.read, path, "password").result(timeout=60) == VALUE


def test_a_refusal_stands_for_seconds_and_then_the_server_is_asked_again(
    bao: SecretServer, clock: Clock
) -> None:
    path = bao.new_path(password=VALUE)
    bao.delete(path)
    vault = Vault(bao.settings(), {"VAULT_TOKEN": bao.token()}, clock)
    for after in (0.0, secrets.RETRY_AFTER_SECONDS - 1):
        clock.now += after
        with pytest.raises(UnreadableSecret):
            vault.read(path, "password")
        bao.write(path, password=VALUE)
    clock.now += 1
    assert vault.read(path, "password") == VALUE


def test_a_token_is_renewed_before_it_expires(bao: SecretServer, clock: Clock) -> None:
    token = bao.token(ttl="60s")
    path = bao.new_path(password=VALUE)
    vault = Vault(bao.settings(reread_seconds=1), {"VAULT_TOKEN": token}, clock)
    vault.read(path, "password")
    clock.now += 38
    vault.read(path, "password")
    assert bao.looked_up(token).get("last_renewal") is None
    clock.now += 3
    vault.read(path, "password")
    assert bao.looked_up(token)["last_renewal"] is not None


def test_a_token_with_little_time_left_is_renewed_at_the_first_use(
    bao: SecretServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = bao.token(ttl="60s")
    # the moment at which a token of 60 s has 20 s left cannot be waited for
    monkeypatch.setattr(secrets, "RENEWED_AT", 0.0)
    Vault(bao.settings(), {"VAULT_TOKEN": token}).read(bao.new_path(password=VALUE), "password")
    assert bao.looked_up(token)["last_renewal"] is not None


@pytest.mark.parametrize("kind", ["service", "batch"])
def test_a_role_logs_in_anew_where_its_token_cannot_be_renewed(
    kind: str, bao: SecretServer, clock: Clock
) -> None:
    # a service token of a role whose longest time is over is refused its renewal; a batch token has none
    role_id, secret_id = bao.approle(token_ttl="60s", token_max_ttl="60s", token_type=kind)
    variables = {"VAULT_SECRET_ID": secret_id}
    vault = Vault(by_approle(bao, role_id, reread_seconds=1), variables, clock)
    path = bao.new_path(password=VALUE)
    vault.read(path, "password")
    if kind == "service":
        assert vault._session is not None
        bao.admin.auth.token.revoke(vault._session.client.token)
    clock.now += 41
    assert vault.read(path, "password") == VALUE


def test_a_revoked_login_is_made_anew_at_the_next_reading(bao: SecretServer, clock: Clock) -> None:
    role_id, secret_id = bao.approle()
    vault = Vault(by_approle(bao, role_id), {"VAULT_SECRET_ID": secret_id}, clock)
    path = bao.new_path(password=VALUE)
    vault.read(path, "password")
    assert vault._session is not None
    bao.admin.auth.token.revoke(vault._session.client.token)
    clock.now += 300
    assert vault.read(path, "password") == VALUE


def test_a_replaced_token_file_is_taken_up(bao: SecretServer, clock: Clock, tmp_path: Path) -> None:
    file = tmp_path / "token"
    first = bao.token()
    path = bao.new_path(password=VALUE)
    file.write_text(first)
    vault = Vault(bao.settings(credential_file=file), clock=clock)
    vault.read(path, "password")
    file.write_text(bao.token())
    bao.admin.auth.token.revoke(first)
    clock.now += 300
    assert vault.read(path, "password") == VALUE


def test_no_value_is_printed_logged_or_written(
    bao: SecretServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = bao.token()
    reference = f"vault://{bao.new_path(secret=VALUE)}#secret"
    monkeypatch.setenv("VAULT_TOKEN", token)
    settings = Settings(
        home=tmp_path / "home",
        vault=bao.settings(),
        webhooks={"monitor": SOURCE | {"secrets": [reference]}},
    )
    assert settings.webhooks["monitor"].keys == [VALUE.encode()]
    printed = [repr(settings), str(settings), json.dumps(effective(settings)), str(setting_texts(settings))]
    written = [file.read_text() for file in tmp_path.rglob("*") if file.is_file()]
    for text in (*printed, *written, caplog.text):
        assert VALUE not in text
        assert token not in text
    assert all(reference in text for text in printed)


def test_settings_with_references_load_and_print_without_their_server() -> None:
    reference = "vault://kv/clm#database"
    settings = Settings(vault={"address": "http://127.0.0.1:9"}, database_url=reference)
    assert effective(settings)["database_url"] == reference
    assert settings == Settings(vault={"address": "http://127.0.0.1:9"}, database_url=reference)
    assert settings != Settings(vault={"address": "http://127.0.0.1:9"}, database_url=f"{reference}2")
