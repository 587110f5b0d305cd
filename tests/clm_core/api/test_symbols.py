"""Models whose symbol has a dot, such as BTCUSDT.P, in MLflow, the ledger and the REST API."""

from collections.abc import Callable
from datetime import UTC, datetime

import promoting
import pytest

from clm_core.domain.actors import Actor
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelStatus, Role
from clm_core.services import Services

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "model_id", ["lightgbm_btcusdt.p_1h", "lightgbm_btcusd.p-btc_1h", "lightgbm_brk-b_1h"]
)
def test_a_model_of_a_symbol_with_a_dot_is_registered_promoted_loaded_and_listed(
    services: Services, make_version: Callable[..., ModelVersion], client: Callable, model_id: str
) -> None:
    version = make_version(model_id)
    assert version.model_id == model_id
    operator = Actor(name="an operator", role=Role.OPERATOR)
    promoting.promote(services, model_id, version.version, operator, "tested", NOW)
    assert services.ledger.version(model_id, version.version).status is ModelStatus.PRODUCTION
    assert services.registry.aliased(model_id, "production") == version.mlflow_version
    services.registry.load(version.model_path, version.bundle_digest)
    answer = client(Role.VIEWER).get(f"/clm/models/{model_id}/versions/{version.version}")
    assert answer.status_code == 200, answer.text
    listed = client(Role.VIEWER).get("/clm/models", params={"symbol": version.symbol.lower()})
    assert model_id in listed.text
