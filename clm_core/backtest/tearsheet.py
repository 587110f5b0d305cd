"""Tear sheet of a version: an HTML page, and the equity curve as a small picture."""

import base64
import gzip
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clm_core.backtest import chart_library
from clm_core.backtest.baselines import Baseline
from clm_core.backtest.by_regime import REGIME_COLUMNS, REGIME_NOTE, results_by_regime, spans_of
from clm_core.backtest.equity_picture import EquityLine, equity_picture
from clm_core.backtest.results import Backtest, ExitReason, Metrics, PoolTrades, Trades
from clm_core.backtest.walk_forward import FoldResult
from clm_core.domain.evaluations import (
    BASELINE_LABELS,
    CHECK_COLUMNS,
    FOLD_COLUMNS,
    RULE_COLUMNS,
    RULE_NOTE,
    SYMBOL_COLUMNS,
    BaselineComparison,
    CheckStatus,
    Decision,
    Verdict,
    ratio_cell,
)
from clm_core.domain.execution import Execution
from clm_core.domain.explanations import Section
from clm_core.domain.measures import NOT_MEASURED, count, formatter, number, percent, ratio
from clm_core.domain.terms import TradingTerms, cost_lines, cost_sentence
from clm_core.domain.vocabulary import TriggerReason
from clm_core.market.bars import Bars, Floats
from clm_core.market.regimes import STATES, UNKNOWN

if TYPE_CHECKING:
    from jinja2 import Environment

MODEL = "#2f6fed"
HOLD = "#8a94a6"
BASELINES = {"buy_and_hold": HOLD, "hold_at_volatility": "#c7a23c", "trend": "#4fa39b"}
"""Colours of the baselines."""
LOSS = "#d64545"
GAIN = "#12966a"
EXPOSURE = "#8b6fd8"
SHADE = "#c7a23c"
SHADED = STATES.index("turbulent")
"""Regime shaded behind the curves."""
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

BUCKETS = 250
"""Number of buckets a long curve is cut into for drawing; see `rows_to_draw`."""
EMBEDDED_TRADES = 15_000
"""Maximum number of trades embedded in a page for download: about 0.8 MB."""


@dataclass(frozen=True)
class TearSheet:
    """Contents of a version's tear sheet."""

    model_id: str
    version: str
    created_at: datetime
    trigger_reason: TriggerReason
    requested_by: str
    bars: Bars
    """Out-of-sample bars, n_bars long; the arrays of every backtest have the shape (n_bars,)."""
    backtest: Backtest
    metrics: Metrics
    baselines: Sequence[Baseline]
    """Baselines over the same bars, under the same terms; the first is buy and hold."""
    verdict: Verdict
    terms: TradingTerms
    """Costs and rules of every backtest."""
    terms_digest: str
    """SHA-256 of the terms as recorded with the evaluation, hexadecimal."""
    params: Mapping[str, Any]
    """Effective training parameters."""
    importances: Mapping[str, float]
    """Share of each feature in the model's decisions, summing to 1; empty for models without importances."""
    data_facts: Mapping[str, str]
    """Facts about the data, formatted: source, content hash, first and last bar, gaps."""
    folds: Sequence[FoldResult]
    regime: NDArray[np.int8] | None = None
    """Regime of the market (`market.regimes`) known at the open of each bar, shape (n_bars,); None for a
    pool."""
    sections: Sequence[Section] = ()
    """Sections of the explanation, in order."""


class Metric(NamedTuple):
    """Label, format and definition of a metric on the page."""

    label: str
    format: Callable[[float], str]
    definition: str


_fraction_of_a_percent = formatter(lambda value: f"{100 * value:,.2f}%")

METRICS = {
    "total_return": Metric("Total return", percent, "Final equity over starting capital, minus one."),
    "cagr": Metric("CAGR", percent, "Constant yearly growth with the same total return."),
    "volatility": Metric("Volatility", percent, "Standard deviation of the returns per bar, annualised."),
    "sharpe_ratio": Metric(
        "Sharpe ratio", ratio, "Mean return over its standard deviation, annualised; risk-free rate zero."
    ),
    "sortino_ratio": Metric(
        "Sortino ratio", ratio, "Mean return over the deviation of the losing bars only, annualised."
    ),
    "calmar_ratio": Metric("Calmar ratio", ratio, "CAGR over the size of the maximum drawdown."),
    "max_drawdown": Metric(
        "Max drawdown as traded",
        percent,
        "Deepest fall below the highest equity so far, starting capital included.",
    ),
    "profit_factor": Metric("Profit factor", ratio, "Sum of gaining over sum of losing net trade returns."),
    "win_rate": Metric("Win rate", percent, "Share of closed trades with a gain after costs."),
    "trades": Metric(
        "Trades", count, "Closed trades, from leaving flat or flipping to returning or flipping."
    ),
    "exposure": Metric("Exposure", percent, "Mean size of the position over equity, long and short alike."),
    "turnover": Metric(
        "Turnover", ratio, "Traded value over equity per year: 2 is a full position in and out."
    ),
}
TONES = {Decision.PASS: "good", Decision.INCONCLUSIVE: "open", Decision.FAIL: "bad"}
CHECK_TONES = {
    CheckStatus.MET: "good",
    CheckStatus.MISSED: "bad",
    CheckStatus.CARRIED: "open",
    CheckStatus.INFORMATION: "muted",
}


def render(sheet: TearSheet) -> str:
    """The HTML page, which needs no network: charts, tables and the trades to download are embedded, and
    plotly.js lies in the folder above (`chart_library`)."""
    rows = rows_to_draw(list(_curves(sheet).values()))
    figures = {"curves": _curves_figure(sheet, rows)}
    if len(sheet.backtest.trades):
        figures["returns"] = _returns_figure(sheet.backtest.trades)
    figures |= section_figures(sheet.sections)
    return (
        _templates()
        .get_template("tearsheet.html")
        .render(
            sheet=sheet,
            subtitle=_subtitle(sheet),
            method_note=_method_note(sheet.terms),
            points_note=_points_note(sheet, len(rows)),
            verdict=_verdict(sheet.verdict),
            check_columns=CHECK_COLUMNS,
            check_tones=CHECK_TONES,
            tiles=[
                _compared(sheet, name) for name in ("total_return", "sharpe_ratio", "max_drawdown", "trades")
            ],
            baseline_names=[_name_of(baseline) for baseline in sheet.baselines],
            metrics=[_compared(sheet, name) for name in METRICS],
            symbol_columns=SYMBOL_COLUMNS,
            comparisons=[_comparison(each) for each in sheet.verdict.baselines],
            rule_columns=RULE_COLUMNS,
            rule_note=RULE_NOTE,
            regimes=list(by_regime(sheet)),
            regime_columns=REGIME_COLUMNS,
            regime_note=REGIME_NOTE,
            month_names=MONTHS,
            years=_years(sheet),
            trades=_trades(sheet),
            importances=_importances(sheet.importances),
            folds=_folds(sheet.folds),
            fold_columns=FOLD_COLUMNS,
            lists=_lists(sheet),
            figures=packed(figures),
            library=chart_library.reference(),
        )
    )


def render_sections(title: str, label: str, subtitle: str, sections: Sequence[Section]) -> str:
    """HTML page of an explanation alone, which needs no network.

    Args:
        title: heading of the page.
        label: what the heading is about, beside the title.
        subtitle: line below the heading.
    """
    return (
        _templates()
        .get_template("explanation.html")
        .render(
            title=title,
            label=label,
            subtitle=subtitle,
            sections=sections,
            figures=packed(section_figures(sections)),
            library=chart_library.inside(),
        )
    )


def write_sections(path: Path, title: str, label: str, subtitle: str, sections: Sequence[Section]) -> Path:
    """Write the page of `render_sections`, with the folder it lies in; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render_sections(title, label, subtitle, sections), encoding="utf-8")
    return path


def render_fragment(
    *,
    title: str,
    badge: str,
    tone: str,
    subtitle: str,
    sections: Sequence[Section],
    picture: bytes | None = None,
) -> str:
    """Sections as a part of another page, such as a notebook: sentences and tables, no charts and scripts.

    Args:
        badge: word before the title, as PASS; empty for none.
        tone: class of the badge: good, bad, open or muted.
        picture: PNG below the sections.
    """
    return (
        _templates()
        .get_template("fragment.html")
        .render(
            title=title,
            badge=badge,
            tone=tone,
            subtitle=subtitle,
            sections=[each.model_copy(update={"charts": ()}) for each in sections],
            picture=None if picture is None else base64.b64encode(picture).decode(),
        )
    )


def section_figures(sections: Sequence[Section]) -> dict[str, Any]:
    """Figures of sections by the id of their place on a page."""
    return {
        f"{section.name}-{chart.name}": {
            "data": chart.figure["data"],
            # long names of categories make room for themselves
            "layout": _layout({"xaxis": {}, "yaxis": {}} | chart.figure.get("layout", {})),
        }
        for section in sections
        for chart in section.charts
    }


@cache
def _templates() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("clm_core.backtest"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def equity_png(sheet: TearSheet) -> bytes:
    """Equity against the baselines over the drawdown, 900 x 420 pixels."""
    curves = _curves(sheet)
    rows = rows_to_draw(list(curves.values()), buckets=150)
    lines = [
        EquityLine(BASELINE_LABELS[each.name], BASELINES[each.name], 1.0, curves[each.name][rows])
        for each in sheet.baselines
    ]
    return equity_picture(
        _picture_title(sheet),
        sheet.bars.time[rows],
        [*lines, EquityLine(sheet.model_id, MODEL, 1.5, curves["model"][rows])],
        curves["drawdown"][rows],
        [(first.value, last.value) for first, last in _shaded(sheet)],
        shade=SHADE,
        loss=LOSS,
    )


def drawdown(equity: Floats, initial_cash: float) -> Floats:
    """Fall of equity below the running peak at each bar, shape (n_bars,), as a negative fraction.

    The starting capital is the first peak.

    Args:
        equity: equity after each bar, shape (n_bars,), in cash.
        initial_cash: starting capital.
    """
    return equity / np.maximum(np.maximum.accumulate(equity), initial_cash) - 1.0


def rows_to_draw(curves: Sequence[Floats], buckets: int = BUCKETS) -> NDArray[np.int64]:
    """Rows to draw so that no curve loses an extreme, ascending; all rows of short curves.

    Kept are the first and the last row and, in each of `buckets` stretches of equal length, the rows of the
    minimum and maximum of every curve. All curves share the rows, so that hovering shows the same times.

    Args:
        curves: arrays of shape (n_bars,).
    """
    n_bars = len(curves[0])
    if n_bars <= 2 * buckets * min(len(curves), 2):
        return np.arange(n_bars)
    edges = np.linspace(0, n_bars, buckets + 1).astype(np.int64)
    first = edges[:-1, None]
    last = edges[1:, None]
    # a shorter stretch repeats its last row, which is an extreme at its first place already
    rows = np.minimum(first + np.arange((last - first).max()), last - 1)
    stretches = [curve[rows] for curve in curves]
    extremes = [first[:, 0] + each for own in stretches for each in (own.argmin(axis=1), own.argmax(axis=1))]
    return np.unique(np.concatenate([[0], *extremes, [n_bars - 1]]))


def period_returns(
    times: pd.DatetimeIndex, equity: Floats, initial_cash: float, period: str
) -> dict[str, float]:
    """Return of each calendar period with bars, as a fraction; NaN for a period without starting capital.

    Args:
        times: open time of each bar, ascending, shape (n_bars,).
        equity: equity after each bar, shape (n_bars,), in cash.
        initial_cash: starting capital.
        period: "M" for months, with keys like "2018-03", or "Y" for years, with keys like "2018"; in UTC.
    """
    periods = times.tz_localize(None).to_numpy().astype(f"M8[{period}]")
    last = np.append(np.flatnonzero(periods[1:] != periods[:-1]), len(periods) - 1)
    ends = equity[last]
    starts = np.append(initial_cash, ends[:-1])
    returns = ends / np.where(starts > 0, starts, np.nan) - 1.0
    return dict(zip(periods[last].astype(str).tolist(), returns.tolist(), strict=True))


def _curves(sheet: TearSheet) -> dict[str, Floats]:
    cash = sheet.terms.execution.initial_cash
    model = sheet.backtest.equity
    return {
        "model": model,
        **{baseline.name: baseline.result.equity for baseline in sheet.baselines},
        "drawdown": drawdown(model, cash),
        "hold_drawdown": drawdown(sheet.baselines[0].result.equity, cash),
        "exposure": sheet.backtest.exposure,
    }


def _name_of(baseline: Baseline) -> str:
    label = BASELINE_LABELS[baseline.name]
    return label[0].upper() + label[1:]


def _picture_title(sheet: TearSheet) -> str:
    decision = sheet.verdict.decision.value.upper()
    return f"{sheet.model_id} {sheet.version}: {decision}, out of sample after costs"


def _curves_figure(sheet: TearSheet, rows: NDArray[np.int64]) -> dict[str, Any]:
    curves = {name: curve[rows] for name, curve in _curves(sheet).items()}
    times = sheet.bars.time[rows] / 1e6  # plotly's dates are milliseconds

    def trace(name: str, curve: str, axis: str, colour: str, digits: str, **style: Any) -> dict[str, Any]:
        line = {"color": colour, "width": 1.5, **style.pop("line", {})}
        hover = f"%{{y:{digits}}}"
        values = {"x": _binary(times), "y": _binary(curves[curve])}
        return {"name": name, "yaxis": axis, "line": line, "hovertemplate": hover, **values, **style}

    data = [
        *(
            trace(_name_of(baseline), baseline.name, "y", BASELINES[baseline.name], ",.0f")
            for baseline in sheet.baselines
        ),
        trace("Model", "model", "y", MODEL, ",.0f", line={"width": 2}),
        trace(
            "Drawdown, buy and hold", "hold_drawdown", "y2", HOLD, ".1%", showlegend=False, line={"width": 1}
        ),
        trace("Drawdown", "drawdown", "y2", LOSS, ".1%", showlegend=False, fill="tozeroy"),
        trace(
            "Exposure",
            "exposure",
            "y3",
            EXPOSURE,
            ".0%",
            showlegend=False,
            fill="tozeroy",
            line={"width": 1, "shape": "hv"},
        ),
    ]
    shapes = [
        {
            "type": "rect",
            "x0": first.isoformat(),
            "x1": last.isoformat(),
            "y0": 0,
            "y1": 1,
            "yref": "y domain",
        }
        | {"fillcolor": SHADE, "opacity": 0.14, "line": {"width": 0}, "layer": "below"}
        for first, last in _shaded(sheet)
    ]
    return {"data": data, "layout": _layout(CURVES_LAYOUT | {"shapes": shapes})}


def _shaded(sheet: TearSheet) -> Iterator[tuple[pd.Timestamp, pd.Timestamp]]:
    """Open of the first and close of the last bar of each stretch in the shaded regime."""
    if sheet.regime is None:
        return
    times = sheet.bars.time
    length = sheet.bars.timeframe.nanoseconds
    for rows in spans_of(sheet.regime, SHADED):
        yield pd.Timestamp(int(times[rows.start])), pd.Timestamp(int(times[rows.stop - 1]) + length)


def by_regime(sheet: TearSheet) -> Iterator[tuple[str, ...]]:
    """Cells of the table by regime, in the order of `REGIME_COLUMNS`."""
    if sheet.regime is None or np.all(sheet.regime == UNKNOWN):
        return
    for each in results_by_regime(sheet.backtest, sheet.regime, sheet.bars.periods_per_year):
        years = each.share * len(sheet.bars) / sheet.bars.periods_per_year
        yield (
            "unknown" if each.state == UNKNOWN else STATES[each.state],
            percent(each.share),
            f"{ratio(each.metrics.sharpe_ratio)} ± {ratio(1.0 / math.sqrt(years))}",
            percent(each.metrics.max_drawdown),
            percent(each.metrics.win_rate) if each.metrics.trades else NOT_MEASURED,
            percent(each.metrics.total_return),
            percent(each.metrics.exposure),
            count(each.metrics.trades),
        )


PANELS = {
    "Value of the capital": (0.46, 0.96),
    "Drawdown": (0.22, 0.4),
    "Exposure, short to long": (0.0, 0.16),
}
CURVES_LAYOUT: dict[str, Any] = {
    "hovermode": "x unified",
    "hoversubplots": "axis",
    "legend": {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.0, "yanchor": "bottom"},
    "xaxis": {"type": "date", "anchor": "y3", "hoverformat": "%Y-%m-%d %H:%M", "showline": True}
    | {"spikethickness": 1, "spikecolor": HOLD, "spikedash": "solid"},
    "yaxis": {"tickformat": ",.2~f", "domain": PANELS["Value of the capital"]},
    "yaxis2": {"tickformat": ".2~%", "domain": PANELS["Drawdown"]},
    "yaxis3": {"tickformat": ".2~%", "domain": PANELS["Exposure, short to long"]},
    "annotations": [
        {
            "text": title,
            "x": 0,
            "y": top,
            "xref": "paper",
            "yref": "paper",
            "xanchor": "left",
            "yanchor": "bottom",
        }
        | {"showarrow": False}
        for title, (_, top) in PANELS.items()
    ],
}


def _layout(own: dict[str, Any]) -> dict[str, Any]:
    axes = {
        name: {"automargin": True, "fixedrange": name != "xaxis"} | value
        for name, value in ({"xaxis": {}, "yaxis": {}} | own).items()
        if "axis" in name
    }
    shared = {
        "font": {"size": 12, "family": "system-ui, sans-serif"},
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
    }
    return shared | own | axes


def _returns_figure(trades: Trades) -> dict[str, Any]:
    """Histogram of net returns, counted here: the page carries forty numbers instead of every trade."""
    edges = _edges(trades.net_return)
    counts, _ = np.histogram(trades.net_return, edges)
    centres = (edges[:-1] + edges[1:]) / 2
    bar = {
        "type": "bar",
        "x": _binary(centres),
        "y": counts.tolist(),
        "marker": {"color": [GAIN if centre > 0 else LOSS for centre in centres]},
        "text": [f"{_fraction_of_a_percent(a)} to {_fraction_of_a_percent(b)}" for a, b in pairwise(edges)],
        "textposition": "none",
        "hovertemplate": "%{text}: %{y} trades<extra></extra>",
    }
    own = {
        "bargap": 0.08,
        "xaxis": {"tickformat": ".2~%", "title": {"text": "net return"}, "zeroline": True},
        "yaxis": {"title": {"text": "trades"}},
    }
    return {"data": [bar], "layout": _layout(own)}


def _edges(values: Floats) -> Floats:
    """Edges of about forty equal bins, with an edge at zero: no bin holds both gains and losses."""
    low = min(values.min(), 0.0)
    high = max(values.max(), 0.0)
    step = (high - low) / 40 or 0.001
    return np.arange(math.floor(low / step) - 1, math.ceil(high / step) + 2) * step


def _binary(values: Floats) -> dict[str, str]:
    """Plotly's typed array: exact, at a third of the size of decimals."""
    return {"dtype": "f8", "bdata": base64.b64encode(values.astype("<f8").tobytes()).decode()}


def packed(value: Any) -> str:
    """JSON, gzipped and base64-encoded: a third of the size, and no value can close the script element."""
    return _packed(json.dumps(value, allow_nan=False, separators=(",", ":")))


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=6, mtime=0)).decode()


def _subtitle(sheet: TearSheet) -> str:
    bars = sheet.bars
    created = sheet.created_at.astimezone(UTC)
    reason = sheet.trigger_reason.value.replace("_", " ")
    return (
        f"{bars.symbol} {bars.timeframe.value}, out of sample {bars.start:%Y-%m-%d} to {bars.end:%Y-%m-%d} "
        f"({count(len(bars))} bars) · created {created:%Y-%m-%d %H:%M} UTC · {reason}, requested by "
        f"{sheet.requested_by}"
    )


def _method_note(terms: TradingTerms) -> str:
    return (
        "Every figure on this page is out of sample and after costs: walk-forward, each fold traded by a "
        f"model fitted on older bars only, paying {cost_sentence(terms)}."
    )


def _points_note(sheet: TearSheet, rows: int) -> str:
    bars = len(sheet.bars)
    shaded = "" if next(_shaded(sheet), None) is None else f" Shaded: the market was {STATES[SHADED]}."
    if rows == bars:
        return f"All {count(bars)} bars are shown.{shaded}"
    return f"{count(rows)} of {count(bars)} bars are shown, including every high and low.{shaded}"


def _verdict(verdict: Verdict) -> dict[str, str]:
    return {
        "badge": verdict.decision.value.upper(),
        "tone": TONES[verdict.decision],
        "headline": verdict.count,
        "score": formatter(lambda value: f"{value:.1f}")(verdict.score),
        "score_width": f"{np.nan_to_num(verdict.score):.1f}",
    }


def _compared(sheet: TearSheet, name: str) -> dict[str, Any]:
    label, write, definition = METRICS[name]
    value = write(getattr(sheet.metrics, name))
    model = value
    if name == "sharpe_ratio":
        model = sheet.verdict.estimate_of(name) or value
    baselines = [write(getattr(baseline.metrics, name)) for baseline in sheet.baselines]
    if name == "sharpe_ratio":
        intervals = {each.name: each.sharpe_interval for each in sheet.verdict.baselines}
        baselines = [
            ratio_cell(each.metrics.sharpe_ratio, intervals.get(each.name)) for each in sheet.baselines
        ]
    return {"label": label, "definition": definition, "value": value, "model": model, "baselines": baselines}


def _comparison(each: BaselineComparison) -> dict[str, str]:
    return {
        "label": each.label,
        "excess": each.excess_return.text(percent),
        "alpha": each.alpha.text(percent),
        "beta": each.beta.text(ratio),
    }


def _years(sheet: TearSheet) -> list[dict[str, Any]]:
    times = sheet.bars.index
    cash = sheet.terms.execution.initial_cash
    months = period_returns(times, sheet.backtest.equity, cash, "M")
    totals = period_returns(times, sheet.backtest.equity, cash, "Y")
    hold = period_returns(times, sheet.baselines[0].result.equity, cash, "Y")
    return [
        {
            "year": year,
            "months": [_cell(months.get(f"{year}-{month:02}"), _largest(months)) for month in range(1, 13)],
            "total": _cell(total, _largest(totals)),
            "hold": _month_text(hold[year]),
        }
        for year, total in totals.items()
    ]


def _largest(returns: Mapping[str, float]) -> float:
    return max((abs(value) for value in returns.values() if math.isfinite(value)), default=0.0)


_month_text = formatter(lambda value: f"{100 * value:,.1f}")


def _cell(value: float | None, largest: float) -> dict[str, str]:
    if value is None:
        return {"text": "", "tone": "muted", "strength": "0"}
    if not value or not math.isfinite(value):
        return {"text": _month_text(value), "tone": "muted", "strength": "0"}
    strength = 0.08 + 0.5 * abs(value) / largest
    return {"text": _month_text(value), "tone": "good" if value > 0 else "bad", "strength": f"{strength:.2f}"}


def _trades(sheet: TearSheet) -> dict[str, Any]:
    trades = sheet.backtest.trades
    times = sheet.bars.index
    if not len(trades):
        return {"rows": [], "summary": "No trades."}
    listed = _notable(trades.net_return)
    table = _trade_table(trades, times)
    embedded = table.tail(EMBEDDED_TRADES)
    link = "Download all trades (CSV)"
    if len(embedded) < len(table):
        link = f"Download the newest {count(len(embedded))} trades (CSV)"
    return {
        "of_pool": isinstance(trades, PoolTrades),
        "rows": [_trade(int(row), trades, times, _price_at(int(row), sheet)) for row in listed],
        "heading": "All trades" if len(listed) == len(trades) else "First, last, best and worst trades",
        "summary": _trade_summary(trades),
        "file_name": f"{sheet.model_id}_{sheet.version}_trades.csv",
        "link": link,
        "csv": _packed(embedded.to_csv(lineterminator="\n", float_format="%.10g")),
    }


def _notable(net_return: Floats, each: int = 5) -> NDArray[np.int64]:
    order = np.argsort(net_return, kind="stable")
    rows = np.arange(len(net_return))
    return np.unique(np.concatenate([rows[:each], rows[-each:], order[:each], order[-each:]]))


def _trade_summary(trades: Trades) -> str:
    gains = trades.net_return[trades.net_return > 0]
    losses = trades.net_return[trades.net_return <= 0]
    reasons = [(reason, int((trades.reason == reason).sum())) for reason in ExitReason]
    parts = [
        f"{count(len(gains))} with a gain"
        + (f", {_fraction_of_a_percent(gains.mean())} on average" if len(gains) else ""),
        f"{count(len(losses))} without"
        + (f", {_fraction_of_a_percent(losses.mean())} on average" if len(losses) else ""),
        f"median holding time {count(float(np.median(trades.bars)))} bars",
        "closed by " + ", ".join(f"{_words(reason)} {count(number)}" for reason, number in reasons if number),
    ]
    return "; ".join(parts) + "."


def _words(reason: int) -> str:
    return ExitReason(reason).name.lower().replace("_", " ")


def _price_at(row: int, sheet: TearSheet) -> Callable[[float], str]:
    """Format of the prices of a trade, the same for all trades of a market."""
    trades = sheet.backtest.trades
    if not isinstance(trades, PoolTrades):
        return _price(float(sheet.bars.close.min()))
    of_market = trades.symbol == trades.symbol[row]
    return _price(float(min(trades.entry_price[of_market].min(), trades.exit_price[of_market].min())))


def _price(lowest: float) -> Callable[[float], str]:
    """Format of the prices: six digits for the lowest price, and the same decimals for all, to align."""
    decimals = max(5 - math.floor(math.log10(lowest)), 0)
    return formatter(lambda value: f"{value:,.{decimals}f}")


def _trade(
    row: int, trades: Trades, times: pd.DatetimeIndex, price: Callable[[float], str]
) -> dict[str, str]:
    return {
        "number": count(row + 1),
        "symbol": str(trades.symbol[row]) if isinstance(trades, PoolTrades) else "",
        "entry": f"{times[trades.entry_bar[row]]:%Y-%m-%d %H:%M}",
        "exit": f"{times[trades.exit_bar[row]]:%Y-%m-%d %H:%M}",
        "side": _side(trades.direction[row]),
        "entry_price": price(trades.entry_price[row]),
        "exit_price": price(trades.exit_price[row]),
        "bars": count(trades.bars[row]),
        "net_return": _fraction_of_a_percent(trades.net_return[row]),
        "pnl": ratio(trades.pnl[row]),
        "tone": "good" if trades.net_return[row] > 0 else "bad",
        "reason": _words(trades.reason[row]),
    }


def _side(direction: int) -> str:
    return "long" if direction > 0 else "short"


def _trade_table(trades: Trades, times: pd.DatetimeIndex) -> pd.DataFrame:
    naive = times.tz_localize(None)
    market = {"symbol": trades.symbol} if isinstance(trades, PoolTrades) else {}
    columns = market | {
        "entry_time_utc": naive[trades.entry_bar],
        "exit_time_utc": naive[trades.exit_bar],
        "side": [_side(direction) for direction in trades.direction],
        "entry_price": trades.entry_price,
        "exit_price": trades.exit_price,
        "bars": trades.bars,
        "net_return": trades.net_return,
        "pnl": trades.pnl,
        "closed_by": [_words(reason) for reason in trades.reason],
    }
    return pd.DataFrame(columns, index=pd.RangeIndex(1, len(trades) + 1, name="trade"))


def _importances(importances: Mapping[str, float], top: int = 15) -> dict[str, Any]:
    if not importances:
        return {"rows": [], "note": "The model reports no feature importances."}
    ranked = sorted(importances.items(), key=lambda item: -item[1])[:top]
    largest = ranked[0][1] or 1.0
    rows = [
        {"name": name, "share": percent(share), "width": f"{100 * share / largest:.1f}"}
        for name, share in ranked
    ]
    total = percent(sum(share for _, share in ranked))
    return {"rows": rows, "note": f"{len(ranked)} of {len(importances)} features, {total} of the decisions."}


def _folds(folds: Sequence[FoldResult]) -> list[dict[str, str]]:
    first = min(fold.train_start for fold in folds)
    span = max(fold.test_end for fold in folds) - first

    def place(name: str, start: datetime, end: datetime) -> dict[str, str]:
        return {
            f"{name}_left": f"{100 * ((start - first) / span):.2f}",
            f"{name}_width": f"{100 * ((end - start) / span):.2f}",
        }

    return [
        {
            "title": f"trained on {fold.train_start:%Y-%m-%d} to {fold.train_end:%Y-%m-%d}, "
            f"tested on {fold.test_start:%Y-%m-%d} to {fold.test_end:%Y-%m-%d}",
            "tested": f"{fold.test_start:%Y-%m-%d} to {fold.test_end:%Y-%m-%d}",
        }
        | place("train", fold.train_start, fold.train_end)
        | place("test", fold.test_start, fold.test_end)
        for fold in folds
    ]


def _lists(sheet: TearSheet) -> list[dict[str, Any]]:
    costs = _costs(sheet.terms, sheet.backtest)
    digest = ("terms digest", sheet.terms_digest)
    data = [*sheet.data_facts.items(), *costs, *_rules(sheet.terms.execution), digest]
    params = [(name, _plain(value)) for name, value in sheet.params.items()]
    return [{"title": "Data and costs", "rows": data}, {"title": "Training parameters", "rows": params}]


def _costs(terms: TradingTerms, backtest: Backtest) -> list[tuple[str, str]]:
    return [
        *((name, _with_origin(terms, name, value)) for name, value in cost_lines(terms)),
        ("costs paid", count(backtest.costs_paid)),
        ("costs of holding paid", count(backtest.holding_costs)),
    ]


def _with_origin(terms: TradingTerms, name: str, value: str) -> str:
    origin = terms.origins.get(f"{name}_bps")
    return value if origin is None else f"{value} ({origin})"


def _rules(execution: Execution) -> list[tuple[str, str]]:
    return [
        ("starting capital", count(execution.initial_cash)),
        ("stop loss", "none" if execution.stop_loss is None else percent(execution.stop_loss)),
        ("take profit", "none" if execution.take_profit is None else percent(execution.take_profit)),
        ("lot size", "any quantity" if execution.lot_size is None else number(execution.lot_size)),
        ("rebalanced", _rebalanced(execution)),
    ]


def _rebalanced(execution: Execution) -> str:
    if execution.rebalance_band is None:
        return "no: fixed units until the target changes"
    return f"at an open, when exposure is {percent(execution.rebalance_band)} from the target"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    if isinstance(value, float):
        return number(value)
    return "none" if value is None else str(value)
