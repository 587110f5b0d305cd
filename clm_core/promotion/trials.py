"""How many independent trials were made, and how far apart luck throws them.

A hundred near copies of one model are hardly two trials; but counting too few lets luck pass, so every doubt
counts as one more.
"""

import math

import numpy as np

from clm_core.market.bars import Floats
from clm_core.promotion.evidence import FEWEST_BARS


def trial_correlations(returns: Floats) -> Floats:
    """Correlation of every two trials over the bars both have, shape (n_trials, n_trials).

    0, as if independent, for two that share fewer than `FEWEST_BARS` bars or of which one never varies there.

    Args:
        returns: out-of-sample returns as fractions on one time axis, shape (n_bars, n_trials); NaN where a
            trial was not tested.
    """
    if np.isinf(returns).any():
        raise ValueError("infinite returns do not correlate: mark bars a trial was not tested on with NaN")
    tested = ~np.isnan(returns)
    centred = returns - np.nanmean(returns, axis=0, where=tested)
    values = np.where(tested, centred, 0.0)
    held = tested.astype(np.float64)
    shared = held.T @ held
    enough = shared >= FEWEST_BARS
    bars = np.where(enough, shared, 1.0)
    # row i, column j: of trial i over the bars that trial j was tested on too
    means = values.T @ held / bars
    variances = (values**2).T @ held / bars - means**2
    products = variances * variances.T
    known = enough & (products > 0.0)
    covariances = values.T @ values / bars - means * means.T
    correlations = np.where(known, covariances / np.sqrt(np.where(known, products, 1.0)), 0.0)
    np.fill_diagonal(correlations, 1.0)
    return np.clip(correlations, -1.0, 1.0)


def effective_trials(correlations: Floats) -> float:
    """Independent trials that would throw up a best one as lucky, from 1 to n_trials.

    (sum of the roots of the eigenvalues) ** 2 over their sum, negative ones as 0 (Galwey 2009, "A new measure
    of the effective number of tests", Genetic Epidemiology 33). In every pattern simulated it stays above the
    number that the luck of the best trial implies and, unlike the mean correlation (Bailey & Lopez de Prado
    2014), it sees clusters; other counts of eigenvalues fall below. docs/decisions/0001-evidence.md has the
    table. The correlations should be of more bars than there are trials.

    Args:
        correlations: symmetric, shape (n_trials, n_trials), as of `trial_correlations`.
    """
    if not np.isfinite(correlations).all():
        return math.nan
    eigenvalues = np.maximum(np.linalg.eigvalsh(correlations), 0.0)
    return float(np.sqrt(eigenvalues).sum() ** 2 / eigenvalues.sum())


def sharpe_variance(sharpes: Floats, effective_bars: float) -> float:
    """Variance of a bar's Sharpe ratio among trials without an edge, for `evidence.deflated_sharpe_ratio`.

    The trials' own variance (n - 1), but at least what chance alone gives a record, 1 / (effective_bars - 1):
    trials that resemble each other stay close to each other, which `effective_trials` has counted already.

    NaN without a trial, or where one of them, or the record, could not be measured.

    Args:
        sharpes: one a trial, per bar, shape (n_trials,).
        effective_bars: of the record under judgement.
    """
    if not len(sharpes) or not np.isfinite(sharpes).all() or not effective_bars > 1.0:
        return math.nan
    among = float(np.var(sharpes, ddof=1)) if len(sharpes) > 1 else 0.0
    return max(1.0 / (effective_bars - 1.0), among)
