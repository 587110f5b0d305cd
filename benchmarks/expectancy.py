"""Coverage of the lower bound of the expectancy of a trade: rewrites the table of
docs/decisions/0053-payoff-as-a-whole.md.

python -m benchmarks.expectancy     about a minute of one core; the same seed gives the same figures
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from clm_core.evidence.bootstrap import resampled_moments
from clm_core.evidence.expectancy import expectancy
from clm_core.evidence.track_record import standardised
from clm_core.market.bars import Floats

DOCUMENT = Path(__file__).parents[1] / "docs" / "decisions" / "0053-payoff-as-a-whole.md"
MARK = "<!-- below: python -m benchmarks.expectancy -->\n"
SEED = 20_261_129
SAMPLES = 2000
RESAMPLES = 500
TRADES = (50, 100, 200, 400)

Payoff = Callable[[np.random.Generator, int], Floats]
PAYOFFS: dict[str, Payoff] = {
    "symmetric (normal)": lambda rng, n: rng.standard_normal(n),
    "heavy tails (Student-t, 3)": lambda rng, n: rng.standard_t(3, n),
    "trend-like (exponential less 1)": lambda rng, n: rng.standard_exponential(n) - 1.0,
    "option-like (1 less exponential)": lambda rng, n: 1.0 - rng.standard_exponential(n),
    "95 % win 1, 5 % lose 19": lambda rng, n: np.where(rng.random(n) < 0.95, 1.0, -19.0),
}


def main() -> None:
    rows = [row(name, payoff, trades) for name, payoff in PAYOFFS.items() for trades in TRADES]
    error = 100 * math.sqrt(0.05 * 0.95 / SAMPLES)
    lines = [
        "",
        f"Share of {SAMPLES:,} samples of trades without an edge whose lower bound of 95 % is above 0; "
        f"{RESAMPLES} resamples; it should be 5 %, and one Monte-Carlo error is {error:.1f} %.",
        "",
        "| payoff | trades | studentised (ours) | percentiles of the means |",
        "| --- | --- | --- | --- |",
        *rows,
        "",
    ]
    text = "\n".join(lines)
    print(text)
    DOCUMENT.write_text(DOCUMENT.read_text().split(MARK)[0] + MARK + text)


def row(name: str, payoff: Payoff, trades: int) -> str:
    rng = np.random.default_rng(SEED)
    positive = np.mean([signs(payoff(rng, trades), seed) for seed in range(SAMPLES)], axis=0)
    return f"| {name} | {trades} | {100 * positive[0]:.1f} % | {100 * positive[1]:.1f} % |"


def signs(trades: Floats, seed: int) -> tuple[bool, bool]:
    """True for a positive bound, by the studentised bootstrap and by percentiles."""
    standard = standardised(trades)
    if standard is None:
        return False, bool(trades.mean() > 0.0)
    z, _ = standard
    means, _ = resampled_moments(z, RESAMPLES, np.random.default_rng(seed))
    percentile = trades.mean() + float(np.quantile(means, 0.05)) * trades.std()
    return expectancy(trades, 0.95, seed, RESAMPLES).low > 0.0, bool(percentile > 0.0)


if __name__ == "__main__":
    main()
