"""Routes of fills."""

from collections.abc import Callable
from pathlib import Path

from fastapi.testclient import TestClient
from shadow_worlds import MakeVersion, World
from sqlalchemy import Engine

from clm_core.api.app import create_app
from clm_core.domain.vocabulary import Role
from clm_core.services import Services


def test_reporters_report_fills_and_viewers_read_them(
    wired: Services,
    make_token: Callable[..., str],
    model_id: str,
    make_version: MakeVersion,
    tmp_path: Path,
    ledger_engine: Engine,
) -> None:
    world = World(wired, model_id, make_version, tmp_path, ledger_engine)
    version = world.register(9)
    world.follow(version, world.foresight, 20)
    world.promote(version, 10)
    app = create_app(world.services(20))

    def client(role: Role) -> TestClient:
        return TestClient(app, headers={"Authorization": f"Bearer {make_token(role)}"})

    fill = {
        "id": "order-1",
        "model_id": world.model_id,
        "version": version.version,
        "time": world.when(12.1).isoformat(),
        "change": 1.0,
        "price": float(world.bars.open[12]),
        "fee_bps": 4.5,
    }
    send = client(Role.REPORTER)
    answer = send.post("/clm/fills", json={"fills": [fill]})
    assert (answer.status_code, answer.json()) == (200, {"new": 1, "known": 0})
    assert send.post("/clm/fills", json={"fills": [fill]}).json() == {"new": 0, "known": 1}
    differing = send.post("/clm/fills", json={"fills": [fill | {"change": 0.5}]})
    assert (differing.status_code, differing.json()["type"]) == (409, "urn:clm:problem:already-exists")
    wrong = send.post("/clm/fills", json={"fills": [fill | {"id": "2", "price": 1.0}]})
    assert (wrong.status_code, wrong.json()["type"]) == (422, "urn:clm:problem:fill-refused")
    early = send.post("/clm/fills", json={"fills": [fill | {"id": "3", "time": world.when(20).isoformat()}]})
    assert (early.status_code, early.json()["type"]) == (409, "urn:clm:problem:bar-not-stored")
    malformed = send.post("/clm/fills", json={"fills": [fill | {"change": 0.0, "time": 1}]})
    assert malformed.status_code == 422
    assert client(Role.VIEWER).post("/clm/fills", json={"fills": [fill]}).status_code == 403
    assert send.get(f"/clm/fills/{world.model_id}").status_code == 403
    assert client(Role.OPERATOR).post("/clm/fills", json={"fills": [fill]}).json() == {"new": 0, "known": 1}
    page = client(Role.VIEWER).get(f"/clm/fills/{world.model_id}").json()
    assert [(each["id"], each["slippage_bps"]) for each in page["items"]] == [("order-1", 0.0)]
    assert (page["markets"][0]["turnover"], page["markets"][0]["measured"]["fee_bps"]) == (1.0, 4.5)
    assert client(Role.VIEWER).get("/clm/fills/nobody_btcusd_1h").status_code == 404
