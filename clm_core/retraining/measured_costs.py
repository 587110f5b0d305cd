"""Costs of trading measured by the fills of a model, which both sides of a comparison then pay.

A comparison stays one of paper with paper: a version with fills keeps the prices of the paper record. The
fills enter through the costs, equally for both sides.
"""

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clm_core.domain.costs import Costs
from clm_core.domain.evaluations import IntervalEstimate
from clm_core.domain.fills import MAX_HALF_WIDTH_BPS, MIN_BARS, WINDOW_DAYS, MeasuredCosts, RecordedFill
from clm_core.evidence.slippage import mean_slippage, slippage_bps
from clm_core.market.bars import Bars, Floats
from clm_core.services import Services


def costs_of_comparisons(services: Services, model_id: str, markets: Sequence[Bars]) -> dict[str, Costs]:
    """Measured costs in place of the modelled costs, by symbol; a market without enough fills is missing.

    Args:
        markets: any bars of the markets of the model.
    """
    fills = _recent(services, model_id)
    costs = {}
    for market in markets:
        own = [each for each in fills if each.symbol == market.symbol]
        if not own:
            continue
        bars = services.market.bars(market.symbol, market.timeframe, closed_by=services.clock())
        measured = measure_costs(own, bars, _modelled(services, bars))
        if measured.costs is not None:
            costs[market.symbol] = measured.costs
    return costs


def measured_costs(services: Services, model_id: str, bars: Bars) -> MeasuredCosts:
    """Costs of a market by the fills of a model in the last `WINDOW_DAYS` days."""
    fills = [each for each in _recent(services, model_id) if each.symbol == bars.symbol]
    return measure_costs(fills, bars, _modelled(services, bars))


def measure_costs(fills: Sequence[RecordedFill], bars: Bars, modelled: Costs) -> MeasuredCosts:
    """Costs of a market by fills.

    Args:
        fills: fills in the market.
        bars: bars of the market; fills whose bar is not stored are left out.
        modelled: costs of the home, for a fee that was not reported.
    """
    rows = rows_of(fills, bars)
    counted = [each for each, row in zip(fills, rows, strict=True) if row >= 0 and not each.resting]
    row = rows_of(counted, bars)
    change, price = _columns(counted)
    slippage = mean_slippage(row, change, slippage_bps(change, price, bars.open[row]))
    fee = _mean_fee(counted)
    n_bars = len(np.unique(row))
    reason = _why_modelled(n_bars, slippage)
    costs = None
    if slippage is not None and reason is None:
        paid = modelled.fee_bps if fee is None else max(fee, 0.0)
        costs = Costs(fee_bps=paid, slippage_bps=max(slippage.value, 0.0))
    return MeasuredCosts(
        fills=len(counted), bars=n_bars, slippage_bps=slippage, fee_bps=fee, costs=costs, reason=reason
    )


def rows_of(fills: Sequence[RecordedFill], bars: Bars) -> NDArray[np.int64]:
    """Row of the bar that contains each fill, -1 where no bar does, shape (n_fills,)."""
    time = np.array([pd.Timestamp(each.time).value for each in fills], dtype=np.int64)
    row = np.searchsorted(bars.time, time, side="right") - 1
    if not len(bars):
        return np.full(len(fills), -1, dtype=np.int64)
    inside = (row >= 0) & (time < bars.time[row] + bars.timeframe.nanoseconds)
    return np.where(inside, row, -1)


def _recent(services: Services, model_id: str) -> list[RecordedFill]:
    return services.ledger.fills.of_model(model_id, services.clock() - timedelta(days=WINDOW_DAYS))


def _modelled(services: Services, bars: Bars) -> Costs:
    return services.home_terms(bars.symbol, bars.calendar).terms.costs


def _columns(fills: Sequence[RecordedFill]) -> tuple[Floats, Floats]:
    """Position changes and prices of fills, shape (n_fills,) each."""
    change = np.array([each.change for each in fills], dtype=np.float64)
    return change, np.array([each.price for each in fills], dtype=np.float64)


def _mean_fee(fills: Sequence[RecordedFill]) -> float | None:
    """Mean of the reported fees by traded value, basis points; None without a reported fee."""
    reported = [(each.fee_bps, abs(each.change)) for each in fills if each.fee_bps is not None]
    if not reported:
        return None
    fee, weight = zip(*reported, strict=True)
    return float(np.average(fee, weights=weight))


def _why_modelled(n_bars: int, slippage: IntervalEstimate | None) -> str | None:
    """Reason against measured costs; None: the fills are enough."""
    if slippage is None or n_bars < MIN_BARS:
        return f"{n_bars} of {MIN_BARS} bars with fills in the last {WINDOW_DAYS} days"
    half = (slippage.high - slippage.low) / 2.0
    # written as `not (<=)` so that a NaN refuses
    if not half <= MAX_HALF_WIDTH_BPS:
        return f"the interval of the slippage is +- {half:.1f} bps, at most {MAX_HALF_WIDTH_BPS:g} bps count"
    return None
