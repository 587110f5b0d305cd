"""Libraries that an entry point loads: processes start every minute, and each import costs processor time."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

LIBRARIES = {"mlflow", "numba", "pandas", "pyarrow", "scipy", "sklearn", "torch", "lightgbm", "xgboost"}
LOADED = f"""
import sys
print("loaded:", sorted({LIBRARIES!r} & set(sys.modules)))
"""
PASS = """
import sys
from pathlib import Path
from clm_core.operations import maintenance
from clm_core.services import open_services
from clm_core.settings import Settings
with open_services(Settings(home=Path(sys.argv[1]), database_url=None)) as services:
    report = maintenance.run(services)
assert not report.problems, report.problems
"""


def loaded(script: str, *arguments: str) -> str:
    """Libraries loaded by a script in a process of its own."""
    command = [sys.executable, "-c", script + LOADED, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_maintenance_pass_without_work_loads_no_library_of_models(
    make_home: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert loaded(PASS, str(make_home("idle-pass"))) == "loaded: []\n"


@pytest.mark.parametrize("module", ["clm_core.api.__main__", "deployments.stack", "flows.dispatch"])
def test_an_entry_point_loads_no_library_of_models_by_being_imported(module: str) -> None:
    assert loaded(f"import {module}\n") == "loaded: []\n"
