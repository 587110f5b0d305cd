"""Tear sheet: completeness, safety and the figures on the page."""

import base64
import gzip
import io
import json
import math
import re
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from plotly.offline import get_plotlyjs

from clm_core.backtest import chart_library
from clm_core.backtest.baselines import run_baselines
from clm_core.backtest.engine import backtest
from clm_core.backtest.metrics import summarise
from clm_core.backtest.results import Metrics
from clm_core.backtest.tearsheet import (
    EMBEDDED_TRADES,
    METRICS,
    TearSheet,
    drawdown,
    equity_png,
    percent,
    period_returns,
    ratio,
    render,
    rows_to_draw,
)
from clm_core.backtest.terms import MarketTerms
from clm_core.backtest.walk_forward import FoldResult
from clm_core.domain import verdict_text
from clm_core.domain.costs import Costs
from clm_core.domain.evaluations import (
    BASELINE_LABELS,
    RULE_NOTE,
    BaselineComparison,
    Check,
    Decision,
    IntervalEstimate,
    RuleResult,
    Verdict,
)
from clm_core.domain.execution import Execution
from clm_core.domain.terms import TradingTerms
from clm_core.domain.vocabulary import TriggerReason
from clm_core.market.bars import Bars, Floats
from clm_core.market.timeframes import Calendar, Timeframe

HOUR = 3_600_000_000_000
START = pd.Timestamp("2018-01-01", tz="UTC").value


def bars_at(close: Floats) -> Bars:
    opened = np.concatenate([close[:1], close[:-1]])
    high = np.maximum(opened, close)
    low = np.minimum(opened, close)
    time = START + HOUR * np.arange(len(close))
    return Bars(
        "BTCUSD", Timeframe.H1, Calendar.ALWAYS, time, opened, high, low, close.copy(), np.ones(len(close))
    )


AGAINST_HOLDING = BaselineComparison(
    name="hold_at_volatility",
    total_return=0.31,
    sharpe_ratio=0.9,
    volatility=0.1,
    max_drawdown=-0.2,
    turnover=4.0,
    exposure=0.3,
    excess_return=IntervalEstimate(value=-0.034, low=-0.1, high=0.032),
    alpha=IntervalEstimate(value=0.021, low=-0.05, high=0.092),
    beta=IntervalEstimate(value=0.37, low=0.3, high=0.44),
)


def sheet_of(close: Floats, positions: Floats, **changes: Any) -> TearSheet:
    bars = bars_at(close)
    costs = Costs()
    execution = Execution()
    model = backtest(bars, positions, costs, execution)
    terms = TradingTerms(costs=costs, execution=execution)
    sheet = TearSheet(
        model_id="xgboost_btcusd_1h",
        version="v20251204_143022",
        created_at=datetime(2025, 12, 4, 14, 30, 22, tzinfo=UTC),
        trigger_reason=TriggerReason.DRIFT_DETECTED,
        requested_by="alice",
        bars=bars,
        backtest=model,
        metrics=summarise(model, bars.periods_per_year),
        baselines=run_baselines(MarketTerms(terms), bars, slice(None), lambda _, signal: 0.5 * signal),
        verdict=Verdict(
            decision=Decision.FAIL,
            score=34.1,
            checks=(
                Check(
                    name="win_rate",
                    value=math.nan,
                    limit=0.52,
                    comparison=">=",
                    passed=False,
                    margin=math.nan,
                ),
                Check(name="max_drawdown", value=0.1, limit=0.15, comparison="<=", passed=True, margin=0.05),
            ),
            reasons=("win rate could not be measured",),
            baselines=(AGAINST_HOLDING,),
        ),
        terms=terms,
        terms_digest="7e" * 32,
        params={"max_depth": 5, "labels": {"horizon": 12, "barrier": math.inf}, "monotone": None},
        importances={"rsi_14": 0.75, "atr_14": 0.25},
        data_facts={"source": "bundled"},
        folds=(fold(),),
    )
    return replace(sheet, **changes)


def fold() -> FoldResult:
    start, train_end, test_start, end = (datetime(2017, 11, day, tzinfo=UTC) for day in (1, 20, 21, 28))
    return FoldResult(
        train=slice(0, 20),
        test=slice(20, 28),
        train_start=start,
        train_end=train_end,
        test_start=test_start,
        test_end=end,
        train_metrics={},
    )


def walk(n_bars: int, seed: int = 0) -> Floats:
    steps = np.random.default_rng(seed).normal(0.0, 0.01, n_bars)
    return 7000.0 * np.exp(np.cumsum(steps))


def flips(n_bars: int, every: int) -> Floats:
    return np.where(np.arange(n_bars) // every % 2 == 0, 1.0, -0.5)


@pytest.fixture(scope="module")
def sheet() -> TearSheet:
    return sheet_of(walk(20_000), flips(20_000, 60))


@pytest.fixture(scope="module")
def page(sheet: TearSheet) -> "Page":
    return Page(render(sheet))


class Page(HTMLParser):
    """The page as a browser reads it: visible text, attributes, and the contents of scripts and styles."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.attributes: list[tuple[str, str, str]] = []
        self.scripts: dict[str, str] = {}
        self.style = self.text = self._inside = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        self.attributes += [(tag, name, value) for name, value in named.items()]
        self._inside = f"script {named.get('id', 'code')}" if tag == "script" else tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""
        self.text += " "

    def handle_data(self, data: str) -> None:
        if self._inside.startswith("script"):
            name = self._inside.removeprefix("script ")
            self.scripts[name] = self.scripts.get(name, "") + data
        elif self._inside == "style":
            self.style += data
        else:
            self.text += data

    @property
    def figures(self) -> dict[str, Any]:
        figures: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(self.scripts["figures"])))
        return figures

    def curve(self, figure: str, name: str, values: str = "y") -> Floats:
        traces = self.figures[figure]["data"]
        packed = next(trace for trace in traces if trace["name"] == name)[values]
        return np.frombuffer(base64.b64decode(packed["bdata"]), dtype=packed["dtype"])

    def downloaded_trades(self) -> pd.DataFrame:
        return pd.read_csv(io.BytesIO(gzip.decompress(base64.b64decode(self.scripts["trades"]))))


RESULTS = {
    "no trade": lambda: sheet_of(walk(3000), np.zeros(3000)),
    "one trade": lambda: sheet_of(walk(3000), (np.arange(3000) > 100).astype(float)),
    "prices that never move": lambda: sheet_of(np.full(3000, 100.0), flips(3000, 50)),
    "flat equity": lambda: sheet_of(np.full(3000, 100.0), np.zeros(3000), importances={}),
    "ruin of a short": lambda: sheet_of(np.geomspace(100.0, 1000.0, 3000), np.full(3000, -1.0)),
    "thirty bars": lambda: sheet_of(walk(30), flips(30, 7)),
    "two bars": lambda: sheet_of(walk(2), np.ones(2)),
    "200,000 bars, flipping at each": lambda: sheet_of(walk(200_000), flips(200_000, 1)),
}


@pytest.mark.parametrize("make", RESULTS.values(), ids=RESULTS)
def test_every_kind_of_result_makes_a_page_and_a_picture(make: Any) -> None:
    sheet = make()
    page = Page(render(sheet))
    picture = equity_png(sheet)

    visible = page.text + " ".join(value for _, name, value in page.attributes if name != "href")
    assert not re.search(r"\b([nN]a[nN]|inf|NaT|None)\b", visible)
    assert len(page.source.encode()) <= 5_500_000
    assert np.isfinite(page.curve("curves", "Model")).all()
    assert len(picture) <= 60_000
    assert Image.open(io.BytesIO(picture)).size == (900, 420)


def test_the_page_fetches_nothing_from_the_network(page: Page) -> None:
    fetched = [
        value for _, name, value in page.attributes if name in {"src", "href", "srcset", "data", "poster"}
    ]
    library = f"../{chart_library.file_name()}"
    assert fetched == [library]
    assert "url(" not in page.style
    assert "@import" not in page.style
    policy = next(value for _, name, value in page.attributes if value.startswith("default-src"))
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy


def test_a_page_names_the_library_beside_the_reports_and_is_completed_for_a_browser(
    page: Page, tmp_path: Path
) -> None:
    assert len(page.source.encode()) < 200_000
    chart_library.write_library(tmp_path)
    file = tmp_path / chart_library.file_name()
    packed = re.fullmatch(r'globalThis\.packedPlotly = "([^"]+)";', file.read_text())
    assert packed
    assert gzip.decompress(base64.b64decode(packed[1])).decode() == get_plotlyjs()
    complete = chart_library.complete(page.source.encode(), tmp_path).decode()
    assert complete == page.source.replace(chart_library.reference(), f"<script>{file.read_text()}</script>")
    # a page that has the library is left alone, as those of earlier releases
    assert chart_library.complete(complete.encode(), tmp_path).decode() == complete


def test_a_page_of_an_earlier_release_gets_the_library_it_names_or_the_installed_one(tmp_path: Path) -> None:
    page = b'<p>a</p><script src="../plotly-5.0.1.js"></script><p>b</p>'
    assert chart_library.inside().encode() in chart_library.complete(page, tmp_path)
    (tmp_path / "plotly-5.0.1.js").write_text("earlier")
    assert chart_library.complete(page, tmp_path) == b"<p>a</p><script>earlier</script><p>b</p>"


HOSTILE = '</script><script>alert("1")</script><img src=x onerror=alert(1)>&amp;{{ 7*7 }}'


@pytest.mark.parametrize(
    "changes",
    [
        {"model_id": HOSTILE},
        {"version": HOSTILE},
        {"requested_by": HOSTILE},
        {"params": {HOSTILE: 1}},
        {"params": {"name": [HOSTILE]}},
        {"importances": {HOSTILE: 1.0}},
        {"data_facts": {HOSTILE: "x"}},
        {"data_facts": {"source": HOSTILE}},
        {"verdict": Verdict(decision=Decision.FAIL, score=0, checks=(), reasons=(HOSTILE,))},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_text_from_outside_is_shown_and_never_run(changes: dict[str, Any]) -> None:
    page = Page(render(sheet_of(walk(40), flips(40, 9), **changes)))
    assert HOSTILE in page.text
    assert [tag for tag, _, _ in page.attributes].count("img") == 0
    # trades, figures, library and code
    assert page.source.count("<script") == 4


def test_the_verdict_stands_on_the_page_with_reasons_and_checks(page: Page) -> None:
    words = " ".join(page.text.split())
    assert "FAIL 1 of 2 checks missed win rate could not be measured Promotion score 34.1 / 100" in words
    assert "win rate not measured ≥ 52.0% ✗ missed max drawdown 10.0% ≤ 15.0% ✓ met" in words


def test_a_fact_is_shown_without_comparison(sheet: TearSheet) -> None:
    ruined = Check(name="ruined", value=1.0, limit=0.0, comparison="<=", passed=False, margin=-1.0)
    page = Page(render(replace(sheet, verdict=sheet.verdict.model_copy(update={"checks": (ruined,)}))))
    assert "ruined yes no ✗ missed" in " ".join(page.text.split())


def test_a_pass_says_that_all_checks_were_met() -> None:
    check = Check(name="trades", value=60, limit=50, comparison=">=", passed=True, margin=10)
    verdict = Verdict(decision=Decision.PASS, score=80, checks=(check,), reasons=())
    words = " ".join(Page(render(sheet_of(walk(40), flips(40, 9), verdict=verdict))).text.split())
    assert "PASS 1 of 1 checks met Promotion score 80.0 / 100" in words
    assert "trades 60 ≥ 50 ✓ met" in words


def test_every_metric_has_a_label_a_format_and_a_definition() -> None:
    assert list(METRICS) == [field.name for field in fields(Metrics)]


def test_every_metric_is_shown_beside_the_baselines(page: Page, sheet: TearSheet) -> None:
    words = " ".join(page.text.split())
    assert [baseline.name for baseline in sheet.baselines] == list(BASELINE_LABELS)
    for name, value in asdict(sheet.metrics).items():
        label, write, definition = METRICS[name]
        others = " ".join(write(getattr(baseline.metrics, name)) for baseline in sheet.baselines)
        assert f"{label} {definition} {write(value)} {others}" in words


def test_the_return_against_a_baseline_is_shown_with_its_interval(page: Page) -> None:
    words = " ".join(page.text.split())
    assert (
        "hold at the same volatility -3.4% (-10.0% to 3.2%) 2.1% (-5.0% to 9.2%) 0.37 (0.30 to 0.44)" in words
    )


def test_rules_at_their_defaults_are_shown_for_information(sheet: TearSheet) -> None:
    rule = RuleResult(
        name="momentum",
        params={
            "threshold": 0.02,
            "stop_loss": 0.03,
            "take_profit": None,
            "max_holding": 240,
            "look_back": 20,
        },
        total_return=0.191,
        sharpe_ratio=1.73,
        sharpe_interval=IntervalEstimate(value=1.73, low=0.06, high=3.29),
        max_drawdown=-0.056,
        win_rate=0.345,
        trades=293,
    )
    idle = rule.model_copy(update={"sharpe_ratio": 0.0, "sharpe_interval": None, "win_rate": None})
    assert "Rule strategies" not in render(sheet)
    verdict = sheet.verdict.model_copy(update={"rules": (rule, idle)})
    words = " ".join(Page(render(replace(sheet, verdict=verdict))).text.split())
    assert "momentum look_back=20, threshold=0.02 1.73 (0.06 to 3.29) -5.6% 34.5% +19.1% 293" in words
    assert "0.00 -5.6% not measured +19.1% 293" in words
    assert RULE_NOTE in words
    assert "| momentum | 1.73 (0.06 to 3.29) | -5.6% | +19.1% | 293 |" in verdict_text.rule_table(verdict)
    assert verdict_text.rule_table(sheet.verdict) == []
    assert Verdict.model_validate(verdict.model_dump()).rules == (rule, idle)


def test_turbulent_bars_are_shaded_and_results_stand_by_regime(sheet: TearSheet) -> None:
    regime = np.repeat(np.array([-1, 0, 1, 0], dtype=np.int8), 5_000)
    page = Page(render(replace(sheet, regime=regime)))
    [shape] = page.figures["curves"]["layout"]["shapes"]
    opens = sheet.bars.index.tz_localize(None)
    assert (shape["x0"], shape["x1"]) == (opens[10_000].isoformat(), opens[15_000].isoformat())
    assert "Shaded: the market was turbulent." in page.text
    assert re.search(r"unknown\s+25.0%.*\scalm\s+50.0%.*\sturbulent\s+25.0%", page.text, re.S)
    assert equity_png(replace(sheet, regime=regime)) != equity_png(sheet)


@pytest.mark.parametrize("regime", [None, np.full(20_000, -1, dtype=np.int8)], ids=["a pool", "unknown"])
def test_without_a_known_regime_nothing_is_shaded(sheet: TearSheet, regime: Any) -> None:
    page = Page(render(replace(sheet, regime=regime)))
    assert page.figures["curves"]["layout"]["shapes"] == []
    assert "By regime" not in page.text


def test_a_verdict_from_before_baselines_has_no_comparison(sheet: TearSheet) -> None:
    older = replace(sheet, verdict=sheet.verdict.model_copy(update={"baselines": ()}))
    assert "Against the baselines" not in render(older)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1234, "12.3%"), (-12.5, "-1,250.0%"), (math.nan, "not measured"), (math.inf, "∞"), (-math.inf, "-∞")],
)
def test_numbers_without_a_value_are_written_as_words_or_signs(value: float, text: str) -> None:
    assert percent(value) == text


def test_the_deepest_drawdown_and_the_last_equity_are_drawn(page: Page, sheet: TearSheet) -> None:
    curve = page.curve("curves", "Model")
    assert len(curve) < len(sheet.bars)
    assert curve[-1] == sheet.backtest.equity[-1]
    assert (curve.min(), curve.max()) == (sheet.backtest.equity.min(), sheet.backtest.equity.max())
    assert page.curve("curves", "Drawdown").min() == pytest.approx(sheet.metrics.max_drawdown, rel=1e-9)


def test_every_drawn_point_is_a_bar_at_its_own_time(page: Page, sheet: TearSheet) -> None:
    times = page.curve("curves", "Model", "x")
    rows = np.searchsorted(sheet.bars.time, (times * 1e6).astype(np.int64))
    assert (sheet.bars.time[rows] == (times * 1e6).astype(np.int64)).all()
    assert (sheet.backtest.equity[rows] == page.curve("curves", "Model")).all()


series = arrays(np.float64, st.integers(1, 400), elements=st.floats(-1e6, 1e6))


@given(curve=series, buckets=st.integers(1, 30))
def test_thinning_keeps_the_order_the_ends_and_the_extremes(curve: Floats, buckets: int) -> None:
    rows = rows_to_draw([curve, -curve], buckets)
    assert (np.diff(rows) > 0).all()
    assert (rows[0], rows[-1]) == (0, len(curve) - 1)
    assert len(rows) <= 4 * buckets + 2
    assert (curve[rows].min(), curve[rows].max()) == (curve.min(), curve.max())


def test_drawdown_counts_a_loss_in_the_first_bar() -> None:
    fall = drawdown(np.array([90.0, 110.0, 99.0, 120.0]), initial_cash=100.0)
    assert fall.tolist() == pytest.approx([-0.1, 0.0, -0.1, 0.0])


def test_monthly_returns_run_from_month_end_to_month_end() -> None:
    times = pd.to_datetime(["2018-01-05", "2018-01-31", "2018-03-01", "2018-03-02"], utc=True)
    months = period_returns(pd.DatetimeIndex(times), np.array([104.0, 110.0, 0.0, 55.0]), 100.0, "M")
    assert months == pytest.approx({"2018-01": 0.1, "2018-03": -0.5})


def test_a_month_that_starts_without_capital_has_no_return() -> None:
    times = pd.to_datetime(["2018-01-05", "2018-02-01"], utc=True)
    months = period_returns(pd.DatetimeIndex(times), np.array([0.0, 0.0]), 100.0, "M")
    assert months["2018-01"] == -1.0
    assert math.isnan(months["2018-02"])


@given(equity=arrays(np.float64, st.integers(2, 90), elements=st.floats(1.0, 1e6)))
def test_months_and_years_compound_to_the_total_return(equity: Floats) -> None:
    times = pd.date_range("2017-11-20", periods=len(equity), freq="20D", tz="UTC")
    for period in ("M", "Y"):
        grown = np.prod([1 + value for value in period_returns(times, equity, 500.0, period).values()])
        assert grown == pytest.approx(equity[-1] / 500.0)


def test_the_download_holds_every_trade(page: Page, sheet: TearSheet) -> None:
    trades = sheet.backtest.trades
    table = page.downloaded_trades()
    assert table["net_return"].to_numpy() == pytest.approx(trades.net_return, rel=1e-9)
    assert table["pnl"].to_numpy() == pytest.approx(trades.pnl, rel=1e-9)
    assert (pd.to_datetime(table["entry_time_utc"], utc=True) == sheet.bars.index[trades.entry_bar]).all()
    assert set(table["side"]) == {"long", "short"}


def test_a_page_with_too_many_trades_embeds_the_newest_and_says_so() -> None:
    page = Page(render(RESULTS["200,000 bars, flipping at each"]()))
    table = page.downloaded_trades()
    assert len(table) == EMBEDDED_TRADES
    assert f"Download the newest {EMBEDDED_TRADES:,} trades" in page.text
    assert "Download all" not in page.text


def test_best_and_worst_trades_are_in_the_table(page: Page, sheet: TearSheet) -> None:
    trades = sheet.backtest.trades
    words = " ".join(page.text.split())
    for row in (trades.net_return.argmax(), trades.net_return.argmin(), 0, len(trades) - 1):
        entry = f"{sheet.bars.index[trades.entry_bar[row]]:%Y-%m-%d %H:%M}"
        assert f"{row + 1:,} {entry}" in words
        assert ratio(trades.pnl[row]) in words


def test_the_histogram_counts_every_trade_and_never_mixes_gains_with_losses(
    page: Page, sheet: TearSheet
) -> None:
    (bar,) = page.figures["returns"]["data"]
    centres = np.frombuffer(base64.b64decode(bar["x"]["bdata"]))
    counts = np.array(bar["y"])
    net_return = sheet.backtest.trades.net_return
    assert counts[centres > 0].sum() == (net_return >= 0).sum()
    assert counts[centres < 0].sum() == (net_return < 0).sum()


def test_the_same_values_make_the_same_page_and_picture(sheet: TearSheet) -> None:
    assert render(sheet) == render(sheet)
    assert equity_png(sheet) == equity_png(sheet)


def test_folds_are_drawn_to_the_scale_of_the_whole_span(page: Page) -> None:
    styles = [value for tag, name, value in page.attributes if tag == "span" and name == "style"]
    assert {"left:0.00%;width:70.37%", "left:74.07%;width:25.93%"} <= set(styles)
    assert "2017-11-21 to 2017-11-28" in page.text


@pytest.mark.parametrize(
    "text",
    [
        "drift detected, requested by alice",
        "paying 5 bps of fees and 2 bps of slippage on each side",
        "Every figure on this page is out of sample and after costs",
        "source bundled fee 5 bps per side slippage 2 bps per side costs paid",
        "starting capital 10,000 stop loss none take profit none lot size any quantity",
        "max_depth 5 labels horizon 12, barrier ∞ monotone none",
        "rsi_14 75.0% atr_14 25.0% 2 of 2 features, 100.0% of the decisions.",
    ],
)
def test_the_page_states_data_costs_rules_and_parameters(page: Page, text: str) -> None:
    assert text in " ".join(page.text.split())
