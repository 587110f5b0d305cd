"""Regimes against jumpmodels and against a hidden Markov model, and the lag of the labels.

    python -m benchmarks.regimes [--paths 50] [--seed 2]    rewrites the tables of docs/explanation/regimes.md
    python -m benchmarks.run regimes                         the times alone

Needs the peers (`.venv-bench`). On real daily series the labels are compared with those of jumpmodels, fitted
on the same windows with features by pandas, and their changes with those of a Gaussian hidden Markov model of
two states (hmmlearn) on the returns, fitted on the same windows and filtered: the probability of a state
given the returns up to the day. A reader (`regime_reader`) of the two years before each quarter is compared
with the labels of the quarter. Series are read from CLM_BENCHMARK_DATA, by default ../shared/data.

Planted are regimes of daily returns, normal ones or of Student's t with 4 degrees of freedom: calm ones (mean
0.06 %, standard deviation 0.8 %, 300 days on average) and turbulent ones (mean -0.08 %, deviation larger by a
factor, 100 days), none shorter than 40 days. The lag of a label counts the days of the new regime up to the
first that is labelled so, over the changes found before the regime ends.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.pages import replace_part
from benchmarks.recipes import Window, bars_of
from benchmarks.table import Row, faster, timed
from clm_core.market import regimes
from clm_core.market.bars import Bars, Floats
from clm_core.market.regime_reader import RegimeReader
from clm_core.market.regimes import DEFAULT, SHU_2024, UNKNOWN, RegimeFit, RegimeRules
from clm_core.market.timeframes import Calendar, Timeframe

if TYPE_CHECKING:
    from hmmlearn.hmm import GaussianHMM

Labels = NDArray[np.int64]
DOCUMENT = Path(__file__).parents[1] / "docs" / "explanation" / "regimes.md"
SERIES = (
    Window("BTCUSDT_1h", "BTCUSDT", "1h", "2017-08-17", "2025-09-20", 1),
    Window("ETHUSDT_1h", "ETHUSDT", "1h", "2020-09-20", "2025-09-20", 1),
    Window("XAUUSD_1h", "XAUUSD", "1h", "2012-05-17", "2022-03-05", 1),
    Window("AAPL_1h", "AAPL", "1h", "1998-01-02", "2021-04-01", 1),
    Window("SPY_1d", "SPY", "1d", "1998-01-02", "2021-04-01", 1),
)
HMM_STARTS = 5
N_BARS = 26_000
FACTORS = (1.5, 3.0)
NOISES = ("normal", "t(4)")
RULES = {"downside deviations": DEFAULT, "Shu et al.": SHU_2024}
"""The default features, and those of the paper."""
CALM_MEAN = 0.0006
TURBULENT_MEAN = -0.0008
CALM_DEVIATION = 0.008
CALM_DAYS = 300
TURBULENT_DAYS = 100
FEWEST_DAYS = 40
PATH_DAYS = 6 * 365
TRAINING_NS = 730 * regimes.DAY
"""Length of the training bars of a reader."""


def labels_by_fit(ours: regimes.Regimes, label: Callable[[RegimeFit, slice, int], Labels]) -> Labels:
    """Labels of the days by another model, which is fitted at the dates of our fits.

    Args:
        label: labels of the days from a window on, given our fit, the window, and the last day, exclusive.
    """
    ends = ours.days.ends
    labels = np.full(len(ends), UNKNOWN)
    dates = [each.at.value for each in ours.fits]
    for fit, following in zip(ours.fits, [*dates[1:], int(ends[-1])], strict=True):
        window = regimes.window_of(ends, fit.at.value)
        last = int(np.searchsorted(ends, following, side="right"))
        labels[window.stop : last] = label(fit, window, last)[window.stop - window.start :]
    return labels


def by_jumpmodels(ours: regimes.Regimes, rules: RegimeRules) -> Labels:
    """Labels by jumpmodels, with states matched by the nearest centroid."""
    from jumpmodels.jump import JumpModel
    from jumpmodels.preprocess import DataClipperStd, StandardScalerPD

    features = pandas_features(pd.Series(ours.days.closes), rules)

    def label(fit: RegimeFit, window: slice, last: int) -> Labels:
        clipper = DataClipperStd(mul=3.0)
        scaler = StandardScalerPD()
        fitted = scaler.fit_transform(clipper.fit_transform(features[window]))
        values = scaler.transform(clipper.transform(features[window.start : last]))
        model = JumpModel(n_components=2, jump_penalty=rules.jump_penalty).fit(fitted, sort_by=None)
        gaps = np.square(model.centers_[:, None] - fit.standard_centroids()).sum(axis=2)
        crossed = gaps[0, 1] + gaps[1, 0] < gaps[0, 0] + gaps[1, 1]
        states = np.asarray(model.predict_online(values))
        return 1 - states if crossed else states

    return labels_by_fit(ours, label)


def pandas_features(closes: "pd.Series[float]", rules: RegimeRules) -> pd.DataFrame:
    """Features of the rules, with the exponential averages of pandas."""
    returns = closes.pct_change()
    squares = (returns.clip(upper=0.0) ** 2).where(returns.notna())

    def deviation(half_life: float) -> "pd.Series[float]":
        return pd.Series(np.sqrt(squares.ewm(halflife=half_life).mean()))

    columns = [pd.Series(np.log(deviation(each))) for each in rules.deviation_half_lives]
    for each in rules.sortino_half_lives:
        columns.append(returns.ewm(halflife=each).mean() / deviation(each))
    return pd.concat(columns, axis=1, keys=rules.features)


def by_hmm(ours: regimes.Regimes, starts: int) -> Labels:
    """Filtered labels of a Gaussian hidden Markov model, 1 for the state of the larger variance."""
    from hmmlearn.hmm import GaussianHMM

    closes = ours.days.closes
    returns = 100 * np.diff(closes, prepend=closes[0]) / np.append(closes[0], closes[:-1])

    def label(_: RegimeFit, window: slice, last: int) -> Labels:
        rows = returns[window, None]
        fitted = [
            GaussianHMM(2, "diag", n_iter=200, tol=1e-4, random_state=start).fit(rows)
            for start in range(starts)
        ]
        return filtered(max(fitted, key=lambda each: each.score(rows)), returns[window.start : last])

    return labels_by_fit(ours, label)


def filtered(model: "GaussianHMM", returns: Floats) -> Labels:
    variances = model.covars_.ravel()
    gaps = returns[:, None] - model.means_.ravel()
    densities = np.exp(-0.5 * np.square(gaps) / variances) / np.sqrt(variances) + 1e-300
    probabilities = model.startprob_
    states = np.empty(len(returns), dtype=np.int64)
    for day, density in enumerate(densities):
        probabilities = (probabilities if day == 0 else probabilities @ model.transmat_) * density
        probabilities = probabilities / probabilities.sum()
        states[day] = probabilities.argmax()
    return states if variances[1] >= variances[0] else 1 - states


def switches(labels: Labels) -> int:
    return int(np.count_nonzero(np.diff(labels[labels != UNKNOWN])))


def series_rows() -> Iterator[str]:
    yield "| series | days | fits | features | days unlike jumpmodels | switches | of the HMM | share |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for window in SERIES:
        bars = bars_of(window)
        hmm = switches(by_hmm(regimes.regimes(bars), HMM_STARTS))
        for name, rules in RULES.items():
            market_regimes = regimes.regimes(bars, rules)
            ours = market_regimes.days.labels.astype(np.int64)
            labelled = int(np.count_nonzero(ours != UNKNOWN))
            unlike = int(np.count_nonzero(ours != by_jumpmodels(market_regimes, rules)))
            own = switches(ours)
            cells = (
                window.symbol,
                f"{labelled:,}",
                len(market_regimes.fits),
                name,
                unlike,
                own,
                hmm,
                f"{own / hmm:.0%}",
            )
            yield f"| {' | '.join(str(each) for each in cells)} |"


def reader_rows() -> Iterator[str]:
    yield "| series | bars needed | quarters | bars labelled alike | in the worst quarter |"
    yield "| --- | --- | --- | --- | --- |"
    for window in SERIES:
        bars = bars_of(window)
        market_regimes = regimes.regimes(bars)
        dates = np.array([each.at.value for each in market_regimes.fits])
        edges = np.searchsorted(bars.time, [*dates[dates >= bars.time[0] + TRAINING_NS], 2**62])
        alike = []
        for begin, stop in pairwise(edges.tolist()):
            first = int(np.searchsorted(bars.time, bars.time[begin] - TRAINING_NS))
            reader = RegimeReader.of(regimes.with_regimes(bars[first:begin], bars[:begin]))
            labels = reader.labels(bars[first:stop])[begin - first :]
            alike.append(labels == market_regimes.labels[begin:stop])
        needed = f"{reader.bars_needed:,}"
        worst = min(float(each.mean()) for each in alike)
        mean = float(np.concatenate(alike).mean())
        yield f"| {window.symbol} | {needed} | {len(alike)} | {mean:.0%} | {worst:.0%} |"


@dataclass(frozen=True, eq=False)
class PlantedPath:
    """Days of a planted path."""

    returns: Floats
    truth: Labels
    """0 for a calm day, 1 for a turbulent day."""


def planted(rng: np.random.Generator, factor: float, noise: str) -> PlantedPath:
    truth = np.empty(0, dtype=np.int64)
    while len(truth) < PATH_DAYS:
        state = len(truth) and 1 - truth[-1]
        mean = TURBULENT_DAYS if state else CALM_DAYS
        stay = FEWEST_DAYS + int(rng.exponential(mean - FEWEST_DAYS))
        truth = np.append(truth, np.full(stay, state))
    truth = truth[:PATH_DAYS]
    deviation = CALM_DEVIATION * np.where(truth == 1, factor, 1.0)
    means = np.where(truth == 1, TURBULENT_MEAN, CALM_MEAN)
    normal = noise == "normal"
    shocks = rng.standard_normal(PATH_DAYS) if normal else rng.standard_t(4, PATH_DAYS) / np.sqrt(2)
    return PlantedPath(means + deviation * shocks, truth)


def daily_bars(returns: Floats) -> Bars:
    close = np.asarray(100 * np.cumprod(1 + returns), dtype=np.float64)
    time = 1_420_070_400 * 10**9 + np.arange(len(close), dtype=np.int64) * Timeframe.D1.nanoseconds
    return Bars(
        "PLANTED", Timeframe.D1, Calendar.ALWAYS, time, close, close, close, close, np.ones(len(close))
    )


class Lags:
    """Lags, changes and right labels of a model over paths."""

    def __init__(self) -> None:
        self.found: dict[int, list[int]] = {0: [], 1: []}
        """Lags in days of the changes found, by the new state."""
        self.missed = {0: 0, 1: 0}
        """Number of changes not found before the regime ended, by the new state."""
        self.right: list[float] = []
        """Share of the days labelled by the planted state, of each path."""
        self.switches: list[float] = []
        """Changes of the label a year, of each path."""

    def add(self, labels: Labels, truth: Labels) -> None:
        first = int(np.argmax(labels != UNKNOWN))
        changes = np.flatnonzero(np.diff(truth)) + 1
        for begin, end in zip(changes, [*changes[1:], len(truth)], strict=True):
            if begin <= first or labels[begin - 1] != truth[begin - 1]:
                continue
            state = int(truth[begin])
            days = np.flatnonzero(labels[begin:end] == state)
            if len(days):
                self.found[state].append(int(days[0]) + 1)
            elif end < len(truth):
                self.missed[state] += 1
        self.right.append(float(np.mean(labels[first:] == truth[first:])))
        self.switches.append(switches(labels) / (len(labels) - first) * 365)

    def cells(self) -> Iterator[str]:
        for state in (1, 0):
            lags = np.array(self.found[state])
            share = len(lags) / max(len(lags) + self.missed[state], 1)
            yield f"{share:.0%}"
            yield with_error(lags)
        yield with_error(np.array(self.switches))
        yield f"{np.mean(self.right):.0%}"


def with_error(values: Floats | Labels) -> str:
    return f"{values.mean():.1f} ± {values.std(ddof=1) / np.sqrt(len(values)):.1f}"


def lag_rows(paths: int, seed: int) -> Iterator[str]:
    yield (
        "| noise | turbulent moves times | model | turbulence found | after days | calm found | after days "
        "| switches a year | days labelled right |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for noise, factor in product(NOISES, FACTORS):
        models = {name: Lags() for name in (*RULES, "HMM")}
        for number in range(paths):
            path = planted(np.random.default_rng([seed, number]), factor, noise)
            bars = daily_bars(path.returns)
            for name, rules in RULES.items():
                market_regimes = regimes.regimes(bars, rules)
                models[name].add(market_regimes.days.labels.astype(np.int64), path.truth)
            models["HMM"].add(by_hmm(market_regimes, 1), path.truth)
        for name, lags in models.items():
            yield f"| {' | '.join((noise, f'{factor:g}', name, *lags.cells()))} |"


def rows() -> list[Row]:
    """Times of all fits and labels of three years of hourly bars; jumpmodels is given the daily closes."""
    bars = bars_of(SERIES[0])[-N_BARS:]
    market_regimes = regimes.regimes(bars)
    ours = timed(partial(regimes.regimes, bars), 10)
    peer = timed(partial(by_jumpmodels, market_regimes, DEFAULT), 2, warm_up=False)
    name = f"regimes of {N_BARS:,} hourly bars, {len(market_regimes.fits)} fits"
    return [faster(name, ours, "jumpmodels 0.1.1, from daily closes", peer, 50.0)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--paths", type=int, default=50)
    parser.add_argument("--seed", type=int, default=2)
    given = parser.parse_args()
    parts = {"series": series_rows(), "reader": reader_rows(), "lags": lag_rows(given.paths, given.seed)}
    for name, lines in parts.items():
        text = "".join(f"{line}\n" for line in lines)
        print(text, flush=True)
        replace_part(DOCUMENT, f"python -m benchmarks.regimes, {name}", text)


if __name__ == "__main__":
    main()
