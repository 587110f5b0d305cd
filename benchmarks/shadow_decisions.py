"""Error rates and speed of shadow decisions, as shipped: rewrites the tables of
docs/decisions/0066-shadow-decisions.md.

    python -m benchmarks.shadow_decisions [--share 1]     takes a few minutes

The same seed gives the same tables. `--share` is the share of the years and streams to simulate.
"""

import argparse
from dataclasses import dataclass
from math import log, log1p, sqrt
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numba import njit

from benchmarks.power import error, percent, table
from clm_core.decisions.lifecycle_rules import LifecycleRules
from clm_core.decisions.return_streams import Shape, draw_returns
from clm_core.decisions.shadow_decision import TUNED_FOR, ShadowFacts, decide, lead_bounds
from clm_core.domain.evaluations import Decision
from clm_core.domain.shadow_decisions import ShadowAction
from clm_core.evidence.alpha_spending import share
from clm_core.evidence.equal_volatility import FLOOR, HALF_LIFE, WARM_UP, compare_days
from clm_core.evidence.paired import MAX_AUTOREGRESSION, MIN_DIFFERENCES
from clm_core.evidence.repeated_looks import confidence_of_looks
from clm_core.evidence.sequential import DAY
from clm_core.evidence.track_record import probabilistic_sharpe_ratio, track_record
from clm_core.market.bars import Floats

DOCUMENT = Path(__file__).parents[1] / "docs" / "decisions" / "0066-shadow-decisions.md"
MARK = "<!-- below: python -m benchmarks.shadow_decisions -->\n"
SEED = 20_261_129
RULES = LifecycleRules()
PER_DAY = 4
"""Bars a day."""
YEAR = 365 * PER_DAY
SHADOW = int(RULES.max_days) * PER_DAY
"""Bars of a whole shadow."""
WEEKLY = 52
"""Recipes a year."""
YEARS = 1000
CORRELATION = 0.9
FIXED = 0.15
"""Lead of a better recipe, standard deviations of the champion a day, for the speed of the decision."""


@dataclass(frozen=True)
class Null:
    name: str
    champion: float
    """True annual Sharpe ratio."""
    challengers: float


NULLS = (Null("as good as the champion", 2.0, 2.0), Null("without an edge", 2.0, 0.0))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--share", type=float, default=1.0)
    share_of_full = parser.parse_args().share
    sections = (false_replacements, speed, confirmations, repeated_judgements)
    tables = "\n".join(section(np.random.default_rng(SEED), share_of_full) for section in sections)
    print(tables)
    DOCUMENT.write_text(DOCUMENT.read_text().split(MARK)[0] + MARK + "\n" + tables)


def false_replacements(rng: np.random.Generator, share_of_full: float) -> str:
    """Share of years in which any of 52 recipes replaces a champion that it does not beat."""
    agree_with_the_product(rng)
    number = scaled(YEARS, share_of_full)
    levels = [level(rank) for rank in range(1, WEEKLY + 1)]
    rows = []
    for shape in (*SHAPES, RARE_LOSS):
        for null in NULLS:
            years = np.array([replaced(year_of(shape, null, rng), levels) for _ in range(number)])
            alone = np.mean(years[:, 0])
            uncontrolled = np.mean(years[:, 2])
            rows.append(
                [shape, null.name, percent(alone), percent(np.mean(years[:, 1])), percent(uncontrolled)]
            )
    return table(
        "Years with a false replacement",
        f"A new recipe each week, {WEEKLY} a year, each followed for {RULES.max_days:g} days and looked at "
        f"every day; {PER_DAY} bars a day, a champion with a true Sharpe ratio of 2, correlation "
        f"{CORRELATION:g}, three times the champion's size; {number:,} years, "
        f"{error(RULES.yearly_error, number)} at 5 %. In the last column every recipe has a level of 5 %.",
        ["returns", "recipes", "the first alone", "any of the year", "any, without a budget"],
        rows,
    )


RARE_LOSS = "rare large loss"
LOSS_CHANCE = 0.005
LOSS = 10.0
"""A bar in two hundred loses ten standard deviations of the other bars."""
SHAPES = (Shape.NORMAL, Shape.STUDENT, Shape.AUTOREGRESSIVE, Shape.GARCH)


def unit_returns(shape: str, size: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Returns of mean 0 and variance 1, shape `size`."""
    if shape != RARE_LOSS:
        return draw_returns(Shape(shape), 0.0, size, rng)
    lost = rng.random(size) < LOSS_CHANCE
    returns = rng.standard_normal(size) - LOSS * lost
    variance = 1.0 + LOSS**2 * LOSS_CHANCE * (1.0 - LOSS_CHANCE)
    return np.asarray((returns + LOSS * LOSS_CHANCE) / sqrt(variance))


def year_of(shape: str, null: Null, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Returns of the champion and of each recipe in its shadow, shape (n_bars, n_recipes) each."""
    week = 7 * PER_DAY
    whole = unit_returns(shape, (WEEKLY * week + SHADOW, 1), rng)[:, 0]
    theirs = np.stack([whole[recipe * week : recipe * week + SHADOW] for recipe in range(WEEKLY)], axis=1)
    own = unit_returns(shape, (SHADOW, WEEKLY), rng)
    ours = CORRELATION * theirs + sqrt(1 - CORRELATION**2) * own
    return theirs + null.champion / sqrt(YEAR), 3.0 * (ours + null.challengers / sqrt(YEAR))


def replaced(year: tuple[Floats, Floats], levels: list[float]) -> tuple[bool, bool, bool]:
    """Whether the first, any, and any without a budget replaces the champion."""
    theirs, ours = year
    budget = [
        first_day(ours[:, recipe], theirs[:, recipe], PER_DAY, levels[recipe]) > 0 for recipe in range(WEEKLY)
    ]
    free = any(
        first_day(ours[:, recipe], theirs[:, recipe], PER_DAY, RULES.yearly_error) > 0
        for recipe in range(WEEKLY)
    )
    return budget[0], any(budget), free


def speed(rng: np.random.Generator, share_of_full: float) -> str:
    """Days until a better recipe replaces the champion, by its number in the year."""
    streams = scaled(4000, share_of_full)
    bars = 2 * YEAR
    theirs = draw_returns(Shape.NORMAL, 0.0, (bars, streams), rng)
    own = draw_returns(Shape.NORMAL, 0.0, (bars, streams), rng)
    ours = CORRELATION * theirs + sqrt(1 - CORRELATION**2) * own + FIXED / sqrt(PER_DAY)
    fixed = fixed_length()
    rows = []
    for rank in (1, 2, 10, 50, 60):
        days = [first_day(ours[:, one], theirs[:, one], PER_DAY, level(rank)) for one in range(streams)]
        taken = np.where(np.array(days) > 0, days, np.inf)
        middle = float(np.median(taken))
        within = percent(np.mean(taken + WARM_UP / PER_DAY <= RULES.max_days))
        rows.append(
            [f"{rank}", f"{100 * level(rank):.2g} %", f"{middle:.0f}", f"{middle / fixed:.2f}x", within]
        )
    return table(
        "Days until a better recipe replaces the champion",
        f"A lead of {FIXED:g} standard deviations a day, correlation {CORRELATION:g}, normal returns; a test "
        f"of fixed length takes {fixed:.0f} days for 80 % power at 5 %. The first {WARM_UP} bars, which tell "
        f"the volatility, come on top; {streams:,} streams.",
        ["number in the year", "level", "median days compared", "over the fixed length", "within max_days"],
        rows,
    )


def fixed_length() -> float:
    """Days of the one-sided test of fixed length at 5 % with 80 % power."""
    lead = FIXED / sqrt(2 * (1 - CORRELATION))
    normal = NormalDist()
    return ((normal.inv_cdf(0.95) + normal.inv_cdf(0.8)) / lead) ** 2


def confirmations(rng: np.random.Generator, share_of_full: float) -> str:
    """Share of the candidates that the confirmation promotes or refutes where nothing serves."""
    streams = scaled(500, share_of_full)
    days = int(RULES.confirm_days)
    rows = []
    for shape in (Shape.NORMAL, Shape.STUDENT, Shape.GARCH):
        for promised in (2.0, 3.0):
            for true in (promised, 0.0):
                promoted = refuted = judged = 0
                walked = draw_returns(shape, promised / sqrt(YEAR), (3 * YEAR, streams), rng)
                shadowed = draw_returns(shape, true / sqrt(YEAR), (days * PER_DAY, streams), rng)
                for one in range(streams):
                    walk = track_record(walked[:, one])
                    if not probabilistic_sharpe_ratio(walk) >= 0.95:
                        continue
                    judged += 1
                    look = track_record(shadowed[:, one])
                    facts = ShadowFacts(
                        float(days), len(shadowed), 50, Decision.PASS, walk_forward=walk, looks=(look,)
                    )
                    action = decide(facts, RULES).action
                    promoted += action is ShadowAction.PROMOTE
                    refuted += action is ShadowAction.RETIRE
                rows.append(
                    [
                        shape,
                        f"{promised:g}",
                        f"{true:g}",
                        percent(promoted / max(judged, 1)),
                        percent(refuted / max(judged, 1)),
                    ]
                )
    return table(
        f"Candidates after {days} days in shadow where nothing serves",
        f"Walk-forward of three years that passed the probabilistic Sharpe ratio at 95 %; {streams:,} "
        f"streams, {error(0.05, streams)} at 5 %. A true Sharpe ratio of 0 in shadow is a dead edge.",
        ["returns", "true Sharpe ratio before", "in shadow", "promoted", "refuted"],
        rows,
    )


def repeated_judgements(rng: np.random.Generator, share_of_full: float) -> str:
    """Share of versions without an edge that ever pass the gate's evidence, judged each day in shadow."""
    streams = scaled(20_000, share_of_full)
    confidence = 0.95
    rows = []
    for years in (1, 2, 3, 5):
        begun = 365 * years
        growth = 1.0 + RULES.max_days / begun
        once, raised = (
            NormalDist().inv_cdf(each) for each in (confidence, confidence_of_looks(confidence, growth))
        )
        total = rng.normal(0.0, sqrt(begun), streams)
        first = total / sqrt(begun) >= once
        unadjusted = first.copy()
        adjusted = np.zeros(streams, dtype=np.bool_)
        for days in range(begun + 1, begun + int(RULES.max_days) + 1):
            total += rng.standard_normal(streams)
            statistic = total / sqrt(days)
            unadjusted |= statistic >= once
            adjusted |= statistic >= raised
        shares = (first, unadjusted, adjusted, first | adjusted)
        rows.append([f"{years}", f"{raised:.2f}", *(percent(np.mean(each)) for each in shares)])
    return table(
        "Versions without an edge that ever pass, judged each day in shadow",
        f"Independent normal days and no trial luck, at a confidence of {100 * confidence:g} % for a single "
        f"judgement, {RULES.max_days:g} days in shadow; {streams:,} streams, {error(0.05, streams)} at 5 %. "
        "The limit is of the standardised statistic (1.64 for a single judgement).",
        [
            "years before the shadow",
            "limit in shadow",
            "pass the first verdict",
            "ever, each day at 95 %",
            "in shadow, at the limit",
            "first verdict or shadow",
        ],
        rows,
    )


def scaled(number: int, share_of_full: float) -> int:
    return max(round(number * share_of_full), 10)


def level(rank: int) -> float:
    return RULES.yearly_error * share(rank)


def agree_with_the_product(rng: np.random.Generator) -> None:
    """Stop if the fast loop and the product differ in the day of a decision."""
    time = np.arange(SHADOW, dtype=np.int64) * (DAY // PER_DAY)
    alpha = level(1)
    for shape in (*SHAPES, RARE_LOSS):
        theirs, own = unit_returns(shape, (SHADOW, 2), rng).T
        ours = CORRELATION * theirs + sqrt(1 - CORRELATION**2) * own + 0.1
        expected = 0
        for bars in range(0, SHADOW + 1, PER_DAY):
            pair = (time[:bars], DAY // PER_DAY, ours[:bars], theirs[:bars])
            record = compare_days(*pair, YEAR, np.ones(bars, dtype=np.bool_))
            if lead_bounds(record, alpha)[0] > 0.0:
                expected = record.n
                break
        fast = first_day(ours, theirs, PER_DAY, alpha)
        assert fast == expected > 0, f"{shape}: day {fast} by the fast loop, {expected} by the product"


@njit(cache=True)
def first_day(ours: Floats, theirs: Floats, per_day: int, alpha: float) -> int:
    """Number of days compared when the challenger is first called better, looked at every day; 0 if never.

    The same arithmetic as `equal_volatility.compare_days` and `paired.bounds`, in one loop.
    """
    decay = 0.5 ** (1.0 / HALF_LIFE)
    weighted = np.zeros(2)
    plain = np.zeros(2)
    weight = 0.0
    mean_level = -2.0 * log(2.0 * alpha)
    n = 0
    first = last = total = squares = cubes = products = 0.0
    for day in range(len(ours) // per_day):
        difference = 0.0
        counted = False
        for bar in range(day * per_day, (day + 1) * per_day):
            pair = (ours[bar], theirs[bar])
            if bar >= WARM_UP:
                scaled = np.zeros(2)
                for each in range(2):
                    variance = max(weighted[each] / weight, FLOOR * FLOOR * plain[each] / bar)
                    scaled[each] = pair[each] / sqrt(variance)
                difference += scaled[0] - scaled[1]
                counted = True
            weight = weight * decay + 1.0
            for each in range(2):
                weighted[each] = weighted[each] * decay + pair[each] ** 2
                plain[each] += pair[each] ** 2
        if not counted:
            continue
        if n == 0:
            first = difference
        step = difference - first
        n += 1
        total += step
        squares += step * step
        cubes += step**3
        products += step * last
        last = step
        if n < MIN_DIFFERENCES:
            continue
        mean = total / n
        variance = squares / n - mean * mean
        third = cubes / n - 3.0 * mean * squares / n + 2.0 * mean**3
        neighbours = products - mean * (2.0 * total - last) + (n - 1) * mean * mean
        slope = min(max(neighbours / n / variance, 0.0), MAX_AUTOREGRESSION)
        tail = max(1.0 - third / variance * (first + mean) / variance, 1.0)
        spread = variance * n / (n - 1) * (1.0 + slope) / (1.0 - slope) * tail
        mixture = n * (mean_level + log(mean_level + 1.0)) / TUNED_FOR
        radius = sqrt(2.0 * (mixture + 1.0) / (n * mixture) * log1p(sqrt(mixture + 1.0) / (2.0 * alpha)))
        if first + mean - sqrt(spread) * radius > 0.0:
            return n
    return 0


if __name__ == "__main__":
    main()
