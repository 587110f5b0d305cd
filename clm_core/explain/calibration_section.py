"""Section about the calibration of forecasts: value of the confidence of a version."""

import math
from typing import Any

from clm_core.domain.explanations import Section, SectionChart, SectionTable
from clm_core.domain.measures import NOT_MEASURED, count, formatter, percent
from clm_core.explain.calibration import Bin, Calibration, Calls, calibration_of_record
from clm_core.explain.forecasts import ForecastRecord

NAME = "calibration"
TITLE = "Is its confidence worth anything?"
FORECAST = "#1f6f8b"
EVEN = "#9aa5ab"
_score = formatter(lambda value: f"{value:.5f}")
_skill = formatter(lambda value: f"{100 * value:+.2f}%")
_area = formatter(lambda value: f"{value:.3f}")


def calibration_section(record: ForecastRecord) -> Section:
    """Section about the out-of-sample forecasts of a version.

    Raises:
        ExplanationUnavailable: the kind makes no forecasts, or not over a single horizon.
        NotEnoughBars: too few outcomes without overlap.
    """
    return section_of(calibration_of_record(record))


def section_of(calibration: Calibration) -> Section:
    return Section(
        name=NAME,
        title=TITLE,
        sentences=(
            _worth(calibration),
            _calibrated(calibration),
            _ranking(calibration),
            f"The outcomes of {count(calibration.forecasts)} out-of-sample forecasts overlap and tell as "
            f"much as {count(calibration.independent)} outcomes without overlap: the intervals (95 %) count "
            "the latter.",
        ),
        charts=_charts(calibration),
        tables=(
            _calls_table(calibration),
            _brier_table(calibration),
            _confusion_table(calibration),
            _bins_table(calibration),
        ),
        values=calibration.to_json(),
    )


def _worth(calibration: Calibration) -> str:
    skill = calibration.brier.skill
    if math.isnan(skill.value):
        return "Its confidence cannot be measured: all outcomes were alike."
    against = (
        f"against always saying {percent(calibration.base_rate.value)}, the share of rises: Brier skill "
        f"{skill.written(_skill)}"
    )
    if skill.low > 0:
        return f"Its confidence is worth something: the forecasts are better {against}."
    if skill.high < 0:
        return f"Its confidence misleads: the forecasts are worse {against}."
    return f"Nothing shows that its confidence is worth anything, {against}."


def _calibrated(calibration: Calibration) -> str:
    beyond = calibration.error > 2 * calibration.error_by_chance
    judged = "more than twice" if beyond else "no more than twice"
    return (
        f"The forecasts average {percent(calibration.mean_forecast)}, and a rise followed "
        f"{calibration.base_rate.written(percent)} of them. Calibration error {percent(calibration.error)}: "
        f"{judged} the {percent(calibration.error_by_chance)} to be expected of a perfect forecast by chance."
    )


def _ranking(calibration: Calibration) -> str:
    auc = calibration.auc
    if math.isnan(auc.value):
        return f"Order of the forecasts: {NOT_MEASURED}."
    verdict = "tells" if auc.low > 0.5 else "reverses" if auc.high < 0.5 else "does not tell"
    return (
        f"The order of the forecasts {verdict} rises from falls: area under the ROC curve "
        f"{auc.written(_area)}, 0.5 by chance."
    )


def _calls_table(calibration: Calibration) -> SectionTable:
    return SectionTable(
        title="Precision",
        columns=("direction", "bars", "without overlap", "right", "always the same", "better"),
        rows=tuple(map(_calls_cells, calibration.calls)),
        note=(
            f"Rise, fall called: forecasts at least {percent(calibration.threshold)} from even odds. Long, "
            "short: positions as the model asked for them, held from earlier bars and sized. Always the "
            "same: precision of calling the direction on every bar."
        ),
    )


def _calls_cells(each: Calls) -> tuple[str, ...]:
    if not each.forecasts:
        return each.name, "0", "0", "-", percent(each.always), "-"
    return (
        each.name,
        count(each.forecasts),
        count(each.independent),
        each.right.written(percent),
        percent(each.always),
        "yes" if each.better else "not shown",
    )


def _brier_table(calibration: Calibration) -> SectionTable:
    brier = calibration.brier
    return SectionTable(
        title="Brier score",
        columns=("part", "value"),
        rows=(
            ("uncertainty: score of the base rate", _score(brier.uncertainty)),
            ("+ reliability: distance from the share of rises", _score(brier.reliability)),
            ("- resolution: what the forecasts tell apart", _score(brier.resolution)),
            ("+ differences within bins", _score(brier.within_bins)),
            ("= Brier score", _score(brier.score)),
        ),
        note="Better than the base rate where the resolution exceeds the reliability (Murphy 1973).",
    )


def _confusion_table(calibration: Calibration) -> SectionTable:
    names = ("rise called", "neither", "fall called")
    cells = zip(names, calibration.confusion, strict=True)
    return SectionTable(
        title="Confusion matrix",
        columns=("forecast", "rise followed", "fall followed"),
        rows=tuple((name, count(rises), count(falls)) for name, (rises, falls) in cells if rises + falls),
    )


def _bins_table(calibration: Calibration) -> SectionTable:
    return SectionTable(
        title="Reliability",
        columns=("mean forecast", "bars", "without overlap", "share of rises"),
        rows=tuple(
            (percent(each.mean), count(each.forecasts), count(each.independent), each.rises.written(percent))
            for each in calibration.bins
        ),
    )


def _charts(calibration: Calibration) -> tuple[SectionChart, ...]:
    reliability = SectionChart(
        name="reliability",
        title="Reliability diagram",
        figure=_reliability(calibration.bins),
        note="Share of rises after forecasts close together, with intervals; on the line as forecast.",
    )
    roc = SectionChart(
        name="roc",
        title="ROC curve",
        figure=_roc(calibration.roc),
        note="Shares of rises and of falls whose forecast reaches a limit, for every limit.",
    )
    return (reliability, roc) if calibration.roc else (reliability,)


def _reliability(bins: tuple[Bin, ...]) -> dict[str, Any]:
    means = [each.mean for each in bins]
    shares = [each.rises.value for each in bins]
    ends = [min(means), max(means)]
    points = {
        "type": "scatter",
        "mode": "markers",
        "x": means,
        "y": shares,
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [each.rises.high - each.rises.value for each in bins],
            "arrayminus": [each.rises.value - each.rises.low for each in bins],
        },
        "marker": {"color": FORECAST, "size": 8},
        "customdata": [each.forecasts for each in bins],
        "hovertemplate": "forecast %{x:.1%}: %{y:.1%} rises, %{customdata} bars<extra></extra>",
    }
    return {
        "data": [_line(ends, ends), points],
        "layout": {
            "showlegend": False,
            "xaxis": {"title": {"text": "mean forecast"}, "tickformat": ".1%"},
            "yaxis": {"title": {"text": "share of rises"}, "tickformat": ".0%"},
        },
    }


def _roc(points: tuple[tuple[float, float], ...]) -> dict[str, Any]:
    curve = {
        "type": "scatter",
        "mode": "lines",
        "x": [falls for falls, _ in points],
        "y": [rises for _, rises in points],
        "line": {"color": FORECAST},
        "hovertemplate": "%{y:.1%} of rises, %{x:.1%} of falls<extra></extra>",
    }
    return {
        "data": [_line([0, 1], [0, 1]), curve],
        "layout": {
            "showlegend": False,
            "xaxis": {"title": {"text": "share of falls"}, "tickformat": ".0%"},
            "yaxis": {"title": {"text": "share of rises"}, "tickformat": ".0%"},
        },
    }


def _line(x: list[float], y: list[float]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "line": {"color": EVEN, "dash": "dot"},
        "hoverinfo": "skip",
    }
