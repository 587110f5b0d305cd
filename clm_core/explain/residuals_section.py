"""Section about the residuals of forecast returns: size, time and shape of the errors of a version."""

import math
from collections.abc import Sequence
from typing import Any

from clm_core.domain.explanations import Section, SectionChart, SectionTable
from clm_core.domain.measures import count, formatter, percent, probability, ratio
from clm_core.explain.forecasts import ForecastRecord
from clm_core.explain.residuals import Group, NewestForecast, Quantiles, Residuals, residuals_of

NAME = "residuals"
TITLE = "How far off are its forecasts?"
FORECAST = "#1f6f8b"
NORMAL = "#c77b30"
MAX_MEMBERS = 10
"""Members of a pool with a row of their newest forecast."""
_skill = formatter(lambda value: f"{100 * value:+.2f}%")
_return = formatter(lambda value: f"{100 * value:+.2f}%")
_correlation = formatter(lambda value: f"{value:+.3f}")
_signed = formatter(lambda value: f"{value:+.2f}")


def residuals_section(record: ForecastRecord) -> Section:
    """Section about the forecast returns of a version.

    Raises:
        ExplanationUnavailable: the kind expects no returns, or not over a single horizon.
        NotEnoughBars: too few outcomes without overlap.
    """
    return section_of(residuals_of(record))


def section_of(residuals: Residuals) -> Section:
    quantiles = residuals.quantiles
    return Section(
        name=NAME,
        title=TITLE,
        sentences=(
            _worth(residuals),
            *([] if quantiles is None else [_of_quantiles(quantiles)]),
            _interval(residuals),
            _shape(residuals),
            _memory(residuals),
        ),
        charts=(
            _chart("histogram", "Residuals and a normal distribution", _histogram(residuals)),
            _chart(
                "normal-plot", "Quantiles of residuals and of a normal distribution", _normal_plot(residuals)
            ),
            _chart("autocorrelation", "Autocorrelation at whole horizons", _autocorrelation(residuals)),
            _chart("time", "Size of the residuals over time", _sizes(residuals.by_time)),
            _chart("volatility", "Size of the residuals by volatility", _sizes(residuals.by_volatility)),
            *([] if quantiles is None else [_chart("quantiles", "Quantiles", _coverage(quantiles))]),
        ),
        tables=(
            _newest_table(residuals.newest),
            _groups_table("By time", "from", residuals.by_time),
            _groups_table("By volatility of the horizon's return", "volatility", residuals.by_volatility),
        ),
        values=residuals.to_json(),
    )


def _worth(residuals: Residuals) -> str:
    numbers = (
        f"skill {residuals.skill.written(_skill)}, correlation with what followed "
        f"{residuals.correlation.written(_correlation)}, by {count(residuals.independent)} outcomes without "
        "overlap"
    )
    if residuals.skill.low > 0:
        return f"The expected returns are better than expecting nothing: {numbers}."
    if residuals.skill.high < 0:
        return f"The expected returns are worse than expecting nothing: {numbers}."
    return f"Nothing shows that the expected returns are better than expecting nothing: {numbers}."


def _of_quantiles(quantiles: Quantiles) -> str:
    return (
        f"Outcomes at or below a forecast quantile differ from its level by {percent(quantiles.error)} on "
        f"average; pinball loss {probability(quantiles.pinball_loss)} standard deviations, skill against the "
        f"quantiles of all outcomes {quantiles.skill.written(_skill)}."
    )


def _interval(residuals: Residuals) -> str:
    if math.isnan(residuals.coverage.value):
        return "Too few outcomes for intervals around the forecasts."
    return (
        f"Intervals of 90 % around the forecasts, set by earlier errors alone, held "
        f"{residuals.coverage.written(percent)} of the outcomes; half of them were narrower than "
        f"± {percent(residuals.half_width)}."
    )


def _shape(residuals: Residuals) -> str:
    tails = "fatter" if residuals.excess_kurtosis > 0 else "no fatter"
    return (
        f"Residuals average {residuals.mean.written(_signed)} standard deviations of the horizon's return, "
        f"with a deviation of {ratio(residuals.deviation)}. Their tails are {tails} than normal: "
        f"{percent(residuals.beyond_three)} lie beyond three deviations, 0.3% by the normal distribution; "
        f"skewness {_signed(residuals.skewness)}, excess kurtosis {_signed(residuals.excess_kurtosis)}."
    )


def _memory(residuals: Residuals) -> str:
    beyond = [
        sum(abs(each) > residuals.band for each in lags)
        for lags in (residuals.autocorrelation, residuals.autocorrelation_of_squares)
    ]
    return (
        f"Of {len(residuals.autocorrelation)} autocorrelations of the residuals {beyond[0]} are beyond "
        f"± {probability(residuals.band)}, of their squares {beyond[1]}: residuals that repeat are a "
        "forecast left out, squares that repeat a volatility left out."
    )


def _newest_table(newest: Sequence[NewestForecast]) -> SectionTable:
    return SectionTable(
        title="Newest forecasts with intervals of 90 %",
        columns=("market", "bar (UTC)", "bars ahead", "expected", "at least", "at most"),
        rows=tuple(map(_newest_cells, newest[:MAX_MEMBERS])),
    )


def _newest_cells(each: NewestForecast) -> tuple[str, ...]:
    return (
        each.symbol,
        f"{each.at:%Y-%m-%d %H:%M}",
        count(each.horizon),
        _return(each.expected),
        _return(each.expected - each.half_width),
        _return(each.expected + each.half_width),
    )


def _groups_table(title: str, name: str, groups: Sequence[Group]) -> SectionTable:
    return SectionTable(
        title=title,
        columns=(name, "bars", "mean residual", "size", "inside 90 %"),
        rows=tuple(
            (
                each.name,
                count(each.forecasts),
                each.mean.written(_signed),
                ratio(each.deviation),
                each.coverage.written(percent),
            )
            for each in groups
        ),
        note="Size: root mean square in standard deviations of the horizon's return, 1 where the volatility "
        "is as before.",
    )


def _chart(name: str, title: str, figure: dict[str, Any]) -> SectionChart:
    return SectionChart(name=name, title=title, figure=figure, height=240)


def _histogram(residuals: Residuals) -> dict[str, Any]:
    centres = [centre for centre, _ in residuals.histogram]
    width = centres[1] - centres[0]
    density = residuals.forecasts * width / math.sqrt(2 * math.pi)
    normal = [density * math.exp(-(centre**2) / 2) for centre in centres]
    bars = {
        "type": "bar",
        "x": centres,
        "y": [number for _, number in residuals.histogram],
        "marker": {"color": FORECAST},
        "hovertemplate": "%{x:.1f}: %{y:,} bars<extra></extra>",
    }
    return _figure([bars, _curve(centres, normal)], "standard deviations", "bars")


def _normal_plot(residuals: Residuals) -> dict[str, Any]:
    normal = [each for each, _ in residuals.normal_plot]
    points = {
        "type": "scatter",
        "mode": "markers",
        "x": normal,
        "y": [each for _, each in residuals.normal_plot],
        "marker": {"color": FORECAST, "size": 6},
    }
    return _figure([_curve(normal, normal), points], "normal distribution", "residuals")


def _autocorrelation(residuals: Residuals) -> dict[str, Any]:
    lags = list(range(1, len(residuals.autocorrelation) + 1))
    named = (
        ("residuals", residuals.autocorrelation, FORECAST),
        ("squares", residuals.autocorrelation_of_squares, NORMAL),
    )
    bars = [
        {
            "type": "bar",
            "name": name,
            "x": lags,
            "y": [None if math.isnan(each) else each for each in values],
            "marker": {"color": color},
        }
        for name, values, color in named
    ]
    ends = [0.5, len(lags) + 0.5]
    bands = [_curve(ends, [limit, limit]) for limit in (-residuals.band, residuals.band)]
    figure = _figure([*bars, *bands], "horizons", "autocorrelation")
    legend = {"showlegend": True, "legend": {"orientation": "h", "y": 1.2}}
    return figure | {"layout": figure["layout"] | legend}


def _sizes(groups: Sequence[Group]) -> dict[str, Any]:
    names = [each.name for each in groups]
    sizes = {
        "type": "bar",
        "x": names,
        "y": [each.deviation for each in groups],
        "marker": {"color": FORECAST},
    }
    figure = _figure([sizes, _curve(names, [1.0] * len(names))], "", "standard deviations")
    figure["layout"]["xaxis"]["type"] = "category"
    return figure


def _coverage(quantiles: Quantiles) -> dict[str, Any]:
    levels = list(quantiles.levels)
    points = {
        "type": "scatter",
        "mode": "markers",
        "x": levels,
        "y": [each.value for each in quantiles.below],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [each.high - each.value for each in quantiles.below],
            "arrayminus": [each.value - each.low for each in quantiles.below],
        },
        "marker": {"color": FORECAST, "size": 8},
    }
    return _figure([_curve(levels, levels), points], "level", "share of outcomes below")


def _figure(traces: list[dict[str, Any]], x: str, y: str) -> dict[str, Any]:
    axes = {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}}
    return {"data": traces, "layout": {"showlegend": False, **axes}}


def _curve(x: Sequence[Any], y: Sequence[float]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": list(x),
        "y": list(y),
        "line": {"color": NORMAL, "dash": "dot"},
        "hoverinfo": "skip",
        "showlegend": False,
    }
