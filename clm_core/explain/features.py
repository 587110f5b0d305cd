"""Importance of the features of a model made of trees, by SHAP values on the newest bars."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np

from clm_core.domain import measures
from clm_core.domain.errors import NotEnoughBars
from clm_core.domain.explanations import Section, SectionChart, SectionTable, VersionExplanation
from clm_core.explain.feature_charts import (
    FALLING,
    PIXELS_A_FEATURE,
    RISING,
    beeswarm,
    dependence,
    waterfall,
)
from clm_core.explain.forest import boosted_of, forest_of
from clm_core.explain.importance import Importance, importances_of
from clm_core.explain.tree_shap import ShapValues, shap_values
from clm_core.market.bars import Bars, Floats
from clm_core.market.features import compute_features, memory_of
from clm_core.models.contract import Model

NAME = "features"
LEADERS = 5
"""Features named in words."""
LOG_ODDS = "log-odds"
SCALED_RETURN = "standard deviations of the return over the horizon"
COLUMNS = ("feature", "mean |SHAP|", "share", "when high", "when low")
NOTE = "When high, low: mean value on the bars in the top and bottom quarter of the feature."
DEPENDENCES = 2
"""Features whose values are drawn by feature value."""


@dataclass(frozen=True, eq=False)
class FeatureImportances:
    symbol: str
    """Market of the explained bars."""
    rows: int
    """Number of explained bars: the newest with every feature."""
    start: datetime
    """Open time of the first explained bar (UTC)."""
    end: datetime
    """Open time of the last explained bar (UTC)."""
    unit: str
    """Unit of the values: LOG_ODDS or SCALED_RETURN."""
    base: float
    """Expected answer of the trees without known features."""
    features: tuple[Importance, ...]
    """Features of the version, most important first."""
    shap: ShapValues
    """Values of the explained bars, columns in the order of the model's features."""
    values: Floats
    """Feature values of the explained bars, shape (n_rows, n_features)."""

    @property
    def used(self) -> tuple[Importance, ...]:
        """Features with a part in the answers."""
        return tuple(each for each in self.features if each.share > 0)

    def to_json(self) -> dict[str, Any]:
        features = [
            asdict(each)
            | {name: measures.finite_or_none(getattr(each, name)) for name in ("when_high", "when_low")}
            for each in self.features
        ]
        return {
            "symbol": self.symbol,
            "rows": self.rows,
            "start": self.start.isoformat(),
            "end": self.end.isoformat(),
            "unit": self.unit,
            "base": self.base,
            "features": features,
            "newest": {
                feature: {"value": measures.finite_or_none(float(value)), "shap": float(part)}
                for feature, value, part in zip(
                    self.shap.features, self.values[-1], self.shap.values[-1], strict=True
                )
            },
        }


def explain_features(model: Model, bars: Bars, rows: int) -> FeatureImportances:
    """Importance of the features on the newest bars with every feature.

    Args:
        bars: bars of the model's market, with its own series.
        rows: number of bars at most.

    Raises:
        ExplanationUnavailable: the model is not made of trees.
        NotEnoughBars: no bar has every feature.
    """
    boosted = boosted_of(model)
    names = boosted.params.features
    memory = memory_of(names)
    # the older bars of a long series have no part in the newest values
    first = max(len(bars) - rows - memory, 0)
    table = compute_features(bars[first:], names)
    newest = np.flatnonzero(table.complete)[-rows:]
    if first and (len(newest) < rows or newest[0] < memory):
        # after outages the newest rows with every feature lie further apart
        first = 0
        table = compute_features(bars, names)
        newest = np.flatnonzero(table.complete)[-rows:]
    if len(newest) == 0:
        raise NotEnoughBars(
            f"{bars.symbol} {bars.timeframe}: none of {len(bars)} bars has every feature. Import more bars"
        )
    values = table.values[newest]
    shap = shap_values(forest_of(model), values)
    explained = bars[first + newest[0] : first + newest[-1] + 1]
    return FeatureImportances(
        symbol=bars.symbol,
        rows=len(newest),
        start=explained.start.to_pydatetime(),
        end=explained.end.to_pydatetime(),
        unit=SCALED_RETURN if boosted.params.learns_returns else LOG_ODDS,
        base=shap.base,
        features=importances_of(shap, values),
        shap=shap,
        values=values,
    )


def stored_shares(explanation: VersionExplanation) -> tuple[str, dict[str, float]] | None:
    """Market of the explained bars, and the share of each feature in mean |SHAP|; None for an explanation
    without SHAP values."""
    values = explanation.values_of(NAME)
    if not values.get("features"):
        return None
    return values["symbol"], {each["feature"]: each["share"] for each in values["features"]}


def features_section(importances: FeatureImportances) -> Section:
    used = importances.used
    return Section(
        name=NAME,
        title="Features",
        sentences=(
            *_leaders(used),
            f"SHAP values of {importances.rows} bars of {importances.symbol}, "
            f"{importances.start:%Y-%m-%d %H:%M} to {importances.end:%Y-%m-%d %H:%M} UTC, in "
            f"{importances.unit}.",
            f"Base {importances.base:+.4f}: base and values of a bar add up to the answer of the trees.",
            f"Features without any part in these answers: {len(importances.features) - len(used)}.",
        ),
        charts=_charts(importances) if used else (),
        tables=(SectionTable(columns=COLUMNS, rows=tuple(map(_cells, used)), note=NOTE),),
        values=importances.to_json(),
    )


def _leaders(used: tuple[Importance, ...]) -> tuple[str, ...]:
    """Sentence on the most important features; none where no feature has a part."""
    if not used:
        return ()
    named = ", ".join(f"{each.feature} ({measures.percent(each.share)})" for each in used[:LEADERS])
    return (f"The answers depend most on {named}; {len(used)} of the features have a part.",)


def _cells(each: Importance) -> tuple[str, ...]:
    return (
        each.feature,
        f"{each.mean_absolute:.4f}",
        measures.percent(each.share),
        f"{each.when_high:+.4f}",
        f"{each.when_low:+.4f}",
    )


def _charts(importances: FeatureImportances) -> tuple[SectionChart, ...]:
    ranked = tuple(each.feature for each in importances.used)
    shap = importances.shap
    values = importances.values
    newest = f"Newest bar, {importances.end:%Y-%m-%d %H:%M} UTC"
    return (
        SectionChart(
            name="bars",
            height=80 + PIXELS_A_FEATURE * len(ranked),
            figure=_bars(importances),
            note="Blue: high values of the feature raise the answer; ochre: they lower it.",
        ),
        beeswarm(shap, values, ranked),
        *(dependence(shap, values, ranked[n], n + 1) for n in range(min(DEPENDENCES, len(ranked)))),
        waterfall(shap, -1, values[-1], newest),
    )


def _bars(importances: FeatureImportances) -> dict[str, Any]:
    # plotly draws from the bottom up
    used = importances.used[::-1]
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": [each.mean_absolute for each in used],
        "y": [each.feature for each in used],
        "marker": {"color": [RISING if each.when_high >= each.when_low else FALLING for each in used]},
        "hovertemplate": "%{y}: %{x:.4f}<extra></extra>",
    }
    return {"data": [bars], "layout": {"xaxis": {"title": {"text": "mean |SHAP|"}}}}
