"""`clm show` of a version that was in production."""

import json
from collections.abc import Callable

import promoting
import pytest
from typer.testing import CliRunner

from clm_core.cli.app import app
from clm_core.domain.actors import Actor
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import Role
from clm_core.services import Services

ADA = Actor(name="ada", role=Role.OPERATOR)


def test_show_tells_of_the_promotion_and_the_rollback_of_a_version(
    services: Services,
    make_version: Callable[..., ModelVersion],
    model_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLM_HOME", str(services.settings.home))
    first, second = make_version(model_id), make_version(model_id)
    for version in (first, second):
        promoting.promote(services, model_id, version.version, ADA, "tested", services.clock())
    services.promotions.rollback(model_id, ADA, "drawdown", services.clock())
    shown = CliRunner().invoke(app, ["show", f"{model_id}@{second.version}"]).stdout
    lines = [line for line in shown.splitlines() if " in production after " in line]
    assert [line.partition(",")[0] for line in lines] == ["promoted", "rolled back"]
    assert lines[1].endswith(f"{first.version} in production after {second.version}, by ada: drawdown")
    as_json = CliRunner().invoke(app, ["show", f"{model_id}@{second.version}", "--json"]).stdout
    assert [each["kind"] for each in json.loads(as_json)["production_changes"]] == ["promotion", "rollback"]
