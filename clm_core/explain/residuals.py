"""Residuals of forecast returns: how far off the forecasts of a version are, and when.

All errors are in standard deviations of the horizon's return, the trailing volatility times sqrt(horizon), so
that calm and turbulent bars count alike. Estimates have intervals of 95 % by the number of outcomes without
overlap (`forecasts`).

- Skill: 1 - squared errors / squared returns, against expecting nothing (Campbell & Thompson 2008).
- Autocorrelation at whole horizons: nearer outcomes share bars, and are alike for any forecast.
- Quantiles: pinball loss (Koenker & Bassett 1978) against the quantiles of the outcomes themselves, and the
  share of outcomes below each quantile.
- Intervals of 90 %: `conformal`.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clm_core.domain import measures
from clm_core.domain.errors import ExplanationUnavailable
from clm_core.explain.conformal import half_widths
from clm_core.explain.estimates import (
    NOT_MEASURED,
    BoundedEstimate,
    Z,
    correlation,
    mean_of,
    skill_of,
    wilson,
)
from clm_core.explain.forecasts import (
    ForecastRecord,
    MarketForecasts,
    Rows,
    common_axis,
    independent_outcomes,
    once_per_record,
    require_horizon,
    require_outcomes,
    return_over,
)
from clm_core.market.bars import Floats

LAGS = 10
PERIODS = 12
VOLATILITIES = 5
QQ_POINTS = 40
BINS = 41
EDGE = 5.0
"""Bins of the histogram from -EDGE to EDGE standard deviations; residuals beyond are in the outer bins."""


@dataclass(frozen=True, eq=False)
class Errors:
    """Forecast returns with a known outcome, of all markets; arrays of shape (n,), ascending by row, returns
    in standard deviations of the horizon's return."""

    expected: Floats
    outcome: Floats
    quantiles: Floats
    """Shape (n, n_levels)."""
    levels: Floats
    inside: Floats
    """1.0 for an outcome inside the conformal interval, 0.0 outside, NaN without interval."""
    half_width: Floats
    """Half width of the conformal interval as a simple return."""
    unit: Floats
    """Standard deviation of the horizon's return at the forecast."""
    time: NDArray[np.int64]
    """Open time of the bar of the forecast, nanoseconds since 1970-01-01 UTC."""
    row: Rows
    """Row of the bar on the common axis of the markets."""
    end: Rows
    """Row of the last bar of the outcome."""

    @property
    def residual(self) -> Floats:
        return self.outcome - self.expected

    def independent(self, chosen: NDArray[Any] | slice = slice(None)) -> float:
        """Equivalent number of outcomes without overlap among rows."""
        return independent_outcomes(self.row[chosen], self.end[chosen])


@dataclass(frozen=True)
class Group:
    """Residuals of bars alike in time or volatility."""

    name: str
    forecasts: int
    mean: BoundedEstimate
    deviation: float
    """Root mean square: 1 where the volatility is as expected and nothing is forecast."""
    coverage: BoundedEstimate
    """Share of outcomes inside the conformal intervals."""


@dataclass(frozen=True)
class NewestForecast:
    """Newest forecast in a market, with the conformal interval; simple returns."""

    symbol: str
    at: datetime
    """Open time of the bar of the forecast (UTC)."""
    horizon: int
    """Bars."""
    expected: float
    half_width: float
    """NaN or infinite without an interval."""


@dataclass(frozen=True)
class Quantiles:
    """Forecast quantiles against outcomes."""

    levels: tuple[float, ...]
    below: tuple[BoundedEstimate, ...]
    """Share of outcomes at or below the quantile of each level."""
    pinball_loss: float
    skill: BoundedEstimate
    """1 - loss / loss of the quantiles of all outcomes."""

    @property
    def error(self) -> float:
        """Mean distance of the shares from the levels."""
        pairs = zip(self.below, self.levels, strict=True)
        return float(np.mean([abs(each.value - level) for each, level in pairs]))


@dataclass(frozen=True)
class Residuals:
    """Forecast returns against outcomes."""

    forecasts: int
    independent: float
    """Equivalent number of outcomes without overlap."""
    skill: BoundedEstimate
    correlation: BoundedEstimate
    """Correlation of expected returns with outcomes; NaN for constant forecasts."""
    mean: BoundedEstimate
    deviation: float
    """Standard deviation of the residuals."""
    skewness: float
    excess_kurtosis: float
    beyond_three: float
    """Share of residuals beyond three of their standard deviations; 0.0027 for a normal distribution."""
    autocorrelation: tuple[float, ...]
    """Autocorrelation at 1, 2, ... horizons; NaN where not measured."""
    autocorrelation_of_squares: tuple[float, ...]
    band: float
    """Size of an autocorrelation exceeded by chance at 5 % of the lags."""
    histogram: tuple[tuple[float, int], ...]
    """Centre of each bin, in standard deviations from the mean residual, and number of residuals."""
    normal_plot: tuple[tuple[float, float], ...]
    """Quantiles of the normal distribution and of the standardised residuals."""
    by_time: tuple[Group, ...]
    by_volatility: tuple[Group, ...]
    quantiles: Quantiles | None
    """None for a kind without quantiles."""
    coverage: BoundedEstimate
    """Share of outcomes inside the conformal intervals of 90 %; NaN without intervals."""
    half_width: float
    """Median half width of the conformal intervals, as a simple return; NaN without intervals."""
    newest: tuple[NewestForecast, ...]

    def to_json(self) -> dict[str, Any]:
        return {name: _json_ready(each) for name, each in asdict(self).items()}


@once_per_record
def residuals_of(record: ForecastRecord) -> Residuals:
    """Measures of the forecast returns with a known outcome.

    Raises:
        ExplanationUnavailable: the kind expects no returns, or not over a single horizon.
        NotEnoughBars: fewer than `forecasts.MIN_INDEPENDENT` outcomes without overlap.
    """
    markets = [each for each in record.markets if each.returns is not None]
    if not markets:
        raise ExplanationUnavailable(f"{record.kind} expects no returns: no residuals can be measured")
    require_horizon(record)
    axis = common_axis(record)
    widths = [_half_widths(each) for each in markets]
    parts = [_errors(each, own, axis) for each, own in zip(markets, widths, strict=True)]
    errors = _joined(parts)
    independent = errors.independent()
    require_outcomes(record.kind, len(errors.row), independent)
    newest = [_newest(each, own) for each, own in zip(markets, widths, strict=True)]
    horizon = max(int(each.horizon.max()) for each in markets)
    return _measured(errors, independent, [_spread(each, len(axis)) for each in parts], horizon, newest)


def _measured(
    errors: Errors,
    independent: float,
    spread: Sequence[Floats],
    horizon: int,
    newest: Sequence[NewestForecast | None],
) -> Residuals:
    """
    Args:
        spread: residuals of each market by row of the common axis, NaN where unknown, shape (n_rows,).
    """
    residual = errors.residual
    # residuals all alike have no shape
    standard = (residual - residual.mean()) / (residual.std() or 1.0)
    covered = ~np.isnan(errors.inside)
    lags = horizon * np.arange(1, LAGS + 1)
    return Residuals(
        forecasts=len(residual),
        independent=independent,
        skill=skill_of(residual**2, errors.outcome**2, independent),
        correlation=correlation(errors.expected, errors.outcome, independent),
        mean=mean_of(residual, independent),
        deviation=float(residual.std()),
        skewness=float(np.mean(standard**3)),
        excess_kurtosis=float(np.mean(standard**4)) - 3.0,
        beyond_three=float(np.mean(np.abs(standard) > 3)),
        autocorrelation=tuple(_autocorrelation(spread, lag) for lag in lags.tolist()),
        autocorrelation_of_squares=tuple(
            _autocorrelation([each**2 for each in spread], lag) for lag in lags.tolist()
        ),
        band=Z / math.sqrt(independent),
        histogram=_histogram(standard),
        normal_plot=_normal_plot(standard),
        by_time=_by_time(errors),
        by_volatility=_by_volatility(errors),
        quantiles=_quantiles(errors, independent) if len(errors.levels) else None,
        coverage=_share(errors.inside[covered], errors.independent(covered)),
        half_width=float(np.median(errors.half_width[covered])) if covered.any() else math.nan,
        newest=tuple(each for each in newest if each is not None),
    )


def _scale(market: MarketForecasts) -> Floats:
    """Standard deviation of the horizon's return after each bar, shape (n_bars,); NaN where 0 or unknown."""
    scale = market.unit * np.sqrt(market.horizon)
    return np.where(scale > 0, scale, np.nan)


def _half_widths(market: MarketForecasts) -> Floats:
    """Half width of the conformal interval of each bar, as a simple return, shape (n_bars,)."""
    assert market.returns is not None
    scale = _scale(market)
    outcome, end = return_over(market.bars, market.horizon)
    errors = np.abs(outcome - market.returns.expected) / scale
    return half_widths(errors, end, float(market.horizon.mean())) * scale


def _errors(market: MarketForecasts, widths: Floats, axis: NDArray[np.int64]) -> Errors:
    assert market.returns is not None
    scale = _scale(market)
    outcome, end = return_over(market.bars, market.horizon)
    error = outcome - market.returns.expected
    known = np.flatnonzero(~np.isnan(error / scale))
    inside = np.where(np.isnan(widths), np.nan, np.abs(error) <= widths)
    on_axis = np.searchsorted(axis, market.bars.time)
    return Errors(
        expected=(market.returns.expected / scale)[known],
        outcome=(outcome / scale)[known],
        quantiles=(market.returns.quantiles / scale[:, None])[known],
        levels=market.returns.levels,
        inside=inside[known],
        half_width=widths[known],
        unit=scale[known],
        time=market.bars.time[known],
        row=on_axis[known],
        end=on_axis[end[known]],
    )


def _joined(parts: Sequence[Errors]) -> Errors:
    """Errors of all markets in the order of their bars."""
    order = np.argsort(np.concatenate([each.row for each in parts]), kind="stable")
    arrays = {
        field.name: np.concatenate([getattr(each, field.name) for each in parts])[order]
        for field in fields(Errors)
        if field.name != "levels"
    }
    return Errors(**arrays, levels=parts[0].levels)


def _newest(market: MarketForecasts, widths: Floats) -> NewestForecast | None:
    """Newest forecast of a market; None for a market without forecasts."""
    assert market.returns is not None
    rows = np.flatnonzero(~np.isnan(market.returns.expected))
    if not len(rows):
        return None
    row = int(rows[-1])
    return NewestForecast(
        symbol=market.bars.symbol,
        at=market.bars[row : row + 1].start.to_pydatetime(),
        horizon=int(market.horizon[row]),
        expected=float(market.returns.expected[row]),
        half_width=float(widths[row]),
    )


def _spread(errors: Errors, rows: int) -> Floats:
    """Residuals by row of the common axis, NaN where unknown, shape (rows,)."""
    spread = np.full(rows, np.nan)
    spread[errors.row] = errors.residual
    return spread


def _autocorrelation(series: Sequence[Floats], lag: int) -> float:
    """Mean autocorrelation of series at a lag; NaN below 10 pairs of rows, and for constant series."""
    correlations = []
    for values in series:
        known = ~np.isnan(values[:-lag] + values[lag:])
        older = values[:-lag][known]
        newer = values[lag:][known]
        if len(older) >= 10 and older.std() > 0 and newer.std() > 0:
            correlations.append(float(np.corrcoef(older, newer)[0, 1]))
    return float(np.mean(correlations)) if correlations else math.nan


def _histogram(standard: Floats) -> tuple[tuple[float, int], ...]:
    counts, edges = np.histogram(np.clip(standard, -EDGE, EDGE), bins=BINS, range=(-EDGE, EDGE))
    centres = (edges[:-1] + edges[1:]) / 2
    return tuple(zip(centres.tolist(), counts.tolist(), strict=True))


def _normal_plot(standard: Floats) -> tuple[tuple[float, float], ...]:
    levels = (np.arange(QQ_POINTS) + 0.5) / QQ_POINTS
    normal = [NormalDist().inv_cdf(level) for level in levels.tolist()]
    return tuple(zip(normal, np.quantile(standard, levels).tolist(), strict=True))


def _by_time(errors: Errors) -> tuple[Group, ...]:
    """Groups of about equal count, oldest first, named by the date of the first bar."""
    groups = np.array_split(np.arange(len(errors.row)), PERIODS)
    return tuple(_group(f"{_moment(errors.time[rows[0]]):%Y-%m-%d}", errors, rows) for rows in groups)


def _by_volatility(errors: Errors) -> tuple[Group, ...]:
    """Groups of about equal count by the volatility at the forecast, calmest first."""
    groups = np.array_split(np.argsort(errors.unit, kind="stable"), VOLATILITIES)
    return tuple(
        _group(measures.percent(float(errors.unit[rows].mean())), errors, np.sort(rows)) for rows in groups
    )


def _group(name: str, errors: Errors, rows: Rows) -> Group:
    residual = errors.residual[rows]
    covered = rows[~np.isnan(errors.inside[rows])]
    return Group(
        name=name,
        forecasts=len(rows),
        mean=mean_of(residual, errors.independent(rows)),
        deviation=float(np.sqrt(np.mean(residual**2))),
        coverage=_share(errors.inside[covered], errors.independent(covered)),
    )


def _share(true: Floats, independent: float) -> BoundedEstimate:
    return wilson(float(true.mean()), independent) if len(true) else NOT_MEASURED


def _quantiles(errors: Errors, independent: float) -> Quantiles:
    levels = errors.levels
    constant = np.quantile(errors.outcome, levels)
    losses = pinball_losses(errors.quantiles, errors.outcome, levels)
    below = errors.outcome[:, None] <= errors.quantiles
    return Quantiles(
        levels=tuple(levels.tolist()),
        below=tuple(wilson(float(share), independent) for share in below.mean(axis=0)),
        pinball_loss=float(losses.mean()),
        skill=skill_of(losses, pinball_losses(constant[None], errors.outcome, levels), independent),
    )


def pinball_losses(quantiles: Floats, outcome: Floats, levels: Floats) -> Floats:
    """Mean pinball loss over the levels (Koenker & Bassett 1978), shape (n,).

    Args:
        quantiles: shape (n, n_levels), or (1, n_levels) for constant quantiles.
        outcome: shape (n,).
        levels: shape (n_levels,).
    """
    miss = outcome[:, None] - quantiles
    return np.asarray(np.maximum(levels * miss, (levels - 1) * miss).mean(axis=1))


def _moment(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(int(nanoseconds) / 1e9, UTC)


def _json_ready(value: Any) -> Any:
    match value:
        case float():
            return measures.finite_or_none(value)
        case datetime():
            return value.isoformat()
        case dict():
            return {name: _json_ready(each) for name, each in value.items()}
        case tuple():
            return [_json_ready(each) for each in value]
    return value
