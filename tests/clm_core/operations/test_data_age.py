"""Age of the bars of the markets in use, and the alert about markets without new bars."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import promoting
import pytest

from clm_core.domain.actors import Actor
from clm_core.domain.alerts import AlertKind
from clm_core.domain.bar_age import MarketAge, in_words
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.pools import PoolSettings
from clm_core.domain.universe import Market
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import ModelType, Role
from clm_core.market.newest_bars import PLANTED_SOURCE
from clm_core.market.sources import MarketData
from clm_core.market.store import SeriesStore
from clm_core.operations.data_age import data_age, report_stale_markets
from clm_core.operations.metrics import exposition
from clm_core.operations.overview import read_history
from clm_core.retraining.bars_age import stale_markets
from clm_core.services import Services

END = datetime(2019, 10, 17, 10, tzinfo=UTC)
"""Close of the newest bar of the bundled BTCUSD."""
FETCHED = Market(symbol="AGEDUSDT", exchange="binance")
BY_HAND = Market(symbol="HANDUSD")


@pytest.fixture
def clm(services: Services, tmp_path: Path) -> Services:
    """Services 14 months after the newest bar, with a fetched and an imported market and one of a pool."""
    bars = services.market.bars("BTCUSD", "1h", 3, closed_by=END)
    store = SeriesStore(tmp_path / "data")
    for symbol in ("AGEDUSDT", "HANDUSD", "POOLEDUSD"):
        store.add(replace(bars, symbol=symbol), "tests", END)
    store.add(replace(bars, symbol="PLANTED"), PLANTED_SOURCE, END)
    settings = services.settings.model_copy(
        update={
            "universe": (FETCHED, BY_HAND, Market(symbol="PLANTED"), Market(symbol="BTCUSD")),
            "pools": {"AGEDPOOL": PoolSettings(symbols=("HANDUSD", "POOLEDUSD"))},
        }
    )
    return replace(
        services,
        settings=settings,
        open_market=lambda: MarketData(tmp_path),
        clock=lambda: END + timedelta(days=427),
    )


def of(clm: Services, symbol: str) -> MarketAge:
    age = data_age(clm).of(symbol, "1h")
    assert age is not None
    return age


def test_the_age_of_every_market_in_use_is_measured_and_only_missing_new_bars_alarm(clm: Services) -> None:
    words = {symbol: of(clm, symbol).word for symbol in ("AGEDUSDT", "HANDUSD", "PLANTED", "BTCUSD")}
    assert words == {"AGEDUSDT": "STALE", "HANDUSD": "STALE", "PLANTED": "demo", "BTCUSD": "demo"}
    assert data_age(clm).markets[0].bars.symbol == "AGEDUSDT", "what alarms comes first"
    assert of(clm, "POOLEDUSD").bars.sentence == (
        "the newest bar of POOLEDUSD 1h closed at 2019-10-17 10:00 UTC, 14 months ago: 10,248 bars late"
    )
    # of markets whose bars a person adds, and of the demo, nobody is told
    alarming = {each.bars.symbol for each in data_age(clm).markets if each.is_alarming}
    assert alarming & {"AGEDUSDT", "HANDUSD", "PLANTED", "BTCUSD", "POOLEDUSD"} == {"AGEDUSDT"}


def test_prometheus_is_told_of_the_newest_and_the_late_bars(clm: Services) -> None:
    lines = exposition(clm).decode().splitlines()
    labels = '{symbol="AGEDUSDT",timeframe="1h"}'
    assert f"clm_late_bars{labels} 10248.0" in lines
    [newest] = [line for line in lines if line.startswith(f"clm_newest_bar_timestamp_seconds{labels} ")]
    assert float(newest.rpartition(" ")[2]) == END.timestamp()


def test_a_fetched_market_without_new_bars_is_alerted_once_until_bars_come(clm: Services) -> None:
    report_stale_markets(clm)
    report_stale_markets(clm)
    [alert] = [each for each in clm.alerts.lasting(AlertKind.STALE_BARS) if each.subject == "AGEDUSDT 1h"]
    assert alert.message.startswith("The newest bar of AGEDUSDT 1h closed at 2019-10-17 10:00 UTC, 14 months")
    assert "`clm data update` fetches the bars" in alert.message
    report_stale_markets(replace(clm, clock=lambda: END + timedelta(hours=2)))
    assert "AGEDUSDT 1h" not in [each.subject for each in clm.alerts.lasting(AlertKind.STALE_BARS)]


def test_a_market_on_which_a_version_serves_is_alerted_and_shown_on_the_page_of_the_model(
    clm: Services, make_version: Callable[..., ModelVersion], tmp_path: Path
) -> None:
    version = make_version("xgboost_served_1h")
    bars = clm.market.bars("HANDUSD", "1h", closed_by=END)
    SeriesStore(tmp_path / "data").add(replace(bars, symbol=version.symbol), "tests", END)
    ada = Actor(name="ada", role=Role.OPERATOR)
    promoting.promote(clm, version.model_id, version.version, ada, "", version.created_at)
    report_stale_markets(clm)
    history = read_history(clm, version.model_id)
    [market] = history.data.markets
    assert version.model_id in market.serving
    assert [each.kind for each in history.alerts] == [AlertKind.STALE_BARS]
    assert "to an old market. `clm data import`" in history.alerts[0].message
    clm.promotions.halt(version.model_id, ada, "over", version.created_at)
    report_stale_markets(clm)


def test_a_retrain_is_told_of_stale_bars_of_its_markets_before_it_begins(clm: Services) -> None:
    def told(services: Services, **market: Any) -> list[str]:
        request = RetrainRequest(model_type=ModelType.LIGHTGBM, requested_by="tests", **market)
        return [age.market for age in stale_markets(services, request)]

    assert told(clm, symbol="agedusdt", timeframe="60m") == ["AGEDUSDT 1h"]
    assert told(clm, symbol="AGEDPOOL") == ["HANDUSD 1h", "POOLEDUSD 1h"]
    assert told(replace(clm, clock=lambda: END + timedelta(hours=2)), symbol="AGEDUSDT") == []


def test_a_damaged_manifest_is_named_and_leaves_the_alerts_as_they_are(clm: Services, tmp_path: Path) -> None:
    report_stale_markets(clm)
    (tmp_path / "data" / "AGEDUSDT" / "1h" / "manifest.json").write_text(json.dumps({"snapshots": []}))
    problem = report_stale_markets(clm).problem
    assert problem is not None
    assert "AGEDUSDT/1h/manifest.json is damaged" in problem
    assert "AGEDUSDT 1h" in [each.subject for each in clm.alerts.lasting(AlertKind.STALE_BARS)]
    clm.alerts.end(AlertKind.STALE_BARS, "AGEDUSDT 1h", clm.clock())


def test_the_age_of_markets_that_never_close_is_read_without_pandas() -> None:
    code = (
        "import sys; from datetime import UTC, datetime; from pathlib import Path; "
        "from clm_core.market.newest_bars import newest_bars; "
        "from clm_core.market.storage import FolderStorage; "
        "[newest] = newest_bars(FolderStorage(Path('.')), [('BTCUSD', '1h')]); "
        "assert newest.late_bars(datetime(2020, 1, 1, tzinfo=UTC)) == 1814; "
        "assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (timedelta(seconds=40), "moments"),
        (timedelta(seconds=70), "1 minute"),
        (timedelta(hours=30), "30 hours"),
        (timedelta(days=59), "59 days"),
        (timedelta(days=427), "14 months"),
        (timedelta(days=2601), "7 years"),
    ],
    ids=lambda each: str(each).replace(" ", "-"),
)
def test_an_age_is_told_in_the_largest_unit_of_which_there_are_two(span: timedelta, words: str) -> None:
    assert in_words(span) == words
