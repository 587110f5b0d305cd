"""`clm attribution` of a version, a model and all models."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
from shadow_worlds import MakeVersion, World
from sqlalchemy import Engine
from typer.testing import CliRunner

from clm_core import services as stores
from clm_core.cli.app import app
from clm_core.domain.errors import NotFound
from clm_core.services import Services


def test_attribution_of_a_version_a_model_and_all_models(
    services: Services,
    model_id: str,
    make_version: MakeVersion,
    tmp_path: Path,
    ledger_engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(services, model_id, make_version, tmp_path, ledger_engine)
    version = world.register(9)
    world.follow(version, world.foresight, 40)
    world.promote(version, 10)
    monkeypatch.setenv("CLM_HOME", str(services.settings.home))
    monkeypatch.setattr(stores, "open_services", lambda *_, **__: nullcontext(world.services(40)))

    def output_of(*arguments: str) -> str:
        return CliRunner().invoke(app, ["attribution", *arguments], catch_exceptions=False).stdout

    life = json.loads(output_of(world.model_id, "--json"))
    alone = json.loads(output_of(f"{world.model_id}@{version.version}", "--json"))
    assert life["values"]["total"] > 0.0
    # from the registration a day earlier
    assert alone["values"]["total"] > life["values"]["total"]
    assert f"{world.model_id} in production, 2024-01-11 00:00" in output_of(world.model_id)
    page = Path(output_of("--page").strip())
    assert f"{world.model_id}, 2024-01-11 00:00" in page.read_text(encoding="utf-8")
    with pytest.raises(NotFound, match="no version or model nobody"):
        output_of("nobody")
