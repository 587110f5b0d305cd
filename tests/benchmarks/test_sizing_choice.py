"""The choice of the sizing's constants sizes the signals of each fold as a retrain does."""

from itertools import pairwise

import numpy as np

from benchmarks.recipes import Window, market_of
from benchmarks.sizing_choice import FoldSignal, Signal, limited, sized_years
from clm_core.domain.execution import NEW_VERSIONS
from clm_core.domain.sizing import Sizing
from clm_core.market.bars import Bars
from clm_core.market.timeframes import Calendar, Timeframe
from clm_core.models.sizing import size_positions

HOURS = 2 * 8_760


def bars() -> Bars:
    moves = 0.006 * np.random.default_rng(1).standard_normal(HOURS)
    closes = 100 * np.exp(np.cumsum(moves))
    opens = np.append(100.0, closes[:-1])
    high = np.maximum(opens, closes)
    low = np.minimum(opens, closes)
    time = np.arange(HOURS, dtype=np.int64) * Timeframe.H1.nanoseconds
    return Bars("BTCUSDT", Timeframe.H1, Calendar.ALWAYS, time, opens, high, low, closes, np.ones(HOURS))


def test_a_fold_is_sized_on_the_history_of_its_own_model() -> None:
    series = bars()
    market = market_of(series).under(NEW_VERSIONS)
    window = Window("", "BTCUSDT", "1h", "1970-01-01", "1972-01-01", 1)
    rng = np.random.default_rng(2)
    edges = (8_760, 13_140, HOURS)
    folds = tuple(
        FoldSignal(
            start - 8_000,
            slice(start, stop),
            np.repeat(rng.choice([-1.0, 1.0], 400), 50)[: stop - start + 8_000],
            8_760.0,
        )
        for start, stop in pairwise(edges)
    )
    [year] = sized_years(Signal("rl_v2", window, series, folds, market), Sizing())
    positions = np.concatenate(
        [size_positions(series[fold.begin : fold.test.stop], fold.values, Sizing())[8_000:] for fold in folds]
    )
    result = market.backtest(series[8_760:], positions)
    assert year.turnover == result.turnover.mean() * 8_760


def test_limits_vary_the_turnover_alone() -> None:
    own = Sizing(smoothing_half_life=24.0)
    assert [each.max_turnover for each in limited(own)][:2] == [None, 60.0]
    assert {each.model_copy(update={"max_turnover": None}) for each in limited(own)} == {own}
