"""Inference on a track record: probabilistic and deflated Sharpe ratio, minimum track record length.

All quantities are per bar: Sharpe ratios are not annualised, and lengths are in bars unless a docstring says
years. A record that is too short, not finite or constant gives NaN, and NaN propagates through every formula:
a gate that checks `not (value >= limit)` refuses NaN. An invalid argument, such as a confidence of 2, raises
ValueError.

Sources:
    Bailey & Lopez de Prado (2012), "The Sharpe ratio efficient frontier", Journal of Risk 15(2).
    Bailey & Lopez de Prado (2014), "The deflated Sharpe ratio", Journal of Portfolio Management 40(5).
    Bailey, Borwein, Lopez de Prado & Zhu (2014), "Pseudo-mathematics and financial charlatanism",
        Notices of the AMS 61(5).
    Lo (2002), "The statistics of Sharpe ratios", Financial Analysts Journal 58(4).
    Newey & West (1994), "Automatic lag selection in covariance matrix estimation", Review of Economic
        Studies 61(4).
    Andrews & Monahan (1992), "An improved heteroskedasticity and autocorrelation consistent covariance matrix
        estimator", Econometrica 60(4).
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from clm_core.domain.measures import MIN_BARS
from clm_core.market.bars import Floats

NORMAL = NormalDist()
MAX_AUTOREGRESSION = 0.97
"""Bound of the prewhitening coefficient (Andrews & Monahan 1992), since a unit root would make the filter
explode."""


@dataclass(frozen=True)
class TrackRecord:
    """Statistics of a series of returns, sufficient for inference on the Sharpe ratio."""

    sharpe: float
    """Mean over standard deviation (n - 1) of the returns of a bar."""
    skewness: float
    """Third standardised moment, standard deviation with n; 0 for a normal distribution."""
    kurtosis: float
    """Pearson's: fourth standardised moment, standard deviation with n; 3 for a normal distribution."""
    bars: int
    effective_bars: float
    """Number of independent bars with as much information about the Sharpe ratio; at most `bars`."""

    @property
    def measured(self) -> bool:
        estimates = (self.sharpe, self.skewness, self.kurtosis, self.effective_bars)
        return all(map(math.isfinite, estimates)) and self.effective_bars > 1.0


NOT_MEASURED = TrackRecord(math.nan, math.nan, math.nan, 0, math.nan)
"""Record of a trial without returns."""


def track_record(returns: Floats) -> TrackRecord:
    """Track record of returns, as fractions, shape (n_bars,).

    Every estimate is NaN for fewer than `MIN_BARS` bars, values that are not finite, or constant returns, for
    which a Sharpe ratio of rounding errors would be huge.
    """
    return _track_record(np.asarray(returns, np.float64).tobytes())


@lru_cache(4)
def _track_record(content: bytes) -> TrackRecord:
    """`track_record` of the bytes of returns: trial, gate and explanation of a version measure the same."""
    returns = np.frombuffer(content)
    standard = standardised(returns)
    if standard is None:
        return TrackRecord(math.nan, math.nan, math.nan, len(returns), math.nan)
    z, sharpe = standard
    return TrackRecord(
        sharpe=sharpe,
        skewness=float(np.mean(z**3)),
        kurtosis=float(np.mean(z**4)),
        bars=len(z),
        effective_bars=effective_size(influence(z, sharpe)),
    )


def standardised(returns: Floats) -> tuple[Floats, float] | None:
    """Returns standardised with n, shape (n_bars,), and the Sharpe ratio of a bar with n - 1.

    None for returns without a Sharpe ratio, see `track_record`.
    """
    if len(returns) < MIN_BARS or not np.isfinite(returns).all():
        return None
    size = np.abs(returns).max()
    if size == 0.0:
        return None
    # near 1, so that no square overflows or vanishes
    scaled = returns / size
    mean = scaled.mean()
    deviation = scaled.std()
    if deviation < 1e-12:
        return None
    n = len(returns)
    return (scaled - mean) / deviation, float(mean / deviation * math.sqrt((n - 1) / n))


def influence(z: Floats, sharpe: float) -> Floats:
    """Influence of each bar on the Sharpe ratio, times n: z - sharpe (z ** 2 - 1) / 2, shape (n_bars,).

    The variance is 1 - skewness sharpe + (kurtosis - 1) / 4 sharpe ** 2, as in `probabilistic_sharpe_ratio`;
    the long-run variance is the one of the generalised method of moments (Lo 2002).
    """
    return np.asarray(z - sharpe * (z**2 - 1.0) / 2.0)


def effective_size(values: Floats) -> float:
    """Number of independent values with a mean as uncertain as the mean of `values`, shape (n,); in (0, n].

    Variance over long-run variance, times n; NaN for constant values. Negative autocorrelation does not raise
    the number above n: bid-ask bounce carries no information.
    """
    variance = float(np.var(values))
    if variance < 1e-12:
        return math.nan
    return len(values) * min(1.0, variance / long_run_variance(values))


def long_run_variance(values: Floats) -> float:
    """Sum of all autocovariances of `values`, shape (n,), finite and not constant: n times the variance of
    the mean.

    Prewhitened by a first-order autoregression (Andrews & Monahan 1992), then Bartlett weights up to the
    automatic lag of Newey & West (1994) with 4 (n / 100) ** (2 / 9) preliminary lags.
    """
    centred = values - values.mean()
    slope = float(np.sum(centred[1:] * centred[:-1]) / np.sum(centred[:-1] ** 2))
    slope = min(max(slope, -MAX_AUTOREGRESSION), MAX_AUTOREGRESSION)
    residuals = centred[1:] - slope * centred[:-1]
    n = len(residuals)
    preliminary = int(4.0 * (n / 100.0) ** (2.0 / 9.0))
    size = _transformed_size(n, preliminary)
    known = _correlated(residuals, size)
    lags = _bandwidth(known[: preliminary + 1] / n, n)
    weights = 1.0 - np.arange(1, lags + 1) / (lags + 1.0)
    if _transformed_size(n, lags) != size:
        known = _correlated(residuals, _transformed_size(n, lags))
    covariances = known[: lags + 1] / n
    return float((covariances[0] + 2.0 * weights @ covariances[1:]) / (1.0 - slope) ** 2)


def _bandwidth(covariances: Floats, n: int) -> int:
    """Automatic lag of Newey & West from the autocovariances of the preliminary lags.

    Args:
        n: number of values.
    """
    level = covariances[0] + 2.0 * covariances[1:].sum()
    bend = 2.0 * np.arange(1, len(covariances)) @ covariances[1:]
    if level == 0.0:
        return 0
    return int(min(1.1447 * ((bend / level) ** 2 * n) ** (1.0 / 3.0), n - 1))


def autocovariances(values: Floats, lags: int) -> Floats:
    """Autocovariances of lags 0 to `lags`, shape (lags + 1,): sums of n - lag products, divided by n.

    Args:
        values: values of mean zero, shape (n,).
        lags: largest lag, below n.
    """
    n = len(values)
    return np.asarray(_correlated(values, _transformed_size(n, lags))[: lags + 1] / n)


def _transformed_size(n: int, lags: int) -> int:
    """Size of a Fourier transform of `n` values padded with zeros, so that the end does not meet the
    beginning within the lags."""
    return 1 << (n + lags - 1).bit_length()


def _correlated(values: Floats, size: int) -> Floats:
    """Sums of the products of values a lag apart, for each lag, shape (size,), by Wiener-Khinchin."""
    return np.asarray(np.fft.irfft(np.abs(np.fft.rfft(values, size)) ** 2, size))


def probabilistic_sharpe_ratio(record: TrackRecord, benchmark: float = 0.0) -> float:
    """Probability, 0..1, that the true Sharpe ratio exceeds `benchmark` (Bailey & Lopez de Prado 2012).

    q((SR - benchmark) sqrt(n - 1) / sqrt(1 - skewness SR + (kurtosis - 1) / 4 SR ** 2)), q the normal
    distribution, with two changes that only lower the probability for an SR above 0: n counts effective bars,
    and a positive skewness counts as 0, since Student-t(3) records would pass a 5 % test too often.
    """
    return 0.5 * math.erfc((benchmark - record.sharpe) / standard_error(record) / math.sqrt(2.0))


def standard_error(record: TrackRecord) -> float:
    """Standard error of the Sharpe ratio of a bar, see `probabilistic_sharpe_ratio`; NaN if not measured."""
    return math.sqrt(_spread(record) / (record.effective_bars - 1.0)) if record.measured else math.nan


def chance_of_shortfall(record: TrackRecord, earlier: TrackRecord) -> float:
    """Probability, 0..1, that a Sharpe ratio as low as the record's comes by bad luck.

    q((SR - SR') / sqrt(s ** 2 + s' ** 2)) for two records of one strategy on different bars of one length,
    with their standard errors; NaN if one of them is not measured.

    Args:
        earlier: record that promised a Sharpe ratio, such as a walk-forward.
    """
    error = math.hypot(standard_error(record), standard_error(earlier))
    return 0.5 * math.erfc((earlier.sharpe - record.sharpe) / error / math.sqrt(2.0))


def _spread(record: TrackRecord) -> float:
    """Variance of an estimated Sharpe ratio, times the independent bars; NaN for impossible moments."""
    # under heavy tails a favourable skewness comes from the same few lucky bars as the mean
    skewness = min(record.skewness, 0.0)
    spread = 1.0 - skewness * record.sharpe + (record.kurtosis - 1.0) / 4.0 * record.sharpe**2
    return spread if spread > 0.0 else math.nan


def expected_maximum_sharpe(trial_variance: float, trials: float) -> float:
    """Expected maximum of the Sharpe ratios of a bar among trials without an edge.

    sqrt(V) ((1 - g) q(1 - 1 / N) + g q(1 - 1 / (N e))), with q the normal quantile and g the Euler-Mascheroni
    constant (Bailey & Lopez de Prado 2014, equation 1); 0 if negative, as for fewer than two trials.

    Args:
        trial_variance: variance of the trials' Sharpe ratios of a bar, see `trials.sharpe_variance`.
        trials: effective number of independent trials, at least 1; need not be whole.

    Returns:
        A Sharpe ratio of a bar, at least 0; NaN for arguments that are not finite.
    """
    if not (math.isfinite(trial_variance) and math.isfinite(trials)):
        return math.nan
    if trial_variance < 0.0 or trials < 1.0:
        raise ValueError(
            f"{trials} trials of variance {trial_variance}: there must be at least 1 trial, of variance >= 0"
        )
    if trials == 1.0:
        return 0.0
    gamma = float(np.euler_gamma)
    low = -NORMAL.inv_cdf(1.0 / trials)
    high = -NORMAL.inv_cdf(1.0 / (trials * math.e))
    return math.sqrt(trial_variance) * max((1.0 - gamma) * low + gamma * high, 0.0)


def minimum_track_record_length(record: TrackRecord, confidence: float, benchmark: float = 0.0) -> float:
    """Bars at which an unchanged Sharpe ratio exceeds `benchmark` with the given confidence (Bailey & Lopez
    de Prado 2012); inf for a Sharpe ratio of at most `benchmark`, NaN for a record without a Sharpe ratio.

    1 + spread (q(confidence) / (SR - benchmark)) ** 2, with the spread under the root of
    `probabilistic_sharpe_ratio` and q the normal quantile, times `bars / effective_bars` for dependent bars.

    Args:
        record: track record whose moments are extrapolated.
        confidence: required probability, 0.5..1, 1 excluded.
        benchmark: Sharpe ratio of a bar to exceed.
    """
    excess = record.sharpe - benchmark
    quantile = NORMAL.inv_cdf(_confidence(confidence))
    if not record.measured or math.isnan(excess):
        return math.nan
    if excess <= 0.0:
        return math.inf
    independent = 1.0 + _spread(record) * (quantile / excess) ** 2
    return independent * record.bars / record.effective_bars


def minimum_backtest_length(trials: float, annual_sharpe: float) -> float:
    """Backtest length, in years, below which the best of `trials` trials without an edge is expected to reach
    `annual_sharpe` (Bailey, Borwein, Lopez de Prado & Zhu 2014, theorem 2).
    """
    if not annual_sharpe > 0.0:
        raise ValueError(
            f"the annual Sharpe ratio must be above 0, not {annual_sharpe}: any length reaches 0 by luck"
        )
    return (expected_maximum_sharpe(1.0, trials) / annual_sharpe) ** 2


def _confidence(level: float) -> float:
    if not 0.5 <= level < 1.0:
        raise ValueError(f"the confidence must be at least 0.5 and below 1, not {level}")
    return level
