"""The page of the Python API lists every public name of the session and its results, with every column."""

import ast
import re
from pathlib import Path

import pytest

from clm_core import CLM
from clm_core.session import tables
from clm_core.session.views import ComparisonView, ExplanationView, VersionReport

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "reference" / "python-api.md").read_text()


def listed(name: str) -> set[str]:
    """Names in the first column of the table of a class."""
    section = PAGE.partition(f"## {name}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return {each for row in rows for each in re.findall(r"`(\w+)", row)}


def public_names(described: type) -> set[str]:
    """Methods, properties and fields of a class."""
    fields = getattr(described, "__dataclass_fields__", {})
    return {name for name in {*vars(described), *fields} if not name.startswith("_")}


@pytest.mark.parametrize("described", [CLM, VersionReport, ComparisonView, ExplanationView])
def test_the_page_lists_exactly_the_public_names(described: type) -> None:
    assert listed(described.__name__) == public_names(described)


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ("series", tables.SERIES),
        ("models", tables.MODELS[1:]),
        ("versions", tables.VERSIONS),
        ("jobs", tables.JOBS),
        ("checks", tables.CHECKS[1:]),
        ("folds", tables.FOLDS),
    ],
    ids=["series", "models", "versions", "jobs", "checks", "folds"],
)
def test_the_page_names_the_columns_of_a_table_in_their_order(row: str, columns: tuple[str, ...]) -> None:
    [text] = re.findall(rf"^\| `{row}[(`].*? \| (.*) \|$", PAGE, re.MULTILINE)
    assert tuple(re.findall(r"`(\w+)`", text)) == columns


PLACES = {
    "clm": CLM,
    "CLM": CLM,
    "report": VersionReport,
    "first": VersionReport,
    "second": VersionReport,
    "both": ComparisonView,
    "explained": ExplanationView,
}
"""Classes of the variables in examples."""


@pytest.mark.parametrize("page", ["README.md", "docs/how-to/notebooks.md"])
def test_the_python_of_a_page_uses_names_that_exist(page: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    code = "\n".join(blocks)
    assert "CLM.open(" in code
    used = {
        (node.value.id, node.attr)
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in PLACES
    }
    assert [(name, use) for name, use in sorted(used) if use not in public_names(PLACES[name])] == []
