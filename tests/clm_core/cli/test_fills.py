"""`clm fills` on a model with recorded positions and stored bars."""

import contextlib
import json
from pathlib import Path

import pytest
from click.testing import Result
from shadow_worlds import ADA, MakeVersion, World
from sqlalchemy import Engine
from typer.testing import CliRunner

from clm_core.cli.app import app
from clm_core.domain.errors import NotFound
from clm_core.domain.fills import Fill
from clm_core.lifecycle.fills import report_fills
from clm_core.services import Services

NOW = 20


@pytest.fixture
def world(
    services: Services,
    model_id: str,
    make_version: MakeVersion,
    tmp_path: Path,
    ledger_engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    world = World(services, model_id, make_version, tmp_path, ledger_engine)
    monkeypatch.setenv("CLM_HOME", str(services.settings.home))
    clm = world.services(NOW)
    monkeypatch.setattr("clm_core.services.open_services", lambda _: contextlib.nullcontext(clm))
    version = world.register(9)
    world.follow(version, world.foresight, NOW)
    world.promote(version, 10)
    return world


def report(world: World) -> None:
    """A purchase at 0.1 % above the open of day 12, with a fee, and a resting sale a day later."""
    [version] = world.services(NOW).ledger.versions(model_id=world.model_id)
    stated = {"model_id": world.model_id, "version": version.version}
    bought = {"id": "b1", "time": world.when(12.1), "change": 1.0, "price": world.bars.open[12] * 1.001}
    sold = {"id": "s1", "time": world.when(13.1), "change": -1.0, "price": world.bars.open[13]}
    fills = [stated | bought | {"fee_bps": 4.5}, stated | sold | {"resting": True}]
    report_fills(world.services(NOW), [Fill.model_validate(each) for each in fills], ADA)


def fills_command(*words: str) -> Result:
    return CliRunner().invoke(app, ["fills", *words], env={"COLUMNS": "200"})


def test_fills_are_listed_newest_first_with_slippage_and_fee_and_a_sentence(world: World) -> None:
    report(world)
    lines = fills_command(world.model_id).output.splitlines()
    sold, bought = (next(line for line in lines if line.rstrip().endswith(name)) for name in ("s1", "b1"))
    assert lines.index(sold) < lines.index(bought)
    assert "+10.00 bps" in bought
    assert "4.50 bps" in bought
    assert "resting order" in sold
    assert "2 fills" in lines[-1]


def test_fills_as_json_are_pages_that_follow_one_another(world: World) -> None:
    report(world)
    first = json.loads(fills_command(world.model_id, "--limit", "1", "--json").output)
    assert [each["id"] for each in first["items"]] == ["s1"]
    assert f"--after {first['next']}" in fills_command(world.model_id, "--limit", "1").output
    rest = json.loads(fills_command(world.model_id, "--after", first["next"], "--json").output)
    assert [(each["id"], each["slippage_bps"]) for each in rest["items"]] == [("b1", pytest.approx(10.0))]
    assert rest["next"] is None


def test_a_model_without_fills_says_where_traders_send_them_and_an_unknown_model_is_refused(
    world: World,
) -> None:
    assert "traders send them to POST /clm/fills" in fills_command(world.model_id).output
    assert isinstance(fills_command("nobody_btcusd_1h").exception, NotFound)
