"""Kept drift of a production version, by REST and by `clm drift`."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from clm_core.cli.app import app
from clm_core.cli.drift import bars
from clm_core.domain.drift_history import DriftMeasurement
from clm_core.domain.errors import NotFound
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import Role
from clm_core.services import Services

Client = Callable[[Role | None], TestClient]
MakeVersion = Callable[..., ModelVersion]


def test_drift_of_a_production_version_is_listed_with_the_discoveries(
    client: Client,
    make_version: MakeVersion,
    model_id: str,
    services: Services,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLM_HOME", str(services.settings.home))
    version = make_version(model_id).version
    missing = client(Role.VIEWER).get(f"/clm/models/{model_id}/drift")
    assert (missing.status_code, missing.json()["type"]) == (404, "urn:clm:problem:not-found")
    with pytest.raises(NotFound, match=f"No version of {model_id} is in production"):
        CliRunner().invoke(app, ["drift", model_id], catch_exceptions=False)

    promote = {"model_id": model_id, "version": version}
    assert client(Role.OPERATOR).post("/clm/promote", json=promote).status_code == 200
    assert "has kept no drift" in CliRunner().invoke(app, ["drift", model_id]).stdout
    today = services.clock().date()
    kept = [
        DriftMeasurement(day=today - timedelta(days=days), name=name, score=score, p_value=p_value)
        for days, name, score, p_value in (
            (0, "atr_14", 2.0, 1e-9),
            (1, "atr_14", 0.3, 0.6),
            (0, "rsi_14", 0.4, 0.4),
        )
    ]
    services.ledger.drift.record(model_id, version, kept)
    answer = client(Role.VIEWER).get(f"/clm/models/{model_id}/drift", params={"days": 7}).json()
    assert (answer["version"], answer["newest_day"]) == (version, today.isoformat())
    assert [(each["name"], each["drifted"]) for each in answer["features"]] == [
        ("atr_14", True),
        ("rsi_14", False),
    ]
    assert [each["score"] for each in answer["features"][0]["measurements"]] == [0.3, 2.0]
    table = CliRunner().invoke(app, ["drift", model_id]).stdout
    assert "▂█" in table
    assert "1 of 2 have drifted" in table
    assert json.loads(CliRunner().invoke(app, ["drift", model_id, "--json"]).stdout) == answer
    page = Path(CliRunner().invoke(app, ["drift", model_id, "--page"]).stdout.strip())
    assert 'id="drift-features"' in page.read_text(encoding="utf-8")


def test_blocks_rise_with_the_score() -> None:
    assert bars([0.0, 0.19, 1.0, 1.49, 9.0]) == "▁▂▆██"
