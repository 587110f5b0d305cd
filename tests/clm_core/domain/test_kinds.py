from typing import Any

import pytest
from pydantic import ValidationError

from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.kinds import Kind
from clm_core.domain.universe import Market
from clm_core.domain.vocabulary import ModelType
from clm_core.triggers.messages import RegimeChanged


@pytest.mark.parametrize(
    ("kind", "model_id"),
    [
        ({"model_type": "xgboost"}, "xgboost_btcusd_1h"),
        ({"model_type": "ensemble"}, "ensemble_btcusd_1h"),
        ({"model_type": "other", "plugin": "ridge"}, "ridge_btcusd_1h"),
        ({"model_type": "other", "plugin": "ridge_2"}, "ridge_2_btcusd_1h"),
        ({"model_type": "other", "plugin": "momentum"}, "momentum_btcusd_1h"),
        ({"model_type": "momentum"}, "momentum_btcusd_1h"),
        ({"model_type": "momentum", "plugin": "momentum"}, "momentum_btcusd_1h"),
    ],
    ids=["built-in", "ensemble", "plug-in", "another plug-in", "rule strategy", "by name", "named twice"],
)
def test_a_model_id_begins_with_its_type_or_its_plug_in(kind: dict[str, Any], model_id: str) -> None:
    assert RetrainRequest(**kind, symbol="BTCUSD").model_id == model_id


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        pytest.param({"model_type": "other"}, "needs the name of a plug-in", id="nameless"),
        pytest.param({"model_type": "xgboost", "plugin": "ridge"}, "leave ridge out", id="not a plug-in"),
        pytest.param({"model_type": "other", "plugin": "nhits"}, "is a built-in type", id="built-in name"),
        pytest.param({"model_type": "momentum", "plugin": "ridge"}, "leave ridge out", id="rule strategy"),
        pytest.param({"model_type": "other", "plugin": "Ridge"}, "match pattern", id="upper case"),
        pytest.param({"model_type": "other", "plugin": "a/../b"}, "match pattern", id="a path"),
        pytest.param({"model_type": "other", "plugin": ""}, "match pattern", id="empty"),
    ],
)
def test_a_plug_in_is_named_if_and_only_if_the_type_is_other(kind: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        RetrainRequest(**kind, symbol="BTCUSD")


@pytest.mark.parametrize("types", [("other",), ("xgboost", "ensemble")], ids=["plug-in", "ensemble"])
def test_a_schedule_refuses_types_that_need_a_name_or_members(types: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match="name"):
        Market(symbol="BTCUSD", model_types=types)


def test_the_name_of_a_rule_strategy_stands_for_type_and_name_in_json() -> None:
    request = RetrainRequest.model_validate_json('{"model_type": "ma_cross", "symbol": "BTCUSD"}')
    assert request.kind == Kind(ModelType.OTHER, "ma_cross") == Kind.named("ma_cross")
    assert RetrainRequest.model_validate(request.model_dump(mode="json")) == request


def test_an_event_names_plug_ins_apart_from_types() -> None:
    with pytest.raises(ValidationError, match="name the plug-in in plugins"):
        RegimeChanged.model_validate_json('{"symbol": "BTCUSD", "current": "calm", "model_types": ["other"]}')
