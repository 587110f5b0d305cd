"""Size and power of the overfitting check: rewrites the table of
docs/decisions/0055-overfitting-of-searches.md.

python -m benchmarks.selection     about a minute of one core; the same seed gives the same figures
"""

import math
from pathlib import Path

import numpy as np

from clm_core.decisions.gate_policy import EvidenceLevels
from clm_core.evidence.overfitting import selection_risk
from clm_core.market.bars import Floats

DOCUMENT = Path(__file__).parents[1] / "docs" / "decisions" / "0055-overfitting-of-searches.md"
MARK = "<!-- below: python -m benchmarks.selection -->\n"
SEED = 20_261_129
SEARCHES = 100
CANDIDATES = 20
CORRELATION = 0.5
YEAR = 365
EDGES: dict[str, Floats] = {
    "no edge": np.zeros(CANDIDATES),
    "all with a Sharpe ratio of 2": np.full(CANDIDATES, 2.0),
    "one of 20 with a Sharpe ratio of 2": np.append(2.0, np.zeros(CANDIDATES - 1)),
}


def main() -> None:
    rows = [row(days, name, edge) for days in (YEAR, 3 * YEAR) for name, edge in EDGES.items()]
    lines = [
        "",
        f"Share of {SEARCHES} searches that pass: {CANDIDATES} candidates, independent normal days, "
        f"correlation between candidates {CORRELATION}; Monte-Carlo error up to "
        f"{50 / math.sqrt(SEARCHES):.0f} %.",
        "",
        "| days | candidates | PBO at most 0.2 | loss at most 0.05 | either |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        "",
    ]
    text = "\n".join(lines)
    print(text)
    DOCUMENT.write_text(DOCUMENT.read_text().split(MARK)[0] + MARK + text)


def row(days: int, name: str, edge: Floats) -> str:
    rng = np.random.default_rng(SEED)
    passed = np.mean([outcomes(search(days, edge, rng)) for _ in range(SEARCHES)], axis=0)
    cells = " | ".join(f"{100 * share:.0f} %" for share in passed)
    return f"| {days:,} | {name} | {cells} |"


def search(days: int, edge: Floats, rng: np.random.Generator) -> Floats:
    """Daily returns of the candidates in standard deviations, shape (days, CANDIDATES)."""
    common = rng.standard_normal((days, 1))
    own = rng.standard_normal((days, CANDIDATES))
    noise = math.sqrt(CORRELATION) * common + math.sqrt(1.0 - CORRELATION) * own
    return np.asarray(noise + edge / math.sqrt(YEAR))


def outcomes(returns: Floats) -> tuple[bool, bool, bool]:
    """True for each of: probability of overfitting met, probability of loss met, either."""
    risk = selection_risk(returns)
    levels = EvidenceLevels()
    overfitting = risk.overfitting <= levels.max_overfitting
    loss = risk.loss <= levels.max_selection_loss
    return overfitting, loss, overfitting or loss


if __name__ == "__main__":
    main()
