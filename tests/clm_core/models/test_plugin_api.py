"""The page of the plug-in API lists modules that exist, and all that the example plug-in imports."""

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "reference" / "plugin-api.md").read_text()
ROWS = re.findall(r"^\| `(clm_core\.[\w.]+)` \| (.*) \|$", PAGE, re.MULTILINE)
MODULES = [module for module, _ in ROWS]
EXAMPLE = sorted((ROOT / "examples" / "clm-ridge").rglob("*.py"))


@pytest.mark.parametrize(("module", "contents"), ROWS, ids=MODULES)
def test_a_module_of_the_api_imports_and_defines_the_names_listed(module: str, contents: str) -> None:
    names = re.findall(r"`(\w+)(?:\(\))?`", contents)
    imported = import_module(module)
    assert [name for name in names if not hasattr(imported, name)] == []


@pytest.mark.parametrize(
    "file", sorted((ROOT / "examples" / "clm-ridge").rglob("*.py")), ids=lambda f: f.name
)
def test_the_example_plug_in_imports_only_modules_of_the_api(file: Path) -> None:
    imported = {
        module
        for node in ast.walk(ast.parse(file.read_text()))
        for module in (
            [node.module]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
        if module and module.startswith("clm_core")
    }
    assert imported <= set(MODULES)
