"""Other users of the machine: without a token they reach nothing, with a token they load a version."""

import json
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import promoting
import pytest
from mlflow_servers import MLflowServer
from other_user import run_as_other_user

from clm_core.domain.actors import Actor
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import Role
from clm_core.services import Services

ADA = Actor(name="ada", role=Role.ADMIN)
NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
STEPS = """
import json, pathlib, sys, urllib.error, urllib.request

server, model, token, link, *files = sys.argv[1:]
authorization = {"Authorization": "Bearer " + token} if token else {}

def status(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **authorization}
    request = urllib.request.Request(server + path, data, headers, method=method)
    try:
        return urllib.request.urlopen(request).status
    except urllib.error.HTTPError as error:
        return error.code

def opened(file):
    try:
        return pathlib.Path(file).read_bytes().decode(errors="replace")
    except OSError as error:
        return type(error).__name__

api = "/api/2.0/mlflow/"
alias = {"name": model, "alias": "production", "version": "2"}
print(json.dumps({
    "location": status("POST", api + "experiments/create", {"name": "x", "artifact_location": link}),
    "upload": status("POST", "/ajax-api/2.0/mlflow/upload-artifact?run_uuid=x&path=y", {}),
    "alias": status("POST", api + "registered-models/alias", alias),
    "delete": status("DELETE", api + "registered-models/delete", {"name": model}),
    "source": status("POST", api + "model-versions/create", {"name": model, "source": link}),
    "files": sorted({opened(file) for file in files}),
}))
"""
TRADER = """
import json, sys
import mlflow, pandas
model = mlflow.pyfunc.load_model(f"models:/{sys.argv[1]}@production")
print(json.dumps(model.metadata.metadata))
print(model.predict(pandas.read_json(sys.argv[2], orient="split")).shape)
"""


@pytest.fixture
def version(services: Services, make_version: Callable[..., ModelVersion], model_id: str) -> ModelVersion:
    """Production version of a model with a second version."""
    made = make_version(model_id)
    promoting.promote(services, model_id, made.version, ADA, "", NOW)
    make_version(model_id, sharpe=-1.0)
    return made


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Folder in a place that every user may enter; the folders of pytest are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="clm-tests-nobody-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def closed(services: Services) -> Iterator[Path]:
    """Folder of the artifacts, which nobody else may enter."""
    folder = services.settings.home / "mlflow"
    mode = stat.S_IMODE(folder.stat().st_mode)
    folder.chmod(0o700)
    yield folder
    folder.chmod(mode)


@pytest.mark.parametrize("role", [None, Role.VIEWER])
def test_another_user_reads_and_changes_nothing(
    role: Role | None,
    guarded: MLflowServer,
    services: Services,
    version: ModelVersion,
    closed: Path,
    tokens: Mapping[Role, str],
    open_folder: Path,
) -> None:
    link = open_folder / "link"
    link.symlink_to(services.settings.home)
    stored = next((closed / "artifacts").rglob("MLmodel"))
    token = "" if role is None else tokens[role]
    arguments = (guarded.url, version.model_id, token, link.as_uri(), str(stored))
    tried = run_as_other_user(STEPS, open_folder / "home", *arguments)
    assert tried.returncode == 0, tried.stderr
    refused = 401 if role is None else 403
    assert json.loads(tried.stdout) == {
        "location": refused,
        "upload": refused,
        "alias": refused,
        "delete": refused,
        "source": refused,
        "files": ["PermissionError"],
    }
    assert services.registry.aliased(version.model_id, "production") == version.mlflow_version


def test_a_trader_with_a_token_loads_the_production_version_without_access_to_the_home(
    guarded: MLflowServer,
    services: Services,
    version: ModelVersion,
    closed: Path,
    tokens: Mapping[Role, str],
    open_folder: Path,
) -> None:
    bars = services.market.bars("BTCUSD", "1h", days=120, closed_by=services.clock())
    table = bars.to_frame().reset_index()
    table["timestamp"] = table["timestamp"].astype(str)
    file = open_folder / "bars.json"
    table.to_json(file, orient="split")
    file.chmod(0o644)
    variables = {
        "MLFLOW_TRACKING_URI": guarded.url,
        "MLFLOW_TRACKING_TOKEN": tokens[Role.VIEWER],
        # the user may not write beside the modules, and would compile for four seconds
        "NUMBA_DISABLE_JIT": "1",
    }
    trader = run_as_other_user(TRADER, open_folder / "home", version.model_id, str(file), **variables)
    assert trader.returncode == 0, trader.stderr
    metadata, shape = trader.stdout.strip().splitlines()[-2:]
    assert json.loads(metadata)["symbol"] == bars.symbol
    assert shape == f"({len(table)}, 2)"
