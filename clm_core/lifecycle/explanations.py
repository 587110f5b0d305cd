"""Explanation of a version: importance of the features by SHAP values on the newest bars."""

from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from clm_core.domain.errors import NotEnoughBars
from clm_core.domain.versions import ModelVersion
from clm_core.explain.forest import boosted_of, forest_of
from clm_core.explain.importance import Importance, importances_of
from clm_core.explain.tree_shap import shap_values
from clm_core.market.features import compute_features
from clm_core.models.params import series_names
from clm_core.models.pooled import view_of
from clm_core.services import Services

RISING, FALLING = "#1f6f8b", "#c77b30"
"""Colours of features whose high values raise, and lower, the answers."""
LOG_ODDS, SCALED_RETURN = "log-odds", "standard deviations of the return over the horizon"


@dataclass(frozen=True)
class VersionExplanation:
    model_id: str
    version: str
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

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"start": self.start.isoformat(), "end": self.end.isoformat()}


def explain_version(
    services: Services, version: ModelVersion, rows: int, symbol: str | None = None
) -> VersionExplanation:
    """Importance of the features of a version on the newest closed bars.

    Args:
        rows: number of bars at most.
        symbol: market of the bars: a member of a pool; None for the version's own.

    Raises:
        ExplanationUnavailable: the version is not made of trees.
        FeatureMismatch: the version does not know the market.
        NotEnoughBars: no bar has every feature.
    """
    market = symbol or version.symbol
    model = view_of(services.registry.load(version.model_path, version.bundle_digest), market)
    boosted = boosted_of(model)
    bars = services.market.bars(market, version.timeframe, closed_by=services.clock())
    bars = model.trained_on.accept(services.market.with_series(bars, series_names(version.params)))
    table = compute_features(bars, boosted.params.features)
    newest = np.flatnonzero(table.complete)[-rows:]
    if len(newest) == 0:
        raise NotEnoughBars(
            f"{market} {version.timeframe}: none of {len(bars)} bars has every feature. Import more bars"
        )
    values = table.values[newest]
    shap = shap_values(forest_of(model), values)
    explained = bars[newest[0] : newest[-1] + 1]
    return VersionExplanation(
        model_id=version.model_id,
        version=version.version,
        symbol=market,
        rows=len(newest),
        start=explained.start.to_pydatetime(),
        end=explained.end.to_pydatetime(),
        unit=SCALED_RETURN if boosted.params.learns_returns else LOG_ODDS,
        base=shap.base,
        features=importances_of(shap, values),
    )


def write_page(services: Services, explanation: VersionExplanation) -> Path:
    """Write a self-contained page with a bar for each feature that has a part; returns the path."""
    import plotly.graph_objects as go

    # plotly draws from the bottom up
    used = [each for each in reversed(explanation.features) if each.share > 0]
    bars = go.Bar(
        x=[each.mean_absolute for each in used],
        y=[each.feature for each in used],
        orientation="h",
        marker_color=[RISING if each.when_high >= each.when_low else FALLING for each in used],
        customdata=[(each.share, each.when_high, each.when_low) for each in used],
        hovertemplate="%{y}: %{x:.4f}, share %{customdata[0]:.1%}<br>when high %{customdata[1]:+.4f}, "
        "when low %{customdata[2]:+.4f}<extra></extra>",
    )
    figure = go.Figure(bars)
    figure.update_layout(
        title=f"{explanation.model_id}@{explanation.version}: SHAP values of {explanation.rows} bars of "
        f"{explanation.symbol}<br><sup>Blue: high values of the feature raise the answer; ochre: they lower "
        "it</sup>",
        xaxis_title=f"mean |SHAP|, {explanation.unit}",
        height=160 + 22 * len(used),
        template="plotly_white",
    )
    folder = services.reports / explanation.model_id
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{explanation.version}-features.html"
    figure.write_html(path, include_plotlyjs=True)
    return path
