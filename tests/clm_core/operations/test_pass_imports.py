"""Libraries that an entry point loads: processes start every minute, and each import costs processor time."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

LIBRARIES = {
    *("lightgbm", "matplotlib", "mlflow", "numba", "numpy", "pandas", "plotly", "prefect", "pyarrow"),
    *("scipy", "sklearn", "sqlalchemy", "torch", "xgboost"),
}
OF_STORES = {"sqlalchemy"}
OF_BARS = OF_STORES | {"numba", "numpy", "pandas", "pyarrow", "scipy"}
ENTRY_POINTS = {
    "clm_core": set[str](),
    "clm_core.cli.app": set[str](),
    "clm_core.session.home": set[str](),
    "clm_core.settings": set[str](),
    "clm_core.domain.jobs": set[str](),
    "clm_core.platform.run_engine": set[str](),
    "clm_core.platform.prefect_server": set[str](),
    "deployments.container": set[str](),
    "clm_core.ledger.store": OF_STORES,
    "clm_core.api.__main__": OF_STORES,
    "deployments.stack": OF_STORES,
    "deployments.maintenance_loop": OF_STORES,
    "flows.dispatch": OF_STORES | {"prefect"},
    "clm_core.serving": OF_BARS,
    "flows.sequences.retrain": OF_BARS,
}
"""Libraries that an entry point loads by being imported."""
LOADED = f"""
import sys
print("loaded:", *sorted({LIBRARIES!r} & set(sys.modules)))
"""
PASS = """
import sys
from pathlib import Path
from clm_core.operations import maintenance
from clm_core.services import open_services
from clm_core.settings import Settings
with open_services(Settings(home=Path(sys.argv[1]), database_url=None)) as services:
    report = maintenance.run(services, in_full=False)
assert not report.problems, report.problems
"""


def loaded(script: str, *arguments: str) -> set[str]:
    """Libraries loaded by a script in a process of its own."""
    command = [sys.executable, "-c", script + LOADED, *arguments]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return set(printed.removeprefix("loaded:").split())


def test_a_maintenance_pass_without_work_loads_no_library_of_models(
    make_home: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    # of Prefect, the settings are looked at for an address
    assert loaded(PASS, str(make_home("idle-pass"))) == OF_STORES | {"prefect"}


@pytest.mark.parametrize("module", ENTRY_POINTS)
def test_an_entry_point_loads_no_more_by_being_imported_than_is_listed(module: str) -> None:
    assert loaded(f"import {module}\n") <= ENTRY_POINTS[module]
