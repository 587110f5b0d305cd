"""How much the positions of a model of any kind rely on each of its features: permutation importance."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from clm_core.domain.errors import NotEnoughBars
from clm_core.domain.explanations import Section, SectionChart, SectionTable
from clm_core.explain.feature_charts import PIXELS_A_FEATURE, RISING, digits
from clm_core.explain.importance import (
    Reliance,
    changed_positions,
    inputs_of,
    permutation_importance,
)
from clm_core.market.bars import Bars, Floats
from clm_core.models.contract import Change, Model

NAME = "reliance"
TITLE = "Reliance on the features"
BARS = 4_000
"""Newest bars whose positions are compared."""
BLOCK = 168
"""Bars that stay together in a shuffle: a week of hours."""
SHUFFLES = 3
"""Shuffles of each feature."""
SEED = 1
SHOWN = 20
"""Features in the table and the chart."""
LEAST = 0.0005
"""Reliance from which on a feature counts as relied on: the last digit shown."""


@dataclass(frozen=True)
class FeatureReliances:
    """Permutation importance of the features of a model."""

    symbol: str
    """Market of the bars."""
    rows: int
    """Number of bars whose positions were compared: the newest."""
    start: datetime
    """Open time of the first of them (UTC)."""
    end: datetime
    """Open time of the last of them (UTC)."""
    features: tuple[Reliance, ...]
    """Reliance on each feature, largest first."""

    @property
    def used(self) -> tuple[Reliance, ...]:
        """Features whose shuffle changes the positions."""
        return tuple(each for each in self.features if each.mean >= LEAST)

    def to_json(self) -> dict[str, Any]:
        times = {"start": self.start.isoformat(), "end": self.end.isoformat()}
        return asdict(self) | times | {"features": [asdict(each) for each in self.features]}


def explain_reliance(model: Model, bars: Bars) -> FeatureReliances:
    """Permutation importance on the newest `BARS` bars, for models with features of any kind.

    Args:
        bars: bars of the model's market, with its own series.

    Raises:
        ExplanationUnavailable: the model has no features that can be changed.
        NotEnoughBars: there are not more bars than a position needs.
    """
    inputs = inputs_of(model).inputs
    needed = model.bars_needed or 0
    newest = bars[-(BARS + needed) :]
    rows = min(BARS, len(newest) - needed)
    if rows < BLOCK:
        raise NotEnoughBars(
            f"{bars.symbol} {bars.timeframe}: {len(bars):,} bars leave {max(rows, 0):,} whose positions can "
            f"be compared, and {BLOCK} are needed. Import more bars"
        )
    changed = changed_positions(model, newest)

    def positions(change: Change) -> Floats:
        return changed(change)[-rows:]

    compared = newest[-rows:]
    return FeatureReliances(
        symbol=bars.symbol,
        rows=rows,
        start=compared.start.to_pydatetime(),
        end=compared.end.to_pydatetime(),
        features=permutation_importance(inputs, positions, SEED, BLOCK, SHUFFLES),
    )


def reliance_section(reliances: FeatureReliances) -> Section:
    used = reliances.used[:SHOWN]
    return Section(
        name=NAME,
        title=TITLE,
        sentences=(
            _answer(reliances),
            f"Positions of {reliances.rows:,} bars of {reliances.symbol}, {reliances.start:%Y-%m-%d %H:%M} "
            f"to {reliances.end:%Y-%m-%d %H:%M} UTC, beside those after each feature was shuffled {SHUFFLES} "
            f"times, in blocks of {BLOCK} bars.",
        ),
        charts=(_chart(used),) if used else (),
        tables=(_table(used),) if used else (),
        values=reliances.to_json(),
    )


def _answer(reliances: FeatureReliances) -> str:
    if not reliances.used:
        return (
            f"No shuffle of a feature changes a position: {len(reliances.features)} features were shuffled."
        )
    first = reliances.used[0]
    unused = len(reliances.features) - len(reliances.used)
    return (
        f"The positions rely most on {first.feature}: shuffled, they lose {first.mean:.2f} of their "
        f"concordance of 1. Without effect on the positions: {unused} of {len(reliances.features)} features."
    )


def _table(used: tuple[Reliance, ...]) -> SectionTable:
    return SectionTable(
        columns=("feature", "reliance", "deviation"),
        rows=tuple((each.feature, f"{each.mean:.3f}", f"{each.deviation:.3f}") for each in used),
        note="Reliance: 1 - concordance of the positions with those after the shuffle; 0 for the same "
        "positions, 1 for positions that have nothing to do with each other. Deviation: over the shuffles.",
    )


def _chart(used: tuple[Reliance, ...]) -> SectionChart:
    # plotly draws from the bottom up
    drawn = used[::-1]
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": digits([each.mean for each in drawn]),
        "y": [each.feature for each in drawn],
        "error_x": {"type": "data", "array": digits([each.deviation for each in drawn]), "thickness": 1},
        "marker": {"color": RISING},
        "hovertemplate": "%{y}: %{x}<extra></extra>",
    }
    layout = {"xaxis": {"title": {"text": "reliance"}, "rangemode": "tozero"}}
    return SectionChart(
        name="bars",
        height=80 + PIXELS_A_FEATURE * len(drawn),
        figure={"data": [bars], "layout": layout},
    )
