"""Alpha spending over tests that start one after the other, an unknown number of them.

The k-th test of a year has the level `budget * share(k)`, fixed before its first observation. The shares sum
to 1, so the probability of any false rejection within the year is at most the budget, whatever the dependence
between the tests (Bonferroni with unequal weights; Foster & Stine 2008, "Alpha-investing", have the
sequential setting). Most of the budget goes to the first test: most models
test a single recipe a year.
"""

import math

FIRST = 0.645
"""Share of the first test."""
WEEKLY = 0.35
"""Share of the tests 2 to `WEEKS` together, alike for each."""
WEEKS = 52
BEYOND = 0.005
"""Share of all later tests together, falling with the square of their number."""


def share(rank: int) -> float:
    """Share of the budget for the test of a rank, counted from 1; the shares of all ranks sum to 1."""
    if rank < 1:
        raise ValueError(f"ranks count from 1, not {rank}")
    if rank == 1:
        return FIRST
    if rank <= WEEKS:
        return WEEKLY / (WEEKS - 1)
    return BEYOND * 6.0 / (math.pi * (rank - WEEKS)) ** 2
