"""Timing and alpha of a backtest beside the baselines, as the gate reads both."""

from collections.abc import Sequence

import numpy as np

from clm_core.backtest.baselines import Baseline
from clm_core.backtest.earned import earned_returns
from clm_core.backtest.terms import MarketTerms
from clm_core.decisions.cases import BaselineAlpha
from clm_core.evidence.exposure_null import timing_probability
from clm_core.evidence.regression import NOT_REGRESSED, joint_alpha, simpler_rule
from clm_core.evidence.trials import daily_sums
from clm_core.market.bars import Bars, Floats
from clm_core.market.panel import Times

DAYS_PER_YEAR = 365.25
CERTAIN = 0.95
"""Confidence of an alpha beyond a single baseline, below which the baseline does as well."""


def timing_of_positions(time: Times, members: Sequence[tuple[MarketTerms, Bars, Floats]]) -> float:
    """P(timing) of positions, the members of a pool shifted together.

    Stops and rebalancing do not enter: they follow from the positions and the bars, for shifted positions as
    well.

    Args:
        time: open times of the common axis, nanoseconds since 1970-01-01 UTC, shape (n_times,).
        members: terms, out-of-sample bars and positions asked for, of each member or of the one market.
    """
    held: list[Floats] = []
    moved: list[Floats] = []
    for market, bars, positions in members:
        rows = np.searchsorted(time, bars.time[:-1])
        for values, series in ((positions[:-1], held), (earned_returns(market, bars), moved)):
            on_axis = np.zeros(len(time))
            on_axis[rows] = values
            series.append(on_axis)
    return timing_probability([values[:-1] for values in held], [values[:-1] for values in moved])


def alpha_beyond_baselines(time: Times, returns: Floats, baselines: Sequence[Baseline]) -> BaselineAlpha:
    """Alpha of the daily net returns on all baselines together; not regressed without baselines.

    Args:
        time: open times of the bars, nanoseconds since 1970-01-01 UTC, shape (n_bars,).
        returns: net returns of the version as fractions, shape (n_bars,).
        baselines: backtests of the baselines on the same bars.
    """
    if not baselines:
        return BaselineAlpha(NOT_REGRESSED)
    days, own = daily_sums(time, returns)
    others = {each.name: daily_sums(time, each.result.returns)[1] for each in baselines}
    days_per_year = len(days) / (int(days[-1] - days[0]) + 1) * DAYS_PER_YEAR
    joint = joint_alpha(own, list(others.values()), days_per_year)
    return BaselineAlpha(joint, simpler_rule(own, others, days_per_year, CERTAIN))
