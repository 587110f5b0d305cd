"""Trials of a market count under every name of its series, and the error of the fleet is bounded."""

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine, text

from clm_core.decisions.gate_policy import load_document
from clm_core.domain.errors import PolicyError
from clm_core.ledger.store import Ledger
from clm_core.market.bars import Bars, Floats
from clm_core.market.sources import MarketData
from clm_core.market.store import SeriesStore
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.retraining.counted_trials import CountedTrials, counted_trials

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FIRST = int(datetime(2025, 1, 1, tzinfo=UTC).timestamp()) * 10**9
DAYS = 120


def walk(seed: int) -> Floats:
    return np.asarray(
        100.0 * np.exp(np.cumsum(0.004 * np.random.default_rng(seed).standard_normal(24 * DAYS)))
    )


def add(store: SeriesStore, symbol: str, closes: Floats, timeframe: Timeframe = Timeframe.H1) -> None:
    time = FIRST + np.arange(len(closes), dtype=np.int64) * timeframe.nanoseconds
    columns = (closes, closes * 1.0001, closes * 0.9999, closes, np.ones(len(closes)))
    store.add(Bars(symbol, timeframe, Calendar.ALWAYS, time, *columns), "tests", NOW)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> MarketData:
    """A market stored under four names, and another one."""
    home: Path = tmp_path_factory.mktemp("market")
    store = SeriesStore(home / "data")
    closes = walk(1)
    add(store, "AAAUSD", closes)
    add(
        store,
        "OTHERNAME",
        7.0 * closes * np.exp(0.0005 * np.random.default_rng(2).standard_normal(24 * DAYS)),
    )
    add(store, "USDAAA", 1.0 / closes)
    add(store, "AAAUSD", closes[3::4], Timeframe.H4)
    add(store, "BBBUSD", walk(3))
    return MarketData(home)


@pytest.fixture(autouse=True)
def no_trials(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE begun_trials"))


def begin(ledger: Ledger, symbol: str, timeframe: str = "1h", at: datetime = NOW) -> None:
    ledger.trials.begin(uuid.uuid4(), symbol, timeframe, 20_089, at)


def counted(
    ledger: Ledger, market: MarketData, symbol: str, *members: str, **more: datetime
) -> CountedTrials:
    return counted_trials(ledger, market, symbol, "1h", members, now=NOW, **more)


def test_a_market_under_another_name_quote_or_timeframe_shares_the_trials(
    ledger: Ledger, market: MarketData
) -> None:
    for symbol, timeframe in (("AAAUSD", "1h"), ("OTHERNAME", "1h"), ("USDAAA", "1h"), ("AAAUSD", "4h")):
        begin(ledger, symbol, timeframe)
    begin(ledger, "BBBUSD")
    trials = counted(ledger, market, "AAAUSD")
    assert len(trials.records) == 4
    assert [(each.symbol, each.timeframe, each.trials) for each in trials.matched] == [
        ("AAAUSD", "4h", 1),
        ("OTHERNAME", "1h", 1),
        ("USDAAA", "1h", 1),
    ]
    assert [round(each.correlation, 1) for each in trials.matched] == [1.0, 1.0, -1.0]
    assert trials.matched[2].text == f"USDAAA 1h (correlation -1.00 over {DAYS - 1} days, 1 trials)"
    assert len(counted(ledger, market, "OTHERNAME").records) == 4
    assert len(counted(ledger, market, "BBBUSD").records) == 1


def test_trials_of_a_matched_series_count_for_a_pool_with_the_market(
    ledger: Ledger, market: MarketData
) -> None:
    begin(ledger, "POOL")
    begin(ledger, "OTHERNAME")
    begin(ledger, "POOL", "4h")
    trials = counted(ledger, market, "POOL", "AAAUSD", "BBBUSD")
    assert len(trials.records) == 3
    assert [each.symbol for each in trials.matched] == ["OTHERNAME", "POOL"]


def test_trials_after_the_moment_do_not_count(ledger: Ledger, market: MarketData) -> None:
    begin(ledger, "AAAUSD")
    begin(ledger, "OTHERNAME", at=NOW + timedelta(days=1))
    assert len(counted(ledger, market, "AAAUSD").records) == 2
    trials = counted(ledger, market, "AAAUSD", until=NOW)
    assert (len(trials.records), trials.matched) == (1, ())


def test_a_series_that_cannot_be_read_is_named(ledger: Ledger, market: MarketData) -> None:
    begin(ledger, "AAAUSD")
    begin(ledger, "GONEUSD")
    trials = counted(ledger, market, "AAAUSD")
    assert len(trials.records) == 1
    assert trials.unread == ("GONEUSD 1h",)
    assert "GONEUSD 1h were not compared" in trials.warnings[0]


def test_the_fleet_is_the_markets_with_trials_in_the_last_year(ledger: Ledger, market: MarketData) -> None:
    for symbol in ("AAAUSD", "OTHERNAME", "BBBUSD"):
        begin(ledger, symbol)
    begin(ledger, "OLDUSD", at=NOW - timedelta(days=400))
    assert counted(ledger, market, "AAAUSD").markets == 2


def policy_of(budget: str, tmp_path: Path, evidence: str = ""):
    file = tmp_path / "policy.toml"
    file.write_text(f'version = 1\npreset = "strict"\n[fleet]\nbudget = {budget}\n{evidence}')
    return load_document(file).policy("any model", "any market")


def test_the_error_over_the_fleet_keeps_the_budget(tmp_path: Path) -> None:
    policy = policy_of("0.05", tmp_path)
    assert policy.fleet_error(1) == pytest.approx(0.05)
    assert policy.fleet_error(20) == pytest.approx(1.0 - 0.95**20)
    assert policy.within_fleet(1) == policy
    bounded = policy.within_fleet(20)
    assert bounded.evidence is not None
    assert bounded.evidence.min_deflated_sharpe == pytest.approx(0.95 ** (1 / 20))
    assert bounded.fleet_error(20) == pytest.approx(0.05)
    assert bounded.digest != policy.digest
    assert bounded.name == "strict, budget of 20 markets"


def test_without_a_budget_each_market_has_its_own_error() -> None:
    policy = load_document().policy("any model", "any market")
    assert policy.within_fleet(500) == policy
    alone = load_document(preset="thresholds-only").policy("any model", "any market")
    assert alone.fleet_error(3) is None


@pytest.mark.parametrize("budget", ["0.0", "0.7", "nan"])
def test_a_budget_out_of_range_is_refused_by_name(budget: str, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"fleet\.budget"):
        policy_of(budget, tmp_path)
