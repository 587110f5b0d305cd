import json
import re
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from clm_core.domain.errors import InvalidSymbol
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.kinds import Kind, artifact_key, model_id
from clm_core.domain.spellings import (
    TIMEFRAMES,
    SymbolName,
    TimeframeName,
    normalise_symbol,
    normalise_timeframe,
    same_market,
)
from clm_core.domain.tuning import TuneRequest
from clm_core.domain.universe import Market
from clm_core.domain.vocabulary import ModelType
from clm_core.market.timeframes import Timeframe

NAMES = {
    "BTC/USDT": "BTCUSDT",
    "btcusdt": "BTCUSDT",
    " EURUSD ": "EURUSD",
    "EUR/USD": "EURUSD",
    "EURUSD=X": "EURUSD.FX",
    "BTC/USDT:USDT": "BTCUSDT.P",
    "BTCUSDT.P": "BTCUSDT.P",
    "BTC/USD:BTC": "BTCUSD.P-BTC",
    "BTC/USDT:USDT-250926": "BTCUSDT.F250926",
    "BRK.B": "BRK.B",
    "BRK-B": "BRK-B",
    "^GSPC": "GSPC.IDX",
    "ES=F": "ES.FUT",
    "0700.HK": "0700.HK",
}


@pytest.mark.parametrize(("symbol", "name"), NAMES.items())
def test_a_symbol_has_one_canonical_name_that_stays_as_it_is(symbol, name):
    assert normalise_symbol(symbol) == name
    assert normalise_symbol(name) == name
    assert normalise_symbol(name.lower()) == name


@pytest.mark.parametrize(
    "symbol",
    [
        *(
            "",
            "../BTC",
            "BTC/../USDT",
            "/etc",
            "A" * 33,
            "BTC USDT",
            "BTC\\USDT",
            ".BTC",
            "B!",
            "BTC.",
            "A..B",
        ),
        *(
            "A..B",
            "ES=Q",
            "NASDAQ:AAPL",
            "BTC/USDT:USDT-250926-50000-C",
            "straße",
            "ß",
            "ı",
            "ＢＴＣ",
            "BTC\x00",
        ),
    ],
)
def test_a_symbol_that_could_leave_its_folder_or_change_its_letters_is_refused(symbol):
    with pytest.raises(InvalidSymbol, match="BTCUSDT or BTC/USDT"):
        normalise_symbol(symbol)
    with pytest.raises(ValidationError, match="BTCUSDT or BTC/USDT"):
        TypeAdapter(SymbolName).validate_python(symbol)


def test_different_names_of_vendors_keep_different_canonical_names():
    canonical = {normalise_symbol(symbol) for symbol in NAMES}
    assert len(canonical) == 11
    assert all(
        same_market(one, other) == (normalise_symbol(one) == normalise_symbol(other))
        for one, other in combinations(NAMES, 2)
    )


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("AB/C", "A/BC", False),
        ("AB/C", "ABC", True),
        ("eth/usd", "ETH/USD", True),
        ("^GSPC", "GSPC.IDX", True),
        ("BTC/USDT", "BTC/USDT:USDT", False),
    ],
)
def test_two_vendor_names_of_one_canonical_name_are_told_apart(one, other, same):
    assert same_market(one, other) is same
    assert same_market(other, one) is same


@given(st.text(max_size=40))
def test_any_text_is_a_safe_name_or_refused(text):
    try:
        name = normalise_symbol(text)
    except InvalidSymbol:
        return
    assert re.fullmatch(r"[A-Z0-9][A-Z0-9._-]{0,31}", name)
    assert ".." not in name
    assert not name.endswith(".")
    assert normalise_symbol(name) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        *((name, name) for name in TIMEFRAMES),
        *(("1H", "1h"), ("60m", "1h"), ("60min", "1h"), ("H1", "1h"), ("1 hour", "1h"), ("hourly", "1h")),
        *(("M15", "15m"), ("M1", "1m"), ("1T", "1m"), ("240min", "4h"), ("H4", "4h"), ("24h", "1d")),
        *(("1D", "1d"), ("D", "1d"), ("daily", "1d"), ("1wk", "1w"), ("W1", "1w"), ("7d", "1w")),
        *(("1M", None), ("M", None), ("1mo", None), ("45m", None), ("0m", None), ("", None), ("h", None)),
    ],
)
def test_a_bar_length_is_understood_in_its_usual_spellings_and_a_month_is_no_minute(text, name):
    assert normalise_timeframe(text) == name
    assert TypeAdapter(TimeframeName).validate_python(text) == (name or text)


@pytest.mark.parametrize(
    ("timeframe", "days"),
    [
        *(("1m", 365), ("5m", 365), ("15m", 456), ("30m", 912), ("1h", 1825), ("60min", 1825)),
        *(("2h", 1825), ("4h", 1825), ("6h", 2190), ("1d", 8760), ("1w", 36_500)),
    ],
)
def test_a_training_sees_by_default_five_years_of_hours_or_as_many_bars_as_it_needs(timeframe, days):
    fields = {"model_type": "xgboost", "symbol": "BTCUSD", "timeframe": timeframe}
    assert RetrainRequest(**fields).dataset_span_days == days
    assert TuneRequest(**fields).dataset_span_days == days
    assert Market(symbol="BTCUSD", timeframe=timeframe).dataset_span_days == days
    assert RetrainRequest(**fields, dataset_span_days=90).dataset_span_days == 90


def test_the_bar_lengths_of_the_domain_are_those_of_the_market_data():
    assert list(TIMEFRAMES) == list(Timeframe)
    assert [timeframe.seconds for timeframe in Timeframe] == sorted(each.seconds for each in Timeframe)
    assert Timeframe("60m") is Timeframe.H1
    assert json.loads(TypeAdapter(Timeframe).dump_json(Timeframe("1wk"))) == "1w"


@pytest.mark.parametrize(
    ("symbol", "name", "key"),
    [
        ("BTC/USDT", "xgboost_btcusdt_1h", "xgboost-btcusdt-1h"),
        ("BTC/USDT:USDT", "xgboost_btcusdt.p_1h", "xgboost-btcusdt-p-1h-df968637"),
        ("BTCUSDT-P", "xgboost_btcusdt-p_1h", "xgboost-btcusdt-p-1h-c901e6bd"),
    ],
)
def test_model_ids_and_keys_of_artifacts_are_made_of_the_canonical_names(symbol, name, key):
    made = model_id(Kind(ModelType.XGBOOST), symbol, "60m")
    assert (made, artifact_key(made)) == (name, key)
