"""Routes of the paper record and of the value of continuous learning."""

from collections.abc import Callable
from pathlib import Path

from fastapi.testclient import TestClient
from shadow_worlds import MakeVersion, World
from sqlalchemy import Engine

from clm_core.api.app import create_app
from clm_core.domain.vocabulary import Role
from clm_core.services import Services


def test_viewers_read_the_record_of_a_version_the_value_of_learning_and_the_attribution(
    wired: Services,
    make_token: Callable[..., str],
    model_id: str,
    make_version: MakeVersion,
    tmp_path: Path,
    ledger_engine: Engine,
) -> None:
    world = World(wired, model_id, make_version, tmp_path, ledger_engine)
    version = world.register(9)
    world.follow(version, world.foresight, 12)
    world.promote(version, 10)
    headers = {"Authorization": f"Bearer {make_token(Role.VIEWER)}"}
    client = TestClient(create_app(world.services(12)), headers=headers)
    address = f"/clm/models/{world.model_id}"
    page = client.get(f"{address}/versions/{version.version}/record", params={"limit": 1}).json()
    assert (page["bars"], len(page["items"]), page["items"][0]["late"]) == (3, 1, False)
    following = client.get(
        f"{address}/versions/{version.version}/record", params={"limit": 1, "after": page["next"]}
    ).json()
    assert following["items"][0]["time"] < page["items"][0]["time"]
    everything = client.get(
        f"{address}/versions/{version.version}/record", params={"since": "0147-02-07", "until": "9999-12-31"}
    ).json()
    assert len(everything["items"]) == 3
    value = client.get(f"{address}/learning").json()
    assert (value["frozen"], value["since"]) == (version.version, None)
    assert client.get("/clm/models/nobody_btcusd_1h/learning").status_code == 404
    attributed = client.get(f"{address}/attribution").json()
    assert attributed["name"] == "attribution"
    assert {row["name"] for row in attributed["values"]["side"]["rows"]} <= {"long", "short"}
    assert client.get("/clm/models/nobody_btcusd_1h/attribution").status_code == 404
