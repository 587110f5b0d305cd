"""Benchmark of the version list."""

import pytest

from benchmarks import registry


@pytest.mark.chaos
def test_the_pages_of_the_version_list_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark fills the ledger's tables by SQL, and fails here after a change of the tables."""
    monkeypatch.setattr(registry, "VERSIONS", 60)
    [row] = registry.rows()
    assert row.name.startswith("a page of 60 versions")
