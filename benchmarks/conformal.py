"""Conformal intervals against crepes: the same widths by the same errors, processor time.

python -m benchmarks.run conformal      a second

With a step of 0 ours are rolling split conformal intervals; crepes is fitted anew on the errors of each
window, as a rolling use of the library does.
"""

import math
from importlib.metadata import version

import numpy as np

from benchmarks.table import PROCESSOR, Row, faster, timed
from clm_core.explain.conformal import COVERAGE, WINDOW, half_widths
from clm_core.market.bars import Floats

FORECASTS = 3_000
SEED = 0
ROUNDS = 3


def rows() -> list[Row]:
    errors = np.abs(np.random.default_rng(SEED).standard_t(4, size=FORECASTS))
    known = np.arange(FORECASTS) + 1
    theirs = crepes_widths(errors)
    if not np.array_equal(half_widths(errors, known, horizon=math.inf)[WINDOW:], theirs):
        raise SystemExit("the widths of the intervals are not those of crepes")
    name = f"Intervals of 1,000 forecasts by the newest {WINDOW:,} errors"
    ours = timed(lambda: half_widths(errors, known, horizon=math.inf), ROUNDS)
    crepes = timed(lambda: crepes_widths(errors), ROUNDS, warm_up=False)
    return [
        faster(
            name,
            ours.times(1000 / len(errors)),
            f"crepes {version('crepes')}",
            crepes.times(1000 / len(theirs)),
            None,
            by=PROCESSOR,
        )
    ]


def crepes_widths(errors: Floats) -> Floats:
    """Half widths of the intervals of the forecasts after the first window, shape (n - WINDOW,)."""
    from crepes import ConformalRegressor

    widths = np.empty(len(errors) - WINDOW)
    for number in range(len(widths)):
        regressor = ConformalRegressor().fit(errors[number : number + WINDOW])
        interval = regressor.predict_int(np.zeros(1), confidence=COVERAGE)
        widths[number] = (interval[0, 1] - interval[0, 0]) / 2
    return widths
