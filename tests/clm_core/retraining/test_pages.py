"""Page of a retrain's run: links that are kept, and the version beside the champion."""

import json
from collections.abc import Callable
from pathlib import Path

import promoting

from clm_core.domain.actors import Actor
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import Role
from clm_core.platform import stack_state
from clm_core.retraining import pages
from clm_core.retraining.results import TearSheetFiles
from clm_core.services import Services

MakeVersion = Callable[..., ModelVersion]
ADA = Actor(name="ada", role=Role.OPERATOR)


def test_the_links_lead_to_the_ports_of_the_home_also_while_nothing_is_up(
    services: Services, make_version: MakeVersion, model_id: str, tmp_path: Path
) -> None:
    version = make_version(model_id)
    _, verdict = services.ledger.evaluation(model_id, version.version)
    files = TearSheetFiles(tmp_path / "sheet.html", b"png")

    def links(public_url: str | None = None) -> str:
        addresses = stack_state.page_addresses(tmp_path, public_url)
        page = pages.summary_page(addresses, version, verdict, files)
        return next(line for line in page.splitlines() if line.endswith(f"`{version.model_path}`"))

    assert links().startswith("`clm up` serves the tear sheet")
    stack_state.folder(tmp_path).mkdir()
    (stack_state.folder(tmp_path) / "ports.json").write_text(json.dumps({"api": 8001, "mlflow": 5001}))
    assert links().split(" · ")[:3] == [
        f"[Tear sheet](http://127.0.0.1:8001/models/{model_id}/versions/{version.version}/report)",
        f"[Model](http://127.0.0.1:8001/models/{model_id})",
        f"[Version in MLflow](http://127.0.0.1:5001/#/models/{model_id}/versions/{version.mlflow_version})",
    ]
    assert links("https://clm.example/").startswith("[Tear sheet](https://clm.example/models/")


def test_a_version_stands_beside_the_production_version_and_beside_none_alone(
    services: Services, make_version: MakeVersion, model_id: str
) -> None:
    first = make_version(model_id)
    second = make_version(model_id, sharpe=1.5)
    _, verdict = services.ledger.evaluation(model_id, second.version)
    assert pages.beside_champion(services.ledger, second, verdict) is None
    promoting.promote(services, model_id, first.version, ADA, "", services.clock())
    beside = pages.beside_champion(services.ledger, second, verdict)
    assert beside is not None
    [head, _, *rows] = beside.splitlines()
    assert head == f"| check | {second.version} | {first.version} (production) | required |"
    [row] = [row for row in rows if row.startswith("| Sharpe ratio |")]
    ratios = [cell.strip().partition(" ")[0] for cell in row.split("|")[2:4]]
    assert ratios == ["1.50", "2.00"]
