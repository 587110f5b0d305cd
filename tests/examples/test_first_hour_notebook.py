"""The example notebook runs from its first cell to its last, and is committed without results."""

from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from patience import PATIENT_SECONDS

from clm_core.platform.database import open_database

FOLDER = Path(__file__).parents[2] / "examples" / "first-hour"
NOTEBOOKS = sorted((FOLDER.parent).rglob("*.ipynb"))


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.name)
def test_no_result_of_a_cell_is_committed(file: Path) -> None:
    cells = [cell for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.id for cell in cells if cell.outputs or cell.execution_count is not None] == []


def test_the_notebook_ends_with_the_positions_of_a_version_in_production(
    make_home: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_home("notebook")
    monkeypatch.setenv("CLM_HOME", str(home))
    monkeypatch.setenv("CLM_TRAINING__WHERE", "inline")
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    notebook = nbformat.read(FOLDER / "first-hour.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=PATIENT_SECONDS, resources={"metadata": {"path": str(FOLDER)}})
    with open_database(home):
        client.execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert [each.text for each in shown if each.get("name") == "stderr" and "Warning" in each.text] == []
    pages = [output.data["text/html"] for output in shown if "text/html" in output.get("data", {})]
    assert any("FAIL" in page and "Equity curve and drawdown" in page for page in pages)
    assert "position" in pages[-1]
    assert any("application/vnd.plotly.v1+json" in output.get("data", {}) for output in shown)
