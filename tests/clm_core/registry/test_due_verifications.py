"""Verifications of production versions that fall due as time passes."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from records import a_job, a_version

from clm_core.domain.versions import ModelVersion
from clm_core.registry.due_verifications import DueVerifications

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def rounds(tmp_path: Path) -> DueVerifications:
    return DueVerifications(tmp_path / "maintenance" / "verified.json", HOUR)


def production_version(symbol: str, label: str = "v20251204_143022") -> ModelVersion:
    return a_version(a_job(symbol=symbol), label)


def test_a_hundred_models_verified_at_once_fall_due_once_an_hour_and_never_all_at_once(
    rounds: DueVerifications,
) -> None:
    models = [production_version(f"M{number}USD") for number in range(100)]
    for version in models:
        rounds.note(version, NOW)
    times = dict.fromkeys((version.model_id for version in models), 0)
    max_due = 0
    for minute in range(1, 241):
        now = NOW + minute * MINUTE
        due_ids = rounds.due(models, now)
        due = [version for version in models if version.model_id in due_ids]
        max_due = max(max_due, len(due))
        for version in due:
            times[version.model_id] += 1
            rounds.note(version, now)
    assert set(times.values()) == {4}
    assert max_due < 10


def test_another_version_is_due_at_once(rounds: DueVerifications) -> None:
    rounds.note(production_version("A"), NOW)
    assert not rounds.due([production_version("A")], NOW)
    assert rounds.due([production_version("A", "v20260101_000000")], NOW)


@pytest.mark.parametrize("content", [b"", b"{", b'{"xgboost_a_1h": {"version": 1}}'], ids=repr)
def test_a_damaged_file_counts_as_no_verification(rounds: DueVerifications, content: bytes) -> None:
    rounds.note(production_version("A"), NOW)
    rounds.file.write_bytes(content)
    assert rounds.due([production_version("A")], NOW)
    rounds.note(production_version("A"), NOW)
    assert not rounds.due([production_version("A")], NOW)


def test_rounds_without_a_length_make_every_version_always_due(tmp_path: Path) -> None:
    rounds = DueVerifications(tmp_path / "verified.json", timedelta())
    rounds.note(production_version("A"), NOW)
    assert rounds.due([production_version("A")], NOW)
