"""A verdict as a page: what luck would have shown, how long a proof takes, what would change the decision."""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from clm_core.decisions.gate_policy import EvidenceLevels
from clm_core.domain.evaluations import EvaluationResult, TrialLuck, Verdict
from clm_core.evidence.track_record import NORMAL, TrackRecord, probabilistic_sharpe_ratio
from clm_core.evidence.trials import TrialCount, bars_to_pass
from clm_core.market.bars import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LARGEST_SHARPE = 100.0
"""Annualised; nobody need show more."""
LUCK, MEASURED, MUTED = "#9a6700", "#2f6fed", "#5d6878"


@dataclass(frozen=True)
class Proof:
    """The evidence of a verdict, to ask it what if."""

    record: TrackRecord
    """Of the trial that was judged."""
    luck: TrialLuck
    levels: EvidenceLevels

    @property
    def trials(self) -> TrialCount:
        """As they stood when it was judged."""
        variance = self.luck.deviation**2 / self.luck.bars_per_year
        apart = max(variance - 1.0 / (self.record.effective_bars - 1.0), 0.0)
        return TrialCount(self.luck.trials, self.luck.effective_trials, apart)

    @property
    def needed_bars(self) -> float:
        return bars_to_pass(self.record, self.trials, self.levels.min_deflated_sharpe)

    @property
    def needed_sharpe(self) -> float:
        """Annualised ratio that would have sufficed on as many bars; inf: none would."""
        yearly = math.sqrt(self.luck.bars_per_year)

        def passes(annual: float) -> bool:
            record = replace(self.record, sharpe=annual / yearly)
            return self._deflated(record, self.trials) >= self.levels.min_deflated_sharpe

        return _first(passes, 0.0, LARGEST_SHARPE)

    @property
    def most_trials(self) -> float:
        """Independent ones among which this very record would still have passed; 0: not even alone."""

        def fails(trials: float) -> bool:
            count = replace(self.trials, effective=trials)
            return not self._deflated(self.record, count) >= self.levels.min_deflated_sharpe

        return 0.0 if fails(1.0) else _first(fails, 1.0, 1e9)

    def deflated(self, bars: float) -> float:
        """Deflated Sharpe ratio if the record were so many bars long, at the same rate."""
        effective = self.record.effective_bars / self.record.bars * bars
        return self._deflated(replace(self.record, bars=round(bars), effective_bars=effective), self.trials)

    def _deflated(self, record: TrackRecord, trials: TrialCount) -> float:
        return probabilistic_sharpe_ratio(record, trials.luck(record.effective_bars))


def _first(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Where a condition that holds from some point on begins to; inf: beyond `high`."""
    if not holds(high):
        return math.inf
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def what_would_change_it(verdict: Verdict, proof: Proof | None, bar: timedelta) -> list[str]:
    """One sentence for each thing that would make it pass.

    Args:
        bar: length of a bar.
    """
    missed = [leg for leg in verdict.checks if not leg.passed and leg.kind != "evidence"]
    sentences = [
        f"{leg.label}: {leg.comparison} {leg.limit:,.6g} instead of {leg.value:,.4g}"
        for leg in missed
        if math.isfinite(leg.value)
    ]
    if proof is None or not proof.record.measured:
        return sentences
    return [*sentences, *_evidence(proof, bar)]


def _evidence(proof: Proof, bar: timedelta) -> list[str]:
    record, needed = proof.record, proof.needed_bars
    if needed <= record.bars:
        return []
    count, sharpe = proof.most_trials, proof.needed_sharpe
    longer = "No number of bars at this rate would rule out luck"
    if math.isfinite(needed):
        days = (needed - record.bars) * bar / timedelta(days=1)
        longer = f"{needed - record.bars:,.0f} more bars at this rate, {days:,.0f} days of trading"
    higher = "no Sharpe ratio on so few bars would do"
    if math.isfinite(sharpe):
        higher = f"or a Sharpe ratio of {sharpe:.2f} on these {record.bars:,} bars"
    worth = proof.luck.effective_trials
    fewer = f"or this record as one of at most {count:.1f} independent trials, not {worth:.1f}"
    return [longer, higher, *([fewer] if count else [])]


def page(
    title: str,
    verdict: Verdict,
    evaluation: EvaluationResult,
    proof: Proof | None,
    bar: timedelta,
) -> str:
    """One HTML page that needs no network."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=PackageLoader("clm_core.decisions"), autoescape=True, undefined=StrictUndefined
    )
    drawn = proof is not None and proof.record.measured
    return templates.get_template("explanation.html").render(
        title=title,
        verdict=verdict,
        evaluation=evaluation,
        luck=verdict.luck,
        changes=what_would_change_it(verdict, proof, bar),
        written=_written,
        pictures=[luck_svg(proof, evaluation), length_svg(proof)] if proof is not None and drawn else [],
    )


def _written(value: float) -> str:
    return f"{value:,.6g}" if math.isfinite(value) else "none" if math.isnan(value) else "no length"


def luck_svg(proof: Proof, evaluation: EvaluationResult) -> str:
    """Annualised Sharpe ratios of one trial without an edge and of the luckiest of all; the measured one."""
    from matplotlib.figure import Figure

    luck, measured = proof.luck, evaluation.sharpe_ratio
    reach = max(4.5 * luck.deviation, 1.15 * abs(measured))
    ratios = np.linspace(-reach, reach, 500)
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    one, best = _densities(ratios / luck.deviation, luck.effective_trials)
    axes.plot(ratios, one, color=MUTED, label="one trial without an edge")
    axes.fill_between(ratios, best, color=LUCK, alpha=0.25)
    axes.plot(ratios, best, color=LUCK, label=f"luckiest of {luck.effective_trials:.0f} such trials")
    axes.axvline(measured, color=MEASURED, label=f"measured: {measured:.2f}")
    axes.set_xlabel("annualised Sharpe ratio")
    return _svg(figure, axes, y_label="density")


def _densities(standard: Floats, trials: float) -> tuple[Floats, Floats]:
    """Of a standard normal variable, and of the largest of `trials` independent ones."""
    one = np.array([NORMAL.pdf(value) for value in standard])
    below = np.array([NORMAL.cdf(value) for value in standard])
    return one, trials * one * below ** (trials - 1.0)


def length_svg(proof: Proof) -> str:
    """How sure a record of this rate makes us as it grows."""
    from matplotlib.figure import Figure

    now, needed = proof.record.bars, proof.needed_bars
    bars = np.linspace(now / 4.0, max(1.2 * needed if math.isfinite(needed) else 0.0, 2.0 * now), 200)
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(bars, [proof.deflated(count) for count in bars], color=MEASURED, label="at this rate")
    axes.axhline(proof.levels.min_deflated_sharpe, color=LUCK, linestyle="--", label="required")
    axes.plot([now], [proof.deflated(now)], "o", color=MEASURED, label=f"now: {now:,} bars")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_ylim(0.0, 1.02)
    axes.set_xlabel("bars of track record")
    return _svg(figure, axes, y_label="deflated Sharpe ratio")


def _svg(figure: "Figure", axes: "Axes", y_label: str) -> str:
    axes.set_ylabel(y_label)
    axes.legend(frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = drawn.getvalue()
    return text[text.index("<svg") :]
