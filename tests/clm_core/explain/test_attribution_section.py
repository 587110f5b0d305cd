"""Section on the attribution of a profit."""

import json

import numpy as np
import pytest
from panels import a_market

from clm_core.backtest.terms import MarketTerms
from clm_core.domain.costs import Costs
from clm_core.domain.explanations import Section
from clm_core.domain.terms import TradingTerms
from clm_core.explain.attribution import attribution_of
from clm_core.explain.attribution_section import attribution_section
from clm_core.explain.profit_parts import TradedMarket, TradedStretch, profit_of
from clm_core.market.bars import Bars, Floats


def section_of(bars: Bars, positions: Floats, terms: TradingTerms) -> Section:
    market = MarketTerms(terms)
    result = market.backtest(bars, positions)
    stretch = TradedStretch(bars, result.returns, [TradedMarket(bars, result, market)], 1)
    return attribution_section(attribution_of(profit_of([stretch])))


BARS = a_market("WORDUSD", 24 * 70, 11)


def test_the_first_sentence_names_sides_costs_and_the_best_month() -> None:
    positions = np.where(np.arange(len(BARS)) // 30 % 2 == 0, 1.0, -1.0)
    section = section_of(BARS, positions, TradingTerms(costs=Costs(fee_bps=5.0, slippage_bps=2.0)))
    values = section.values
    profits = {row["name"]: row["profit"] for row in values["side"]["rows"]}
    best = max(values["months"]["rows"], key=lambda row: row["profit"])
    verbs = {side: "earned" if profit >= 0 else "lost" for side, profit in profits.items()}
    assert section.sentences[0] == (
        f"Longs {verbs['long']} {abs(profits['long']):.1%}, shorts {verbs['short']} "
        f"{abs(profits['short']):.1%} of the starting capital after costs; costs took {values['cost']:.1%}; "
        f"without the best month, {best['name']}, the result would be "
        f"{values['total'] - best['profit']:+.1%} instead of {values['total']:+.1%}."
    )
    assert values["long"] + values["short"] == pytest.approx(values["total"])
    parts = values["selection"] + values["timing"] + values["sizing"]
    assert parts - values["cost"] == pytest.approx(values["total"])
    assert [table.title for table in section.tables][:2] == ["By decision", "Long and short"]
    assert all(table.rows[-1][1] == f"{values['total']:+.1%}" for table in section.tables)
    assert [chart.name for chart in section.charts] == ["months", "time"]
    json.dumps(section.model_dump(mode="json"), allow_nan=False)


def test_a_rule_without_an_edge_has_no_row_beyond_chance() -> None:
    section = section_of(BARS, np.sign(np.sin(np.arange(len(BARS)) / 9.0)), TradingTerms())
    assert section.sentences[2].startswith("No row of any table lies beyond chance")


def test_stops_are_no_edge_although_they_lose() -> None:
    execution = TradingTerms().execution.model_copy(update={"stop_loss": 0.01, "take_profit": 0.01})
    positions = np.where(np.arange(len(BARS)) % 12 < 9, 1.0, 0.0)
    section = section_of(BARS, positions, TradingTerms(execution=execution))
    assert "stop loss" in section.values["exit"]["beyond_chance"]
    assert "stop loss" not in " ".join(section.sentences)


def test_a_version_that_never_traded_says_so() -> None:
    section = section_of(BARS, np.zeros(len(BARS)), TradingTerms())
    assert section.sentences == ("No position was held: there is no result to attribute.",)
    assert not section.charts
    assert not section.tables
