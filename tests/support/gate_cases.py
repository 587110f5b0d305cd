"""Cases before the gate with a payoff known in advance."""

import numpy as np

from clm_core.backtest.metrics import measure
from clm_core.decisions.cases import BaselineAlpha, Case
from clm_core.decisions.gate_policy import GatePolicy
from clm_core.domain.evaluations import Check, Verdict
from clm_core.evidence.regression import JointAlpha
from clm_core.evidence.soundness import Activity
from clm_core.evidence.track_record import track_record
from clm_core.evidence.trials import TrialCount
from clm_core.market.bars import Floats

STRICT = GatePolicy(name="strict")
CERTAIN = BaselineAlpha(JointAlpha(0.10, 0.02))
"""An alpha of 10 % a year, beyond doubt."""
YEAR = 2190.0
"""Bars of four hours in a year."""


def trend_like(bars: int = 6570, held: int = 15, volatility: float = 0.4, seed: int = 3) -> Case:
    """Three years of a trend payoff: 43 % of the trades win, Sharpe ratio about 3, deep falls as traded."""
    rng = np.random.default_rng(seed)
    trades = bars // held
    wins = rng.permutation(trades) < 0.43 * trades
    size = rng.standard_exponential(trades)
    payoff = np.where(wins, 0.5 + 1.9 * size, -0.4 - 0.45 * size)
    noise = rng.standard_normal((trades, held))
    noise -= noise.mean(axis=1, keepdims=True)
    returns = (payoff[:, None] / held + 0.45 * noise).ravel()
    returns *= volatility / (returns.std() * np.sqrt(YEAR))
    return case_of(returns, returns.reshape(trades, held).sum(axis=1))


def case_of(returns: Floats, trade_returns: Floats) -> Case:
    empty = np.zeros(0)
    return Case(
        metrics=measure(returns, empty, empty, trade_returns, YEAR),
        activity=Activity("long", 0.5, 0.9),
        record=track_record(returns),
        trials=TrialCount(10, 10.0, 0.0),
        periods_per_year=YEAR,
        comparison=None,
        returns=returns,
        trade_returns=trade_returns,
        timing=1.0,
        alpha=CERTAIN,
    )


def check_of(verdict: Verdict, name: str) -> Check:
    return next(check for check in verdict.checks if check.name == name)
