"""Equity of two versions over the time that was out of sample for both."""

import math
from dataclasses import replace

import numpy as np
import pytest
from planted_edges import planted_bars

from clm_core.explain.equity_overlay import TradedCurve, common_span, correlation, equity_section
from clm_core.market.bars import Floats
from clm_core.market.timeframes import Timeframe

DAYS = 40
BARS = planted_bars(DAYS * 24)
RETURNS = np.random.default_rng(1).normal(0.0, 0.01, DAYS * 24)


def curve(name: str, first: int, last: int, returns: Floats = RETURNS) -> TradedCurve:
    """Returns of the bars from one row to another."""
    return TradedCurve(name, BARS[first:last], returns[first:last])


def test_both_start_at_one_at_the_first_bar_that_is_out_of_sample_for_both() -> None:
    pair = common_span(curve("a@1", 0, 900), curve("b@2", 100, 960, -RETURNS))
    assert pair is not None
    one, other = pair
    assert [len(each.bars) for each in pair] == [800, 800]
    np.testing.assert_allclose(one.equity, np.cumprod(1 + RETURNS[100:900]))
    assert one.measured()["total_return"] == pytest.approx(one.equity[-1] - 1)
    assert correlation(one, other) == pytest.approx(-1.0, abs=0.01)


def test_versions_of_different_timeframes_share_the_time_and_keep_their_bars() -> None:
    rows = np.arange(0, DAYS * 24, 4)
    parts = {name: getattr(BARS, name)[rows] for name in ("time", "open", "high", "low", "close", "volume")}
    slow = TradedCurve("b@2", replace(BARS, timeframe=Timeframe.H4, **parts), RETURNS[rows])
    pair = common_span(curve("a@1", 0, 500), slow)
    assert pair is not None
    assert [len(each.bars) for each in pair] == [500, 125]


def test_the_section_has_both_curves_the_figures_and_numbers_for_scripts() -> None:
    section = equity_section(curve("a@1", 0, 900), curve("b@2", 100, 960, -RETURNS))
    assert section.tables[0].columns == ("", "a@1", "b@2")
    names = [row[0] for row in section.tables[0].rows]
    assert names == ["total return", "volatility", "Sharpe ratio", "max drawdown"]
    [chart] = section.charts
    assert [trace["name"] for trace in chart.figure["data"]] == ["a@1", "a@1", "b@2", "b@2"]
    ours, theirs = section.values["sharpe_ratio"]
    assert ours == pytest.approx(-theirs)


def test_versions_without_a_common_bar_are_told_apart_in_words() -> None:
    section = equity_section(curve("a@1", 0, 100), curve("b@2", 200, 300))
    [sentence] = section.sentences
    assert sentence == "No bar was out of sample for both versions: there is no common time to compare."
    assert section.charts == ()


def test_returns_that_never_vary_or_few_days_have_no_correlation() -> None:
    flat = curve("b@2", 0, DAYS * 24, np.zeros(DAYS * 24))
    assert math.isnan(correlation(curve("a@1", 0, DAYS * 24), flat))
    assert math.isnan(correlation(curve("a@1", 0, 200), curve("b@2", 0, 200)))
