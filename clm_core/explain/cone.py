"""Live returns in the cone of the backtest, and the probability that a disappointment is bad luck.

The cone is the band of `evidence.equity_band`: the equity to expect if a strategy goes on as in its
backtest. The probability of bad luck compares Sharpe ratios of a bar, with the errors of both records
(`evidence.track_record`): a version as good as claimed shows one as low in that share of all records. The
bars it takes to know are the minimum track record length (Bailey & Lopez de Prado 2012) of the claim, at
which a version as claimed is told from one without an edge with a confidence of 95 %.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clm_core.backtest.tearsheet import rows_to_draw
from clm_core.domain.explanations import Section, SectionChart, SectionTable
from clm_core.domain.measures import count, finite_or_none, ratio, signed_percent
from clm_core.domain.standings import BAND_LEVEL
from clm_core.evidence.equity_band import MIN_DAYS, DailyGrowth, EquityBand, daily_growth, equity_band
from clm_core.evidence.track_record import (
    TrackRecord,
    chance_of_shortfall,
    minimum_track_record_length,
    probabilistic_sharpe_ratio,
    track_record,
)
from clm_core.evidence.trials import trial_record
from clm_core.market.bars import Bars, Floats

NAME = "cone"
TITLE = "Live in the cone"
CONFIDENCE = 0.95
"""Confidence at which a version counts as told from one without an edge."""
POINTS = 60
"""Moments of the cone, and at most as many of a live curve."""
AHEAD = 1.15
"""End of the cone, as a multiple of the longest live part."""
FIRST_DAYS = 90.0
"""Shortest cone, days."""
DAY = 86_400e9
COLOURS = {"shadow": "#8b6fd8", "production": "#2f6fed"}
BAND = "rgba(138,148,166,0.22)"
MEDIAN = "#8a94a6"
COLUMNS = ("live", "since", "days", "bars", "return", "90 % cone", "Sharpe ratio", "as low by luck")
NOTE = (
    "As low by luck: share of the records of a version as good as its backtest with a Sharpe ratio as low. A "
    "backtest was chosen among others and flatters: expect the lower half of the cone."
)


@dataclass(frozen=True)
class Backtested:
    """Out-of-sample backtest that a version was judged by."""

    growth: DailyGrowth | None
    """None for fewer than `MIN_DAYS` days, or returns that never vary."""
    record: TrackRecord
    bars_per_year: float


@dataclass(frozen=True, eq=False)
class LivePart:
    """Returns earned on recorded positions, in shadow or in production."""

    name: str
    """Key of `COLOURS`."""
    since: datetime
    days: Floats
    """Calendar days from the start to the close of each bar, shape (n_bars,)."""
    equity: Floats
    """Equity after each bar as a multiple of that at the start, shape (n_bars,)."""
    record: TrackRecord
    """Record of the bars earned on positions recorded in time."""


@dataclass(frozen=True)
class LuckTest:
    """Probability that a Sharpe ratio below a claim is bad luck."""

    claim: str
    """Clause: "as good as its backtest"."""
    claimed: float
    """Annualised Sharpe ratio of the claim."""
    shown: float
    """Annualised Sharpe ratio of the record."""
    bars: int
    """Bars of the record."""
    chance: float
    """Probability, 0..1, that a version as claimed shows a ratio as low; NaN if not measured."""
    needed: float
    """Bars at which a version as claimed is told from one without an edge; inf: never, NaN: not measured."""
    days: float
    """Calendar days of as many bars."""

    @property
    def clause(self) -> str:
        """Probability of bad luck, and the bars it takes to know, in words."""
        if not math.isfinite(self.chance):
            return f"{self.bars:,} bars are too few, or vary too little, for a probability of bad luck"
        shown = ratio(self.shown)
        claimed = ratio(self.claimed)
        if self.shown >= self.claimed:
            luck = f"its Sharpe ratio of {shown} reaches the {claimed} of a version {self.claim}: no bad luck"
        else:
            luck = (
                f"a version {self.claim} (Sharpe ratio {claimed}) shows {shown} or less by bad luck in "
                f"{_chance(self.chance)} of records of {self.bars:,} bars"
            )
        if not math.isfinite(self.needed):
            return f"{luck}; no number of bars would tell such a version from one without an edge"
        return (
            f"{luck}; telling such a version from one without an edge takes {self.needed:,.0f} bars "
            f"({self.days:,.0f} days)"
        )

    def to_json(self) -> dict[str, Any]:
        values = asdict(self)
        return {name: finite_or_none(v) if isinstance(v, float) else v for name, v in values.items()}


def backtested(bars: Bars, returns: Floats) -> Backtested:
    """
    Args:
        bars: out-of-sample bars, of a pool the common axis, shape (n_bars,).
        returns: returns after costs, as fractions, shape (n_bars,).
    """
    record = track_record(returns)
    daily = trial_record(bars.time, returns, record).daily
    return Backtested(daily_growth(daily), record, bars.periods_per_year)


def live_part(name: str, since: datetime, bars: Bars, returns: Floats, earned: NDArray[np.bool_]) -> LivePart:
    """
    Args:
        name: key of `COLOURS`.
        bars: bars closed since, shape (n_bars,).
        returns: returns after costs, as fractions, shape (n_bars,).
        earned: True for bars earned on positions recorded in time; others count as flat.
    """
    closes = bars.time + bars.timeframe.nanoseconds - since.timestamp() * 1e9
    return LivePart(
        name=name,
        since=since,
        days=np.maximum(closes, 0.0) / DAY,
        equity=np.asarray(np.cumprod(1.0 + np.where(earned, returns, 0.0)), dtype=np.float64),
        record=track_record(returns[earned]),
    )


def luck_of_live(part: LivePart, backtest: Backtested) -> LuckTest:
    """Bad luck of a live part against the backtest."""
    chance = chance_of_shortfall(part.record, backtest.record)
    return _luck("as good as its backtest", backtest.record, part.record, chance, backtest.bars_per_year)


def luck_of_backtest(backtest: Backtested, required: float) -> LuckTest:
    """Bad luck of a backtest against the Sharpe ratio that the gate requires.

    Args:
        required: annualised Sharpe ratio.
    """
    sharpe = required / math.sqrt(backtest.bars_per_year)
    chance = probabilistic_sharpe_ratio(backtest.record, sharpe)
    claim = replace(backtest.record, sharpe=sharpe)
    return _luck("as good as required", claim, backtest.record, chance, backtest.bars_per_year)


def _luck(name: str, claim: TrackRecord, shown: TrackRecord, chance: float, bars_per_year: float) -> LuckTest:
    needed = minimum_track_record_length(claim, CONFIDENCE)
    yearly = math.sqrt(bars_per_year)
    return LuckTest(
        claim=name,
        claimed=claim.sharpe * yearly,
        shown=shown.sharpe * yearly,
        bars=shown.bars,
        chance=chance,
        needed=needed,
        days=needed / bars_per_year * 365.0,
    )


def cone_section(
    backtest: Backtested, parts: Sequence[LivePart], fate: str = "", luck: LuckTest | None = None
) -> Section:
    """Cone with the live parts on top, and the fate of the version with the probability of bad luck.

    Args:
        fate: clause on what happened to the version and why; empty for a version without a disappointment.
        luck: test of the record behind the fate; None without a record.
    """
    growth = backtest.growth
    tests = [luck_of_live(part, backtest) for part in parts]
    rows = tuple(_rows(growth, parts, tests))
    return Section(
        name=NAME,
        title=TITLE,
        sentences=tuple(_sentences(growth, parts, fate, luck)),
        charts=() if growth is None else (_chart(growth, parts),),
        tables=(SectionTable(columns=COLUMNS, rows=rows, note=NOTE),) if rows else (),
        values={
            "fate": fate,
            "luck": None if luck is None else luck.to_json(),
            "cone": None if growth is None else asdict(growth),
            "parts": [_values(growth, part, test) for part, test in zip(parts, tests, strict=True)],
        },
    )


def _sentences(
    growth: DailyGrowth | None, parts: Sequence[LivePart], fate: str, luck: LuckTest | None
) -> Iterator[str]:
    clauses = [f"{fate[:1].upper()}{fate[1:]}"] if fate else []
    clauses += [] if luck is None else [luck.clause]
    if clauses:
        yield f"{': '.join(clauses)}."
    if not parts:
        yield "No bar has been earned live yet."
    yield from (_place(growth, part) for part in parts)
    yield _basis(growth)


def _place(growth: DailyGrowth | None, part: LivePart) -> str:
    equity = float(part.equity[-1])
    live = f"In {part.name} for {part.days[-1]:,.0f} days: {signed_percent(equity - 1.0)}"
    if growth is None:
        return f"{live}."
    low, _, high = _ends(growth, part)
    where = "below" if equity < low else "above" if equity > high else "inside"
    return f"{live}, {where} the {100 * BAND_LEVEL:g} % cone of the backtest."


def _basis(growth: DailyGrowth | None) -> str:
    if growth is None:
        return f"The backtest has fewer than {MIN_DAYS} days, or never varies: there is no cone."
    ways = f"{100 * BAND_LEVEL:g} % of the ways to go on as in the backtest"
    return f"The cone holds {ways} of {growth.days:,} days."


def _ends(growth: DailyGrowth, part: LivePart) -> tuple[float, float, float]:
    """Low, median and high equity of the cone at the end of a live part."""
    band = equity_band(growth, part.days[-1:], BAND_LEVEL)
    return float(band.low[0]), float(band.middle[0]), float(band.high[0])


def _rows(
    growth: DailyGrowth | None, parts: Sequence[LivePart], tests: Sequence[LuckTest]
) -> Iterator[tuple[str, ...]]:
    for part, test in zip(parts, tests, strict=True):
        cone = "not measured"
        if growth is not None:
            low, _, high = _ends(growth, part)
            cone = f"{signed_percent(low - 1.0)} to {signed_percent(high - 1.0)}"
        yield (
            part.name,
            f"{part.since:%Y-%m-%d}",
            count(float(part.days[-1])),
            count(part.record.bars),
            signed_percent(float(part.equity[-1]) - 1.0),
            cone,
            ratio(test.shown),
            _chance(test.chance) if math.isfinite(test.chance) else "too early",
        )


def _chance(chance: float) -> str:
    return f"{100 * chance:.2g} %" if chance < 0.095 else f"{100 * chance:.0f} %"


def _values(growth: DailyGrowth | None, part: LivePart, test: LuckTest) -> dict[str, Any]:
    low, middle, high = (None, None, None) if growth is None else _ends(growth, part)
    return {
        "name": part.name,
        "since": part.since.isoformat(),
        "days": float(part.days[-1]),
        "equity": float(part.equity[-1]),
        "low": low,
        "middle": middle,
        "high": high,
        "luck": test.to_json(),
    }


def _chart(growth: DailyGrowth, parts: Sequence[LivePart]) -> SectionChart:
    longest = max((float(part.days[-1]) for part in parts), default=0.0)
    days = np.linspace(0.0, max(AHEAD * longest, FIRST_DAYS), POINTS)
    band = equity_band(growth, days, BAND_LEVEL)
    lines = [_line(f"in {part.name}", *_thinned(part), COLOURS[part.name], 2.0) for part in parts]
    layout = {
        "xaxis": {"title": {"text": "days since the start"}},
        "yaxis": {"tickformat": ".2~f", "title": {"text": "equity"}},
        "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
    }
    return SectionChart(
        name="band",
        height=320,
        figure={"data": [*_band(days, band), *lines], "layout": layout},
        note="Grey: the cone of the backtest and its median. Equity as a multiple of that at the start.",
    )


def _band(days: Floats, band: EquityBand) -> list[dict[str, Any]]:
    edge = {"width": 0.0}
    low = _line("low", days, band.low, BAND, 0.0) | {"line": edge, "showlegend": False}
    high = _line("90 % cone", days, band.high, BAND, 0.0) | {
        "line": edge,
        "fill": "tonexty",
        "fillcolor": BAND,
    }
    return [low, high, _line("median", days, band.middle, MEDIAN, 1.0)]


def _line(name: str, days: Floats, equity: Floats, colour: str, width: float) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": np.round(days, 3).tolist(),
        "y": np.round(equity, 6).tolist(),
        "line": {"color": colour, "width": width},
        "hovertemplate": "%{y:.3f}",
    }


def _thinned(part: LivePart) -> tuple[Floats, Floats]:
    """Days and equity from the start on, thinned with the extremes kept."""
    days = np.concatenate([[0.0], part.days])
    equity = np.concatenate([[1.0], part.equity])
    rows = rows_to_draw([equity], POINTS)
    return days[rows], equity[rows]
