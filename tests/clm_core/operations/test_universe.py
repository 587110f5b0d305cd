"""Universe in force: listed markets, or the models trained in a home."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from markets import add_market
from records import a_job

from clm_core.domain.vocabulary import ModelType
from clm_core.market.sources import MarketData
from clm_core.operations.universe import with_trained, with_universe
from clm_core.services import Services
from clm_core.settings import Settings
from deployments.definitions import target_deployments


@pytest.fixture
def market(tmp_path: Path) -> MarketData:
    for symbol in ("ETHUSDT", "SOLUSDT"):
        add_market(tmp_path, symbol)
    data = MarketData(tmp_path)
    data.add_planted(400, datetime(2026, 1, 1, tzinfo=UTC))
    return data


def test_models_trained_on_own_bars_have_schedules_and_those_of_the_demo_have_none(
    tmp_path: Path, market: MarketData
) -> None:
    trained = [
        a_job(symbol="BTCUSD"),
        a_job(symbol="PLANTED"),
        a_job(symbol="ETHUSDT", dataset_span_days=200),
        a_job(symbol="ETHUSDT", model_type=ModelType.OTHER, plugin="momentum"),
        a_job(symbol="SOLUSDT", model_type=ModelType.OTHER, plugin="removed"),
        a_job(symbol="SOLUSDT", model_type=ModelType.ENSEMBLE),
        a_job(symbol="NOBARSUSD"),
        a_job(symbol="DUO", symbols=("ETHUSDT", "SOLUSDT"), data_snapshots=("a", "b")),
    ]
    settings = with_trained(Settings(home=tmp_path), market, trained)
    deployed = {each.name: each for each in target_deployments(settings)}
    retrains = {name for name in deployed if name.endswith("_1h") and not name.startswith("shadow")}
    assert retrains == {"xgboost_ethusdt_1h", "momentum_ethusdt_1h", "xgboost_duo_1h"}
    request = deployed["xgboost_ethusdt_1h"].scheduled_parameters["request"]
    assert (request["dataset_span_days"], request["trigger_reason"]) == (200, "periodic")


@pytest.mark.parametrize("listed", [(), ({"symbol": "BTCUSD"},)], ids=["no market", "one market"])
def test_a_listed_universe_is_in_force_as_it_stands(services: Services, listed: tuple[object, ...]) -> None:
    settings = Settings.model_validate({"home": services.settings.home, "universe": listed})
    assert with_universe(settings) == settings


def test_a_home_without_a_database_trains_nothing_and_gets_none(tmp_path: Path) -> None:
    assert with_universe(Settings(home=tmp_path)).universe == ()
    assert not (tmp_path / "postgres").exists()


def test_the_models_of_a_home_are_read_from_its_ledger(services: Services) -> None:
    in_force = with_universe(Settings(home=services.settings.home))
    trained = {job.model_id for job in services.ledger.newest_trained()}
    kinds = (
        (*(each.value for each in market.model_types or ()), *market.plugins) for market in in_force.universe
    )
    assert {
        f"{kind}_{market.symbol}_{market.timeframe}".lower()
        for market, names in zip(in_force.universe, kinds, strict=True)
        for kind in names
    } <= trained
