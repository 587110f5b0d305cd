"""Table of the samplers in the documentation."""

from pathlib import Path

import pytest

from benchmarks import samplers


def test_the_table_of_the_page_is_that_of_the_outcomes_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / samplers.DOCUMENT.name
    before = samplers.DOCUMENT.read_text(encoding="utf-8")
    page.write_text(before, encoding="utf-8")
    monkeypatch.setattr(samplers, "DOCUMENT", page)
    samplers.write()
    assert page.read_text(encoding="utf-8") == before
    assert {each.evaluations for each in samplers.kept()} == {samplers.EVALUATIONS}
