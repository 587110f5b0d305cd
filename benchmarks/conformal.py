"""Conformal intervals against crepes: the same widths by the same errors, processor time.

python -m benchmarks.run conformal      a second

With a step of 0 ours are rolling split conformal intervals; crepes is fitted anew on the errors of each
window, as a rolling use of the library does.
"""

import math
from importlib.metadata import version
from time import process_time

import numpy as np
from crepes import ConformalRegressor

from benchmarks.table import Row, faster
from clm_core.explain.conformal import COVERAGE, WINDOW, half_widths
from clm_core.market.bars import Floats

FORECASTS = 3_000
SEED = 0


def rows() -> list[Row]:
    errors = np.abs(np.random.default_rng(SEED).standard_t(4, size=FORECASTS))
    known = np.arange(FORECASTS) + 1
    start = process_time()
    ours = half_widths(errors, known, horizon=math.inf)
    middle = process_time()
    theirs = crepes_widths(errors)
    end = process_time()
    if not np.array_equal(ours[WINDOW:], theirs):
        raise SystemExit("the widths of the intervals are not those of crepes")
    name = f"Intervals of 1,000 forecasts by the newest {WINDOW:,} errors, processor time"
    ours_of_1000 = 1000 * (middle - start) / FORECASTS
    theirs_of_1000 = 1000 * (end - middle) / len(theirs)
    return [faster(name, ours_of_1000, f"crepes {version('crepes')}", theirs_of_1000, None)]


def crepes_widths(errors: Floats) -> Floats:
    """Half widths of the intervals of the forecasts after the first window, shape (n - WINDOW,)."""
    widths = np.empty(len(errors) - WINDOW)
    for number in range(len(widths)):
        regressor = ConformalRegressor().fit(errors[number : number + WINDOW])
        interval = regressor.predict_int(np.zeros(1), confidence=COVERAGE)
        widths[number] = (interval[0, 1] - interval[0, 0]) / 2
    return widths
