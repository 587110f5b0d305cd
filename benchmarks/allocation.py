"""Weights of an allocation, as shipped: rewrites the tables of docs/decisions/0068-allocation.md.

python -m benchmarks.allocation     takes a minute or two; the same seed gives the same tables
"""

from collections.abc import Callable
from math import log, sqrt
from pathlib import Path

import numpy as np

from benchmarks.power import table
from clm_core.decisions.allocation_rules import AllocationRules
from clm_core.decisions.lifecycle_rules import LifecycleRules
from clm_core.evidence.best_arm import (
    bar_weights,
    beta_posterior,
    gaussian_posteriors,
    probabilities_of_best,
)
from clm_core.evidence.hedge import gains, hedge_path, learning_rate
from clm_core.market.bars import Floats

DOCUMENT = Path(__file__).parents[1] / "docs" / "decisions" / "0068-allocation.md"
MARK = "<!-- below: python -m benchmarks.allocation -->\n"
SEED = 20_261_130
RULES = AllocationRules()
PER_DAY = 24
"""Bars a day."""
YEAR = 365
DAYS = int(LifecycleRules().max_days)
"""Longest allocation."""


def main() -> None:
    sections = (sampler, after_a_swap, one_sharpe_apart, regret_of_hedge)
    text = "\n".join(section(np.random.default_rng(SEED)) for section in sections)
    print(text)
    DOCUMENT.write_text(DOCUMENT.read_text().split(MARK)[0] + MARK + "\n" + text)


def sampler(rng: np.random.Generator) -> str:
    """Regret of Thompson sampling with one draw a round, and the probability of two Beta arms."""
    runs = 20_000
    mean, error = _mean(thompson_regrets(runs, 2000, (0.2, 0.0), rng))
    beta = probabilities_of_best([beta_posterior(45, 55), beta_posterior(55, 45)])[1]
    return table(
        "Known answers",
        "Two normal arms with means 0.2 and 0, standard deviation 1 known, flat prior, 2,000 rounds of "
        "one draw each (Lattimore & Szepesvari, exercise 36.1): a check of the sampler, since an "
        f"allocation never uses one draw; {runs:,} runs. Beta(1, 1) with 45 of 100 wins against 55 of 100.",
        ["answer", "here", "known"],
        [
            ["mean regret", f"{mean:.1f} +- {error:.1f}", "29.9"],
            ["P(55 of 100 is the better arm)", f"{beta:.8f}", "0.92039676"],
        ],
    )


def thompson_regrets(runs: int, rounds: int, means: tuple[float, float], rng: np.random.Generator) -> Floats:
    """Regret of each run of Thompson sampling, standard deviation 1 known, shape (runs,)."""
    true = np.array(means)
    counts = np.ones((runs, 2))
    # a flat prior has no posterior before the first reward of each arm
    sums = true + rng.standard_normal((runs, 2))
    every = np.arange(runs)
    for _ in range(rounds - 2):
        drawn = sums / counts + rng.standard_normal((runs, 2)) / np.sqrt(counts)
        arm = drawn.argmax(axis=1)
        sums[every, arm] += true[arm] + rng.standard_normal(runs)
        counts[every, arm] += 1.0
    return np.asarray(counts @ (true.max() - true))


def after_a_swap(rng: np.random.Generator) -> str:
    """Weight of the new best after the arms have swapped."""
    streams = 1000
    rows = []
    for name, discount in (("0.99 a bar", 0.99), ("0.98 a day, 24 bars", 0.98 ** (1 / PER_DAY))):
        for bars in (50, 100, 250, 500):
            mean, error = _mean(swapped_weights(streams, bars, discount, rng))
            rows.append([name, f"{bars}", f"{mean:.3f} +- {error:.3f}"])
    return table(
        "Thompson weight of the new best after a swap",
        f"Two normal arms with means 0.2 and 0, standard deviation 1, swap after 1,000 bars; before limits; "
        f"{streams:,} streams.",
        ["discount", "bars since the swap", "mean weight"],
        rows,
    )


def swapped_weights(streams: int, bars: int, discount: float, rng: np.random.Generator) -> Floats:
    """Posterior probability of the arm that is the best since a number of bars, shape (streams,).

    Args:
        discount: weight left after one bar.
    """
    before = 1000
    means = np.zeros((before + bars, 2))
    means[:before, 1] = 0.2
    means[before:, 0] = 0.2
    ages = np.arange(before + bars - 1.0, -1.0, -1.0)
    return two_arms(streams, means, bar_weights(ages, discount), rng)[:, 0]


def two_arms(streams: int, means: Floats, weights: Floats, rng: np.random.Generator) -> Floats:
    """Posterior probabilities of normal arms of standard deviation 1, shape (streams, 2)."""
    chances = []
    for _ in range(streams):
        returns = means + rng.standard_normal(means.shape)
        chances.append(probabilities_of_best(gaussian_posteriors(list(returns.T), [weights, weights])))
    return np.array(chances)


def one_sharpe_apart(rng: np.random.Generator) -> str:
    """Weight of the better of two independent arms, one Sharpe ratio apart."""
    streams = 2000
    rows = []
    for days in (30, 90, DAYS):
        thompson = _mean(thompson_weights(streams, 1.0, days, rng))
        hedge = _mean(hedge_weights(streams, 1.0, days, rng))
        rows.append([f"{days}", *(f"{mean:.3f} +- {error:.3f}" for mean, error in (thompson, hedge))])
    steady = expected_weight(1.0)
    return table(
        "Weight of the better of two arms one Sharpe ratio apart",
        f"Independent normal returns of {PER_DAY} bars a day, a discount of {RULES.discount:g} a day for "
        f"Thompson sampling, Hedge from even weights with the rate for {DAYS} days; before limits; "
        f"{streams:,} streams. At {RULES.discount:g} a day 50 days count: a window of 50 days gives "
        f"{window_weight(1.0):.2f}, the discount after long {steady:.2f}, as it averages over more days "
        "than the posterior takes credit for.",
        ["days", "Thompson sampling", "Hedge"],
        rows,
    )


def window_weight(sharpe: float, days: float = 50.0) -> float:
    """Mean posterior probability of the better arm by the last days alone, variance known."""
    from scipy.stats import norm

    difference = sharpe / sqrt(YEAR)
    # z has this mean and variance 1; the mean of its normal probability has twice the variance
    return float(norm.cdf(difference / sqrt(2.0 / days) / sqrt(2.0)))


def expected_weight(sharpe: float) -> float:
    """Mean posterior probability of the better arm under the discount, after long, variance known."""
    from scipy.stats import norm

    kept = RULES.discount
    claimed = 2.0 * (1.0 - kept)
    true = 2.0 * (1.0 - kept) / (1.0 + kept)
    return float(norm.cdf(sharpe / sqrt(YEAR) / sqrt(claimed + true)))


def thompson_weights(streams: int, sharpe: float, days: int, rng: np.random.Generator) -> Floats:
    """Posterior probability of the better arm, shape (streams,)."""
    bars = days * PER_DAY
    means = np.tile([sharpe / sqrt(YEAR * PER_DAY), 0.0], (bars, 1))
    ages = (np.arange(bars, 0, -1) - 1.0) / PER_DAY
    return two_arms(streams, means, bar_weights(ages, RULES.discount), rng)[:, 0]


def hedge_weights(streams: int, sharpe: float, days: int, rng: np.random.Generator) -> Floats:
    """Hedge's weight of the better arm after some days, shape (streams,)."""
    bars = days * PER_DAY
    means = np.array([sharpe / sqrt(YEAR * PER_DAY), 0.0])
    rate = learning_rate(2, DAYS * PER_DAY)
    even = np.array([0.5, 0.5])
    weights = []
    for _ in range(streams):
        returns = means + rng.standard_normal((bars, 2))
        weights.append(hedge_path(gains(returns, RULES.clip_deviations), even, rate)[-1, 0])
    return np.array(weights)


def regret_of_hedge(rng: np.random.Generator) -> str:
    """Regret of Hedge beside its bound, in the units of a gain."""
    bars = DAYS * PER_DAY
    streams = 200
    rows = []
    for arms in (2, 4):
        bound = sqrt(bars * log(arms) / 2.0)
        for name, draw in KINDS.items():
            regrets = [hedge_regret(draw(rng, bars, arms)) for _ in range(streams)]
            mean, error = _mean(np.array(regrets))
            rows.append(
                [f"{arms}", name, f"{mean:.1f} +- {error:.1f}", f"{max(regrets):.1f}", f"{bound:.1f}"]
            )
    return table(
        "Regret of Hedge",
        f"Sum of gains of the best arm minus that of the weights over {bars:,} bars, even prior; a gain of 1 "
        f"is {2 * RULES.clip_deviations:g} deviations; {streams} streams.",
        ["arms", "gains", "mean regret", "largest", "bound sqrt(T ln K / 2)"],
        rows,
    )


def hedge_regret(gained: Floats) -> float:
    """Regret under an even prior and the rate for the number of bars."""
    bars, arms = gained.shape
    path = hedge_path(gained, np.full(arms, 1.0 / arms), learning_rate(arms, bars))
    return float(gained.sum(axis=0).max() - np.sum(path[:-1] * gained))


Draw = Callable[[np.random.Generator, int, int], Floats]
KINDS: dict[str, Draw] = {
    "fair coins, the hardest": lambda rng, bars, arms: rng.integers(0, 2, (bars, arms)).astype(np.float64),
    "normal returns": lambda rng, bars, arms: gains(rng.standard_normal((bars, arms)), RULES.clip_deviations),
}


def _mean(values: Floats) -> tuple[float, float]:
    """Mean and Monte-Carlo error."""
    return float(values.mean()), float(values.std(ddof=1) / sqrt(len(values)))


if __name__ == "__main__":
    main()
