"""Benchmark of the lock of MLflow's server."""

import pytest

from benchmarks import lock


@pytest.mark.chaos
def test_the_lock_is_measured_against_mlflow_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BLOCKS", 1)
    monkeypatch.setattr(lock, "REQUESTS_PER_BLOCK", 2)
    [row] = lock.rows()
    assert row.name.startswith("time added to a request to MLflow by the lock")
