"""Kept drift of a version as a section: features, SHAP values and predictions by week."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import date, timedelta
from statistics import fmean
from typing import Any

from clm_core.domain.drift_history import SHAP, DriftHistory, FeatureHistory
from clm_core.domain.explanations import Section, SectionChart, SectionTable
from clm_core.domain.measures import NOT_MEASURED, probability, ratio

COLUMNS = ("name", "score", "p-value", "PSI", "KS", "drifted")
NOTE = (
    "Score 1: as far from the training as the furthest stretch of the training itself. PSI: population "
    "stability index; KS: Kolmogorov-Smirnov statistic; both for comparison with other monitors, without a "
    "limit, since neighbouring bars depend on each other."
)
SCALE = [[0.0, "#eef2f8"], [0.5, "#f0c674"], [1.0, "#d64545"]]
"""Colours of scores 0, 1 and 2."""
PIXELS_A_NAME = 20


def drift_section(history: DriftHistory) -> Section:
    """Section about the kept drift of a production version."""
    features = [each for each in history.features if not each.name.startswith(SHAP)]
    used = [each for each in history.features if each.name.startswith(SHAP)]
    charts = [
        _chart(name, title, histories)
        for name, title, histories in (
            ("features", "Features and predictions, score by week", features),
            ("use", "SHAP values, score by week", used),
        )
        if histories
    ]
    return Section(
        name="drift",
        title="Drift",
        sentences=_sentences(history),
        charts=tuple(charts),
        tables=(SectionTable(columns=COLUMNS, rows=tuple(map(_cells, history.features)), note=NOTE),),
        values=history.model_dump(mode="json"),
    )


def _sentences(history: DriftHistory) -> tuple[str, ...]:
    if history.newest_day is None:
        return (
            f"The watch has kept no drift of {history.model_id}@{history.version}: a measurement takes two "
            "weeks of bars after the training, and a training ten times as long.",
        )
    drifted = [each.name for each in history.features if each.drifted]
    named = f": {', '.join(drifted)}" if drifted else ""
    return (
        f"{len(drifted)} of {len(history.features)} have drifted on {history.newest_day}{named}. At most 5 % "
        "of those reported are false, over all names and 30 days.",
    )


def _cells(each: FeatureHistory) -> tuple[str, ...]:
    newest = each.measurements[-1]
    psi, ks = (NOT_MEASURED if value is None else ratio(value) for value in (newest.psi, newest.ks))
    return each.name, ratio(newest.score), probability(newest.p_value), psi, ks, "yes" if each.drifted else ""


def _chart(name: str, title: str, histories: Sequence[FeatureHistory]) -> SectionChart:
    by_week = [_by_week(each) for each in histories]
    weeks = sorted({week for each in by_week for week in each})
    # plotly draws from the bottom up
    scores = [[each.get(week) for week in weeks] for each in reversed(by_week)]
    heat: dict[str, Any] = {
        "type": "heatmap",
        "x": [f"{week:%Y-%m-%d}" for week in weeks],
        "y": [each.name.removeprefix(SHAP) for each in reversed(histories)],
        "z": scores,
        "zmin": 0.0,
        "zmax": 2.0,
        "colorscale": SCALE,
        "hovertemplate": "%{y}, week of %{x}: %{z:.2f}<extra></extra>",
    }
    layout = {"xaxis": {"type": "category", "title": {"text": "week from"}}}
    return SectionChart(
        name=name,
        title=title,
        height=120 + PIXELS_A_NAME * len(histories),
        figure={"data": [heat], "layout": layout},
    )


def _by_week(history: FeatureHistory) -> dict[date, float]:
    """Mean score of the measurements of each week, by Monday."""
    weeks = defaultdict[date, list[float]](list)
    for each in history.measurements:
        weeks[each.day - timedelta(days=each.day.weekday())].append(each.score)
    return {monday: fmean(scores) for monday, scores in weeks.items()}
