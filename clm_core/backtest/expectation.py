"""Expected returns of a backtest on a market whose expected returns are known."""

import numpy as np

from clm_core.backtest.results import Backtest
from clm_core.domain.costs import Costs
from clm_core.market.bars import Floats


def expected_returns(result: Backtest, expected: Floats, costs: Costs) -> Floats:
    """Expected return of equity in each bar after costs of trading, as a fraction, shape (n_bars,).

    The exposure at the close stands for the exposure over the bar; the costs are those paid.

    Args:
        expected: expected return of the market in each bar, a fraction, shape (n_bars,).
    """
    cost = (costs.fee_bps + costs.slippage_bps) / 10_000.0
    return np.asarray(result.exposure * expected - result.turnover * cost)
