"""Costs of holding per bar, and the import of funding rates and dividends."""

import contextlib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clm_core.backtest.engine import backtest
from clm_core.domain.costs import Costs, HoldingCosts
from clm_core.domain.errors import DataError, InvalidBars, StoreCorrupt, UnknownSeries
from clm_core.domain.execution import Execution
from clm_core.market.bars import Bars
from clm_core.market.carry import Carry, Payments, holding_rates
from clm_core.market.carry_store import PaymentKind
from clm_core.market.sources import MarketData
from clm_core.market.timeframes import Calendar, Timeframe

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FREE = Costs(fee_bps=0, slippage_bps=0)
HOUR = 3_600_000_000_000


def flat_bars(times: pd.DatetimeIndex, timeframe: Timeframe = Timeframe.H1, price: float = 100.0) -> Bars:
    prices = np.full(len(times), price)
    time = times.as_unit("ns").asi8
    return Bars(
        "X", timeframe, Calendar("24x7"), time, *(prices.copy() for _ in range(4)), np.ones(len(times))
    )


def hours(start: str, periods: int) -> Bars:
    return flat_bars(pd.date_range(start, periods=periods, freq="h", tz="UTC"))


def payments(*pairs: tuple[str, float]) -> Payments:
    time = pd.DatetimeIndex([pd.Timestamp(moment, tz="UTC") for moment, _ in pairs]).as_unit("ns").asi8
    return Payments(time, np.array([value for _, value in pairs]))


def annual_return(bars: Bars, position: float, holding: HoldingCosts) -> float:
    rates = holding_rates(bars, holding)
    result = backtest(bars, np.full(len(bars), position), FREE, Execution(), rates)
    return float(result.equity[-1] / result.equity[0] - 1)


def test_a_long_on_a_perpetual_at_1_bp_per_8_hours_pays_11_percent_a_year() -> None:
    year = hours("2025-01-01 00:30", 8760)
    paid = annual_return(year, 1.0, HoldingCosts(funding_bps_per_8h=1.0))
    # 3 payments a day of 1 bp of a constant value
    assert paid == pytest.approx(-0.1095, abs=2e-4)
    # the equity of a short grows by what the long pays, the value of the units stays
    assert annual_return(year, -1.0, HoldingCosts(funding_bps_per_8h=1.0)) == pytest.approx(0.1095, abs=2e-4)


def test_daily_and_hourly_bars_pay_the_same_funding() -> None:
    holding = HoldingCosts(funding_bps_per_8h=1.0)
    daily = flat_bars(pd.date_range("2025-01-01", periods=100, freq="D", tz="UTC"), Timeframe.D1)
    hourly = hours("2025-01-01", 99 * 24 + 1)
    daily_rates = holding_rates(daily, holding)
    hourly_rates = holding_rates(hourly, holding)
    assert daily_rates is not None
    assert hourly_rates is not None
    assert daily_rates.long.sum() == pytest.approx(hourly_rates.long.sum()) == pytest.approx(99 * 3e-4)


def test_a_short_pays_borrow_over_weekends_and_a_long_does_not() -> None:
    sessions = pd.bdate_range("2024-01-01", "2024-12-31", tz="UTC")
    bars = flat_bars(sessions, Timeframe.D1)
    rates = holding_rates(bars, HoldingCosts(borrow_bps_per_year=100.0))
    assert rates is not None
    days = (sessions[-1] - sessions[0]).days
    assert rates.short.sum() == pytest.approx(0.01 * days / 365)
    monday = np.flatnonzero(np.diff(bars.time, prepend=bars.time[0]) == 72 * HOUR)
    assert rates.short[monday] == pytest.approx(0.01 * 3 / 365)
    assert not rates.long.any()


def test_funding_is_paid_by_the_position_held_into_the_bar_of_its_moment() -> None:
    bars = hours("2025-01-01 05:00", 8)
    rates = holding_rates(bars, HoldingCosts(), Carry(payments(("2025-01-01 08:00", 0.001))))
    assert rates is not None
    assert np.flatnonzero(rates.long).tolist() == [3]
    # a position opened at 08:00 pays nothing, a position held over 08:00 pays
    opened_at_8 = np.array([0, 0, 1, 1, 1, 1, 1, 1.0])
    closed_at_8 = np.array([0, 1, 0, 0, 0, 0, 0, 0.0])
    assert backtest(bars, opened_at_8, FREE, Execution(), rates).holding_costs == 0.0
    assert backtest(bars, closed_at_8, FREE, Execution(), rates).holding_costs == pytest.approx(10.0)


def test_a_constant_rate_fills_the_times_without_a_stored_rate() -> None:
    bars = hours("2025-01-01 00:00", 73)
    stored = payments(("2025-01-01 16:00", 0.002), ("2025-01-02 00:00", 0.003), ("2025-01-02 16:00", 0.004))
    rates = holding_rates(bars, HoldingCosts(funding_bps_per_8h=1.0), Carry(stored))
    assert rates is not None
    # 8 h of 1 January before the stored rates, the hole at 8 h of 2 January, and three times of 3 January
    expected = {8: 1e-4, 16: 0.002, 24: 0.003, 32: 1e-4, 40: 0.004, 48: 1e-4, 56: 1e-4, 64: 1e-4, 72: 1e-4}
    assert {int(row): rates.long[row] for row in np.flatnonzero(rates.long)} == pytest.approx(expected)
    assert rates.short == pytest.approx(-rates.long)


def test_a_long_receives_and_a_short_pays_a_dividend_at_the_open_of_the_ex_date() -> None:
    bars = flat_bars(pd.date_range("2025-03-03", periods=5, freq="D", tz="UTC"), Timeframe.D1)
    rates = holding_rates(bars, HoldingCosts(), Carry(dividends=payments(("2025-03-05", 2.0))))
    assert rates is not None
    assert rates.long.tolist() == [0, 0, -0.02, 0, 0]
    for position, expected in ((1.0, -200.0), (-1.0, 200.0)):
        result = backtest(bars, np.full(5, position), FREE, Execution(), rates)
        assert result.holding_costs == pytest.approx(expected)
        assert result.trades.pnl.tolist() == pytest.approx([-expected])


def test_free_holding_has_no_rates() -> None:
    assert holding_rates(hours("2025-01-01", 50), HoldingCosts()) is None


@pytest.fixture
def market(tmp_path: Path) -> MarketData:
    return MarketData(tmp_path / "home")


def written(folder: Path, text: str) -> Path:
    path = folder / "file.csv"
    path.write_text(text)
    return path


BINANCE = (
    "calc_time,funding_interval_hours,last_funding_rate\n1735689600004,8,0.0001\n1735718400000,8,-0.0002\n"
)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(BINANCE, id="dump"),
        pytest.param(
            "symbol,fundingTime,fundingRate,markPrice\nXUSDT,1735718400000,-0.0002,9\nXUSDT,1735689600004,0.0001,9\n",
            id="API, newest first",
        ),
        pytest.param("time,rate\n2025-01-01T00:00:00Z,0.01%\n2025-01-01T08:00:00Z,-0.02%\n", id="percent"),
    ],
)
def test_funding_rates_of_the_usual_files_are_stored(market: MarketData, tmp_path: Path, text: str) -> None:
    stored = market.payments.add(PaymentKind.FUNDING, written(tmp_path, text), "XUSDT", now=NOW)
    funding = market.carry("XUSDT").funding
    assert funding is not None
    assert pd.to_datetime(funding.time).tolist() == [
        pd.Timestamp("2025-01-01"),
        pd.Timestamp("2025-01-01 08"),
    ]
    assert funding.value.tolist() == [0.0001, -0.0002]
    assert stored.content_hash == funding.content_hash


def test_dividends_are_stored_by_the_date_of_the_exchange(market: MarketData, tmp_path: Path) -> None:
    text = "Date,Dividends\n2025-03-21 00:00:00-04:00,1.69\n2025-03-24 00:00:00-04:00,0.0\n"
    market.payments.add(PaymentKind.DIVIDENDS, written(tmp_path, text), "SPY", now=NOW)
    dividends = market.carry("SPY").dividends
    assert dividends is not None
    assert pd.to_datetime(dividends.time).tolist() == [pd.Timestamp("2025-03-21")]
    assert dividends.value.tolist() == [1.69]


def test_another_value_of_a_stored_moment_is_refused_unless_it_replaces(
    market: MarketData, tmp_path: Path
) -> None:
    first = market.payments.add(PaymentKind.FUNDING, written(tmp_path, BINANCE), "XUSDT", now=NOW)
    other = written(tmp_path, BINANCE.replace("-0.0002", "0.0005"))
    with pytest.raises(InvalidBars, match=r"2025-01-01 08:00 is stored with -0.0002, .* pass --replace"):
        market.payments.add(PaymentKind.FUNDING, other, "XUSDT", now=NOW)
    second = market.payments.add(PaymentKind.FUNDING, other, "XUSDT", now=NOW, replace=True)
    # the earlier state stays, for what was trained on it
    old = market.recorded_carry("XUSDT", first.content_hash, None).funding
    new = market.recorded_carry("XUSDT", second.content_hash, None).funding
    assert old is not None
    assert new is not None
    assert (old.value.tolist(), new.value.tolist()) == ([0.0001, -0.0002], [0.0001, 0.0005])
    with pytest.raises(UnknownSeries, match="import them again"):
        market.recorded_carry("XUSDT", "abc", None)


def test_a_changed_file_of_stored_rates_is_noticed(market: MarketData, tmp_path: Path) -> None:
    market.payments.add(PaymentKind.FUNDING, written(tmp_path, BINANCE), "XUSDT", now=NOW)
    [file] = (tmp_path / "home").glob("carry/XUSDT/funding/*.csv")
    file.write_text(file.read_text().replace("0.0001", "0.0003"))
    with pytest.raises(StoreCorrupt, match="missing or damaged"):
        market.carry("XUSDT")


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (PaymentKind.FUNDING, "", "not readable as CSV"),
        (PaymentKind.FUNDING, "calc_time,last_funding_rate\n", "no rows"),
        (
            PaymentKind.FUNDING,
            "calc_time,interval\n1735689600000,8\n",
            "no column for the funding rate among",
        ),
        (PaymentKind.FUNDING, "time,rate\n2025-01-01,1.0\n", "divide percent by 100"),
        (PaymentKind.FUNDING, "time,rate\n2025-01-01,nan\n", "no finite number"),
        (PaymentKind.FUNDING, "time,rate\nyesterday,0.0001\n", "'yesterday' is not ISO 8601"),
        (PaymentKind.FUNDING, "time,rate\n12,0.0001\n", "no counts of s, ms"),
        (PaymentKind.FUNDING, "time,rate\n2030-01-01,0.0001\n", "funding of the future"),
        (
            PaymentKind.FUNDING,
            "time,rate\n2025-01-01,1e-4\n2025-01-01,2e-4\n",
            "2025-01-01 00:00 is listed twice",
        ),
        (PaymentKind.FUNDING, "symbol,time,rate\nETHUSDT,2025-01-01,0.0001\n", "pass --symbol ETHUSDT"),
        (PaymentKind.DIVIDENDS, "date,amount\n21.03.2025,1.0\n", "is not YYYY-MM-DD"),
        (PaymentKind.DIVIDENDS, "date,amount\n2025-03-21,-1.0\n", "never collected"),
        (PaymentKind.DIVIDENDS, "date,amount\n2025-03-21,0.0\n", "no dividends in the file"),
    ],
)
def test_a_faulty_file_is_refused_with_the_reason_and_kept_in_quarantine(
    market: MarketData, tmp_path: Path, kind: PaymentKind, text: str, message: str
) -> None:
    with pytest.raises(InvalidBars, match=message):
        market.payments.add(kind, written(tmp_path, text), "XUSDT", now=NOW)
    assert market.carry("XUSDT").funding is market.carry("XUSDT").dividends is None
    assert list((tmp_path / "home" / "quarantine").glob("*/file.csv"))


def test_random_bytes_leave_the_import_as_data_errors_only(market: MarketData, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    alphabet = list("time,rate\n0123456789.-eE%\"'\x00é;\t ")
    for _ in range(300):
        path = tmp_path / "file.csv"
        head = rng.choice(["", "time,rate\n", "calc_time,last_funding_rate\n", "time,time,rate\n"])
        path.write_bytes((head + "".join(rng.choice(alphabet, rng.integers(0, 60)))).encode())
        for kind in PaymentKind:
            with contextlib.suppress(DataError):
                market.payments.add(kind, path, "XUSDT", now=NOW, replace=True)
