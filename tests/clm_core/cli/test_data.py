import json
import re
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from clm_core.cli import data
from clm_core.cli.data import app
from clm_core.domain.errors import InvalidBars, UnknownCalendar, UnknownSeries

BARS = """time,open,high,low,close,volume
2024-01-05T20:00Z,1.10,1.12,1.09,1.11,5
2024-01-05T21:00Z,1.11,1.13,1.10,1.12,5
2024-01-07T22:00Z,1.12,1.14,1.11,1.13,5
2024-01-08T01:00Z,1.13,1.15,1.12,1.14,5
"""


@pytest.fixture
def clm(tmp_path, monkeypatch):
    """`clm data …` in a folder of its own; an error is raised, as it is for `main`, which prints it."""
    monkeypatch.setenv("CLM_HOME", str(tmp_path / "home"))
    # a console reads the width of the terminal when it is made
    monkeypatch.setattr(data, "console", Console(width=160))

    def run(*words: object) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)

    return run


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "bars.csv"
    path.write_text(BARS)
    return path


def test_list_shows_what_is_bundled(clm):
    output = clm("list").output
    assert re.search(r"BTCUSD 1h +2017-07-01 +2019-10-17 +20,111 +0 +0 +[\d,]+ +f6a14659", output)
    assert re.search(r"EURUSD 1h +2017-01-01 +2017-12-29 +6,225 +0 +0 +[\d,]+ +86c4215e", output)


def test_list_as_json_has_every_field(clm):
    btc = json.loads(clm("list", "--json").stdout)[0]
    assert (btc["symbol"], btc["timeframe"], btc["calendar"], btc["bars"]) == ("BTCUSD", "1h", "24x7", 20_111)
    assert (btc["start"], btc["gaps"], btc["missing_bars"]) == ("2017-07-01T11:00:00+00:00", 0, 0)
    assert (btc["newest_close"], btc["is_stale"]) == ("2019-10-17T10:00:00+00:00", True)


def test_show_draws_the_series_and_names_its_outages_and_hash(clm):
    output = clm("show", "EURUSD", "1h").output
    assert sum(character > "⠀" and character <= "⣿" for character in output) > 100
    assert "2017-01-01 22:00 to 2017-12-29 21:00 UTC" in output
    assert "outages   0, 0 bars missing, 0 carried through" in output
    assert "closures  52" in output
    assert "86c4215e88817daeb241b0954c78cb5970d8ea05230d2de53b561826af32d798" in output


def test_show_writes_a_page_that_needs_no_network(clm, tmp_path):
    page = tmp_path / "page.html"
    clm("show", "EURUSD", "1h", "--days", 30, "--html", page)
    text = page.read_text()
    assert "EURUSD 1h" in text
    assert '"candlestick"' in text
    assert not re.search(r"<script[^>]+src=", text)


def test_a_file_is_imported_and_can_be_shown(clm, file):
    imported = clm("import", file, "--symbol", "EUR/CHF", "--timeframe", "1h", "--calendar", "24x5")
    assert re.search(r"EURCHF 1h +2024-01-05 +2024-01-08 +4 +1 +2 .*bars\.csv", imported.output)
    assert "outages   1, 2 bars missing" in clm("show", "EURCHF", "1h").output
    facts = json.loads(clm("show", "EURCHF", "1h", "--json").stdout)
    assert facts["gaps"] == [{"after": "2024-01-07T22:00:00+00:00", "missing": 2}]
    again = json.loads(clm("import", file, "--symbol", "EURCHF", "--timeframe", "1h", "--json").stdout)
    assert (again["symbol"], again["bars"], again["is_stale"]) == ("EURCHF", 4, True)


def test_a_bad_file_is_refused(clm, file):
    file.write_text(BARS.replace("1.14,1.11", "1.14,nan"))
    with pytest.raises(InvalidBars, match=r"nan \(1 rows, first \[2\]\)"):
        clm("import", file, "--symbol", "EURCHF", "--timeframe", "1h")


def test_an_earlier_state_is_shown_by_its_hash(clm, file):
    clm("import", file, "--symbol", "EURCHF", "--timeframe", "1h")
    before = json.loads(clm("list", "--json").stdout)[1]["content_hash"]
    file.write_text("\n".join([BARS.splitlines()[0], "2024-01-08T02:00Z,1.14,1.16,1.13,1.15,5"]))
    clm("import", file, "--symbol", "EURCHF", "--timeframe", "1h")
    assert "EURCHF 1h, calendar 24x7: 5 bars" in clm("show", "EURCHF", "1h").output
    assert "EURCHF 1h, calendar 24x7: 4 bars" in clm("show", "EURCHF", "1h", "--hash", before[:10]).output


def test_fetching_from_nowhere_says_what_is_missing(clm):
    with pytest.raises(UnknownSeries, match="--since"):
        clm("fetch", "BTCUSDT", "1h")


def test_the_import_recognises_the_calendar_and_prints_the_closing_times(clm, tmp_path):
    days = pd.bdate_range("2020-01-01", "2021-06-30")
    days = days[~days.isin(pd.to_datetime(["2020-01-20", "2020-02-17", "2020-05-25", "2020-07-03"]))]
    rows = [
        f"{day:%Y-%m-%d},10,11,9,{10 + 0.001 * number:.3f},{100 + number}" for number, day in enumerate(days)
    ]
    table = tmp_path / "share.csv"
    table.write_text("\n".join(["timestamp,open,high,low,close,volume", *rows]))
    imported = clm("import", table, "--symbol", "SHARE", "--timeframe", "1d").output
    assert "closes: week-ends, holidays of a day" in imported
    shown = clm("show", "SHARE", "1d").output
    assert "calendar weekly:8000008" in shown
    assert "the market closes: week-ends" in shown
    named = clm("import", table, "--symbol", "OTHER", "--timeframe", "1d", "--calendar", "NYSE").output
    assert "closes: outside the sessions of XNYS" in named
    with pytest.raises(UnknownCalendar, match="similar: XNYS"):
        clm("import", table, "--symbol", "THIRD", "--timeframe", "1d", "--calendar", "xnys")


def test_the_calendars_that_can_be_passed_are_listed(clm):
    help_text = clm("import", "--help").output
    assert all(name in help_text for name in ("24x7", "24x5", "XNYS", "learn", "auto"))
    assert re.search(r"XNYS +.*NYSE", clm("calendars").output)
    assert json.loads(clm("calendars", "--json").stdout)["NYSE"] == "XNYS"


def test_funding_rates_and_dividends_are_imported_and_listed(clm, tmp_path):
    rates = tmp_path / "funding.csv"
    rates.write_text("fundingTime,fundingRate\n1735689600004,0.0001\n1735718400000,-0.0002\n")
    dividends = tmp_path / "dividends.csv"
    dividends.write_text("date,amount\n2025-03-21,1.69\n")
    assert clm("payments").stdout == "No funding rates or dividends are stored.\n"
    assert (
        "2 from 2025-01-01 to 2025-01-01" in clm("import-funding", rates, "--symbol", "BTC/USDT:USDT").stdout
    )
    added = json.loads(clm("import-dividends", dividends, "--symbol", "spy", "--json").stdout)
    assert (added["symbol"], added["kind"], added["payments"]) == ("SPY", "dividends", 1)
    listed = json.loads(clm("payments", "--json").stdout)
    assert [(each["symbol"], each["kind"]) for each in listed] == [
        ("BTCUSDT.P", "funding"),
        ("SPY", "dividends"),
    ]
    assert re.search(r"BTCUSDT.P +funding +2025-01-01", clm("payments").stdout)


def test_a_changed_funding_rate_is_refused_unless_it_replaces(clm, tmp_path):
    rates = tmp_path / "funding.csv"
    rates.write_text("time,rate\n2025-01-01T00:00:00Z,0.0001\n")
    clm("import-funding", rates, "--symbol", "BTCUSDT.P")
    rates.write_text("time,rate\n2025-01-01T00:00:00Z,0.0003\n")
    with pytest.raises(InvalidBars, match="--replace"):
        clm("import-funding", rates, "--symbol", "BTCUSDT.P")
    assert clm("import-funding", rates, "--symbol", "BTCUSDT.P", "--replace").exit_code == 0
