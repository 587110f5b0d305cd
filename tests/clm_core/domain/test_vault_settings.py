"""Settings of the server of secrets, and references in place of secrets."""

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from clm_core.domain.errors import SecretUnavailable
from clm_core.domain.secret_references import Referable, SecretReference, references_of, secrets_of
from clm_core.domain.setting_keys import fields, is_secret
from clm_core.domain.vault_settings import VaultSettings
from clm_core.settings import Settings

REFERENCE = "vault://kv/clm#it"
SECRET_SETTINGS: dict[str, Any] = {
    "database_url": REFERENCE,
    "storage": {"url": "s3://bars", "access_key": REFERENCE, "secret_key": REFERENCE},
    "alerts": {"urls": [REFERENCE], "heartbeat_url": REFERENCE},
    "events": {"subscribers": [{"url": REFERENCE, "secret": REFERENCE}]},
    "audit": {"git": REFERENCE, "webhook": {"url": REFERENCE, "secret": REFERENCE}},
    "exchanges": {"okx": {"api_key": REFERENCE, "secret": REFERENCE, "password": REFERENCE}},
    "databases": {"market": {"url": REFERENCE, "table": "bars"}},
    "webhooks": {"monitor": {"secrets": [REFERENCE]}, "hub": {"style": "github", "secrets": [REFERENCE]}},
}


class Record(BaseModel):
    secret: Annotated[SecretStr, Referable()]


class ServerOf:
    def __init__(self, value: str) -> None:
        self.value = value

    def read(self, path: str, key: str) -> str:
        return self.value

    def read_again(self, path: str) -> bool:
        return True


def test_every_secret_setting_takes_a_reference() -> None:
    secret = {key[0] for key, annotation in fields(Settings) if is_secret(annotation)}
    assert secret == set(SECRET_SETTINGS), "a secret setting is missing from this test"
    secrets = list(secrets_of(Settings(**SECRET_SETTINGS)))
    assert len(secrets) == 16
    assert all(isinstance(each, SecretReference) and each.reference == REFERENCE for _, each in secrets)


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("database_url", "sqlite://", "must look like postgresql://"),
        ("alerts.heartbeat_url", "ftp://x", "must look like https://"),
        ("audit.git", "--upload-pack=touch", "must be a path or URL"),
        ("events.subscribers.0.secret", "whsec_c2hvcnQ=", "24 to 64 bytes"),
        ("webhooks.hub.secrets.0", "short", "24 characters"),
    ],
)
def test_a_value_in_the_server_obeys_the_rules_of_its_setting(setting: str, value: str, reason: str) -> None:
    reference = dict(references_of(Settings(**SECRET_SETTINGS)))[setting]
    reference.bind(ServerOf(value), setting)
    with pytest.raises(SecretUnavailable, match=f"{setting} is {REFERENCE}.* not allowed: .*{reason}") as why:
        reference.get_secret_value()
    assert value not in str(why.value)


@pytest.mark.parametrize("text", ["vault://kv#key", "vault://kv/clm", "vault:///clm#key", "vault://kv/ a#k"])
def test_a_malformed_reference_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="must look like vault://mount/path#key"):
        Settings(database_url=text)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"address": "http://vault.example:8200"}, "must be https"),
        ({"address": "vault.example"}, "must look like https://host:8200"),
        ({"address": "https://me:word@vault.example"}, "must not hold a password"),
        ({"login": "approle"}, "login by approle needs a role"),
        ({"role": "clm"}, "have no effect with a token"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, str], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        VaultSettings.model_validate(settings)


def test_a_reference_is_no_value_to_compare_or_print() -> None:
    one = Record(secret=REFERENCE)
    other = Record(secret=REFERENCE)
    assert one == other
    assert one != Record(secret="plain")
    assert one.model_dump_json() == f'{{"secret":"{REFERENCE}"}}'
    assert Record(secret="plain").model_dump_json() == '{"secret":"**********"}'
