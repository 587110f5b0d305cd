"""Agreement of two models on the same bars: rank correlation of the positions."""

import math

import numpy as np
import pandas as pd

from clm_core.market.bars import Floats

OLDER_FOLD = "agreement_with_older_fold"
"""Training metric of a fold: agreement with the model of the fold before on the test rows of the older fold.
The newer model has been trained on these rows, as a refresh on the bars since the champion."""
MIN_BARS = 50
"""Least number of bars for an agreement."""


def rank_correlation(ours: Floats, theirs: Floats) -> float:
    """Spearman's correlation of two series of positions, shape (n_bars,) each; ties have their mean rank.

    NaN for fewer than `MIN_BARS` bars, or for positions that never vary.
    """
    if len(ours) < MIN_BARS:
        return math.nan
    ranks = [pd.Series(each).rank().to_numpy() for each in (ours, theirs)]
    if any(np.ptp(each) == 0.0 for each in ranks):
        return math.nan
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def agreement_metric(agreement: float) -> dict[str, float]:
    """The agreement as a training metric of a fold; empty where not measured."""
    return {OLDER_FOLD: agreement} if math.isfinite(agreement) else {}
