"""False alarms of the drift of forecast errors, and the time to detect, by Monte Carlo: rewrites the tables
of docs/explanation/monitoring.md.

    python -m benchmarks.forecast_errors [--paths 1000] [--pools 300] [--seed 1]

Forecasts of a rise lie around 50 % with a deviation of 6 points, as those of the default recipes do, and are
calibrated for the first 200 outcomes. Then nothing changes, or the probability of a rise is shifted, or the
forecasts lose their edge. Printed are the share of paths with a change found among the first 200 outcomes,
which is false, and among the 300 after, with the median number of outcomes. KSWIN of river on the same
errors stands beside ADWIN, by its default window, at a level of 0.0001 a step.

The second table is of pools of ten members, of which none, one or all change: the share of pools with a
member reported falsely, unchanged or before the change, the share of false ones among the members reported,
and the share of the changed members found.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.pages import replace_part
from clm_core.evidence.forecast_errors import DELTA, error_drift, error_drift_of_members
from clm_core.market.bars import Floats

DOCUMENT = Path(__file__).parents[1] / "docs" / "explanation" / "monitoring.md"
BEFORE = 200
AFTER = 300
SPREAD = 0.06
KSWIN_LEVEL = 1e-4
CHANGES = {
    "none": (1.0, 0.0),
    "edge lost": (0.0, 0.0),
    "rises 10 points more often": (1.0, 0.1),
    "rises 20 points more often": (1.0, 0.2),
    "rises 30 points more often": (1.0, 0.3),
}
"""Share of the edge kept and shift of the probability of a rise, by name."""
MEMBERS = 10
Detector = Callable[[Floats], int | None]


def errors_of(rng: np.random.Generator, edge: float, shift: float) -> Floats:
    count = BEFORE + AFTER
    forecast = np.clip(0.5 + SPREAD * rng.standard_normal(count), 0.02, 0.98)
    changed = 0.5 + edge * (forecast - 0.5) + shift
    chance = np.where(np.arange(count) < BEFORE, forecast, np.clip(changed, 0.0, 1.0))
    return np.asarray((rng.random(count) < chance) - forecast)


def adwin(delta: float) -> Detector:
    def drift_row(errors: Floats) -> int | None:
        drifted = error_drift(errors, delta)
        return None if drifted is None else drifted.changed_at

    return drift_row


def kswin(errors: Floats) -> int | None:
    from river.drift import KSWIN

    detector = KSWIN(alpha=KSWIN_LEVEL, seed=0)
    for number, error in enumerate(errors.tolist(), 1):
        detector.update(error)
        if detector.drift_detected:
            return number
    return None


def rows(paths: int, seed: int) -> Iterator[str]:
    detectors: dict[str, tuple[Detector, int]] = {
        **{f"ADWIN, delta {delta:g}": (adwin(delta), paths) for delta in (0.002, DELTA)},
        "KSWIN": (kswin, paths // 10),
    }
    for change, (edge, shift) in CHANGES.items():
        for name, (detector, number) in detectors.items():
            rng = np.random.default_rng(seed)
            alarms = [detector(errors_of(rng, edge, shift)) for _ in range(number)]
            false = [each for each in alarms if each is not None and each <= BEFORE]
            later = [each - BEFORE for each in alarms if each is not None and each > BEFORE]
            median = f"{np.median(later):.0f}" if 2 * len(later) > number else "-"
            cells = (change, name, _share(len(false), number), _share(len(later), number), median)
            yield f"| {' | '.join(cells)} |"


def pool_rows(pools: int, seed: int) -> Iterator[str]:
    for changing, shift in ((0, 0.0), (1, 0.2), (MEMBERS, 0.2), (1, 0.3), (MEMBERS, 0.3)):
        rng = np.random.default_rng(seed)
        false = 0
        detected = 0
        shares = []
        for _ in range(pools):
            errors = {
                str(member): errors_of(rng, 1.0, shift if member < changing else 0.0)
                for member in range(MEMBERS)
            }
            reported = {
                int(member): drift.changed_at
                for member, drift in error_drift_of_members(errors).items()
                if drift.changed_at is not None
            }
            true = sum(member < changing and at > BEFORE for member, at in reported.items())
            false += true < len(reported)
            detected += true
            shares.append(1.0 - true / len(reported) if reported else 0.0)
        cells = (
            f"{changing} of {MEMBERS} rise {100 * shift:g} points more often" if changing else "no change",
            _share(false, pools),
            f"{np.mean(shares):.1%} ± {np.std(shares) / pools**0.5:.1%}",
            _share(detected, changing * pools) if changing else "-",
        )
        yield f"| {' | '.join(cells)} |"


def _share(count: int, number: int) -> str:
    mean = count / number
    return f"{mean:.1%} ± {(mean * (1 - mean) / number) ** 0.5:.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--paths", type=int, default=1000)
    parser.add_argument("--pools", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    markets = [
        "| change | detector | found before the change | found in the 300 outcomes after | median |",
        "| --- | --- | --- | --- | --- |",
        *rows(given.paths, given.seed),
    ]
    pools = [
        "| pool | pools with a false member | false of the reported | changed members found |",
        "| --- | --- | --- | --- |",
        *pool_rows(given.pools, given.seed),
    ]
    for part, lines in (("markets", markets), ("pools", pools)):
        text = "\n".join([*lines, ""])
        print(text)
        replace_part(DOCUMENT, f"python -m benchmarks.forecast_errors, {part}", text)


if __name__ == "__main__":
    main()
