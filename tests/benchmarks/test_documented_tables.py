"""Benchmarks of `make bench` that rewrite tables of the documentation run at a small size."""

import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks import feature_drift
from benchmarks.pages import replace_part
from benchmarks.run import TABLES

SMALL = {
    "shadow_decisions": ["--share", "0.002"],
    "protection": ["--paths", "2", "--streams", "2"],
    "paper_record": ["--training", "1500"],
    "feature_drift": ["--markets", "1"],
    "calibration": ["--series", "2", "--long", "9000"],
    "forecast_errors": ["--paths", "10", "--pools", "2"],
    "nsga2": ["--seeds", "1", "--generations", "5"],
}
"""Arguments of a small run."""
NUMBERS = re.compile(r"[-+]?\d[\d,.]*|inf|nan|-")


@pytest.mark.parametrize("name", SMALL)
def test_a_benchmark_called_by_make_rewrites_its_tables_and_nothing_else(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert name in TABLES
    module = import_module(f"benchmarks.{name}")
    page = tmp_path / module.DOCUMENT.name
    before = module.DOCUMENT.read_text(encoding="utf-8")
    assert f"python -m benchmarks.{name}" in before
    page.write_text(before, encoding="utf-8")
    monkeypatch.setattr(module, "DOCUMENT", page)
    monkeypatch.setattr(feature_drift, "LOOKS", 1)
    monkeypatch.setattr(sys, "argv", [name, *SMALL[name]])
    module.main()
    after = page.read_text(encoding="utf-8")
    assert after != before
    # the words of the page, its headings and the shape of its tables stay
    assert shape(after) == shape(before)


def shape(text: str) -> list[str]:
    """Lines without numbers; of a table the number of cells alone."""
    return [
        f"row of {line.count('|')}" if line.startswith("|") else NUMBERS.sub("", line)
        for line in text.splitlines()
    ]


def test_a_page_without_the_part_of_a_benchmark_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- begin: x -->\nold\n<!-- end -->\nb\n", encoding="utf-8")
    replace_part(page, "x", "new\n")
    assert page.read_text(encoding="utf-8") == "a\n<!-- begin: x -->\n\nnew\n\n<!-- end -->\nb\n"
    with pytest.raises(ValueError, match="has no part <!-- begin: y -->"):
        replace_part(page, "y", "new\n")
