"""Deployments of the pools in the settings."""

from pathlib import Path

import pytest

from clm_core.domain.errors import ModelError
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.pools import PoolSettings
from clm_core.domain.vocabulary import ModelType, TriggerReason
from clm_core.settings import Settings
from deployments.definitions import target_deployments

SYMBOLS = ("BTCUSDT", "ETHUSDT")


def settings(tmp_path: Path, **pool: object) -> Settings:
    trio = PoolSettings.model_validate({"symbols": SYMBOLS, "timeframe": "4h"} | pool)
    return Settings(home=tmp_path, database_url=None, pools={"DUO": trio})


def test_a_pool_has_a_retrain_for_each_kind_and_the_shadow_pass_of_its_timeframe(tmp_path: Path) -> None:
    made = {each.name: each for each in target_deployments(settings(tmp_path, model_types=("xgboost",)))}
    pool = made["xgboost_duo_4h"]
    request = RetrainRequest.model_validate(pool.scheduled_parameters["request"])
    assert (request.symbol, request.symbols, request.timeframe) == ("DUO", SYMBOLS, "4h")
    assert request.trigger_reason is TriggerReason.PERIODIC
    assert "BTCUSDT, ETHUSDT 4h as the pool DUO" in pool.description
    assert "shadow-4h" in made


def test_a_pool_without_kinds_is_retrained_on_demand_only(tmp_path: Path) -> None:
    assert not any("duo" in each.name for each in target_deployments(settings(tmp_path)))


def test_a_kind_that_cannot_pool_is_refused_with_those_that_can(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"rl_v3 cannot fit one model .* choose one of xgboost, lightgbm"):
        target_deployments(settings(tmp_path, model_types=(ModelType.RL_V3,)))


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        ({"symbols": ["BTCUSDT"]}, "at least 2"),
        ({"symbols": ["BTCUSDT", "btc/usdt"]}, "BTCUSDT is named twice"),
        ({"symbols": ["BTCUSDT", "ETHUSDT"], "model_types": ["other"]}, "stands for a plug-in"),
        ({"symbols": ["BTCUSDT", "ETHUSDT"], "model_types": ["ensemble"]}, "cannot be scheduled"),
    ],
    ids=["one symbol", "twice", "a plug-in without a name", "an ensemble"],
)
def test_a_pool_of_the_settings_that_makes_no_sense_is_refused(pool: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PoolSettings.model_validate(pool)
