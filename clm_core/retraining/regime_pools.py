"""Regime pools, derived from the recorded evaluations: nothing is stored but the evaluations themselves."""

import math
from collections.abc import Iterator

import numpy as np

from clm_core.backtest.by_regime import RegimeResult, results_by_regime
from clm_core.domain.regime_pools import RankedVersion, RegimePool, RegimePools
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import MarketRegime
from clm_core.market.bars import Bars
from clm_core.market.regimes import STATES, regimes
from clm_core.retraining.judging import out_of_sample_backtest
from clm_core.services import Services

MIN_DAYS = 30.0
"""Days in a regime below which a recipe is not ranked there."""
DAYS_A_YEAR = 365.25


def regime_pools(services: Services, symbol: str, timeframe: str, best: int) -> RegimePools:
    """The best recipes of a market in each regime, each by its newest judged version.

    Recipes are ranked by the Sharpe ratio of the judged seed's out-of-sample returns in the bars of the
    regime, under the costs in force. Versions that failed their gate are ranked too: a recipe may be good in
    one regime and fail over all.

    Args:
        best: number of recipes kept for each regime.

    Raises:
        UnknownSeries: no source has the bars.
    """
    bars = services.market.bars(symbol, timeframe, closed_by=services.clock())
    market_regimes = regimes(bars)
    compared = list[tuple[ModelVersion, dict[int, RegimeResult], Bars]]()
    left_out = list[str]()
    for version in services.ledger.newest_of_recipes(bars.symbol, bars.timeframe.value):
        terms = {bars.symbol: services.version_terms(version, bars.calendar)}
        backtest = out_of_sample_backtest(services, version, bars, terms)
        if backtest is None:
            left_out.append(
                f"{version.model_id}@{version.version} has no stored positions on the stored bars"
            )
            continue
        axis, result = backtest
        by_state = results_by_regime(result, market_regimes.days.known_at(axis.time), axis.periods_per_year)
        compared.append((version, {each.state: each for each in by_state}, axis))
    pools = []
    for state, name in enumerate(STATES):
        ranked = sorted(_ranked(compared, state), key=lambda each: -each.sharpe_ratio)
        pools.append(RegimePool(regime=MarketRegime(name), kept=tuple(ranked[:best]), ranked=len(ranked)))
    now = market_regimes.current
    return RegimePools(
        symbol=bars.symbol,
        timeframe=bars.timeframe.value,
        current=None if now is None else MarketRegime(now.name),
        since=None if now is None else now.since.to_pydatetime(),
        pools=tuple(pools),
        left_out=tuple(left_out),
    )


def _ranked(
    compared: list[tuple[ModelVersion, dict[int, RegimeResult], Bars]], state: int
) -> Iterator[RankedVersion]:
    for version, by_state, axis in compared:
        if state not in by_state:
            continue
        share = by_state[state].share
        metrics = by_state[state].metrics
        years = share * len(axis) / axis.periods_per_year
        if not years * DAYS_A_YEAR >= MIN_DAYS or not math.isfinite(metrics.sharpe_ratio):
            continue
        yield RankedVersion(
            model_id=version.model_id,
            version=version.version,
            status=version.status,
            sharpe_ratio=metrics.sharpe_ratio,
            sharpe_error=1.0 / math.sqrt(years),
            max_drawdown=metrics.max_drawdown,
            win_rate=None if np.isnan(metrics.win_rate) else metrics.win_rate,
            total_return=metrics.total_return,
            trades=metrics.trades,
            days=years * DAYS_A_YEAR,
            first=axis.start.to_pydatetime(),
        )
