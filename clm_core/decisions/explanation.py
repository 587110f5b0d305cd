"""Verdict explanation page: checks, trial luck, the track record still needed and changes to pass."""

import io
import math
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from clm_core.decisions.gate_policy import EvidenceLevels
from clm_core.domain import measures
from clm_core.domain.evaluations import (
    BASELINE_COLUMNS,
    CHECK_COLUMNS,
    FOLD_COLUMNS,
    RULE_COLUMNS,
    RULE_NOTE,
    SYMBOL_COLUMNS,
    CheckKind,
    EvaluationResult,
    TrialLuck,
    Verdict,
)
from clm_core.evidence.track_record import (
    NORMAL,
    TrackRecord,
    minimum_backtest_length,
    minimum_track_record_length,
    probabilistic_sharpe_ratio,
)
from clm_core.evidence.trials import TrialCount, bars_to_pass, first_passing, sharpe_to_pass
from clm_core.market.bars import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRIAL_LUCK_COLOUR = "#9a6700"
MEASURED = "#2f6fed"
MUTED = "#5d6878"


@dataclass(frozen=True)
class Proof:
    """Evidence of a verdict, for the limits at which the decision would change."""

    record: TrackRecord
    """Track record of the judged trial."""
    trial_luck: TrialLuck
    levels: EvidenceLevels

    @property
    def trials(self) -> TrialCount:
        """Count of the trials at the time of the verdict; a verdict of a release that took the dispersion of
        the trials for luck keeps its variance."""
        variance = self.trial_luck.deviation**2 / self.trial_luck.bars_per_year
        dispersion = variance - 1.0 / (self.record.effective_bars - 1.0)
        # rounding of a variance that is chance alone
        dispersion = dispersion if dispersion > 1e-9 * variance else 0.0
        luck = self.trial_luck
        return TrialCount(
            luck.trials, luck.effective_trials, dispersion, luck.forward_bars, luck.side_by_side
        )

    @property
    def needed_bars(self) -> float:
        return bars_to_pass(self.record, self.trials, self.levels.min_deflated_sharpe)

    @property
    def needed_sharpe(self) -> float:
        """Annualised Sharpe ratio sufficient on as many bars; inf if no ratio suffices."""
        sharpe = sharpe_to_pass(self.record, self.trials, self.levels.min_deflated_sharpe)
        return sharpe * math.sqrt(self.trial_luck.bars_per_year)

    @property
    def max_trials(self) -> float:
        """Largest number of independent trials with which the same record passes; 0 if not even a single
        trial does."""

        def fails(trials: float) -> bool:
            count = replace(self.trials, effective=trials)
            return not self._deflated(self.record, count) >= self.levels.min_deflated_sharpe

        return 0.0 if fails(1.0) else first_passing(fails, 1.0, 1e9)

    def deflated(self, bars: float) -> float:
        """Deflated Sharpe ratio of a record of `bars` bars at the same rate."""
        effective = self.record.effective_bars / self.record.bars * bars
        longer = replace(self.record, bars=round(bars), effective_bars=effective)
        return self._deflated(longer, self.trials.after(effective - self.record.effective_bars))

    def _deflated(self, record: TrackRecord, trials: TrialCount) -> float:
        return probabilistic_sharpe_ratio(record, trials.expected_maximum(record.effective_bars))


def changes_to_pass(verdict: Verdict, proof: Proof | None, bar: timedelta) -> list[str]:
    """One sentence for each change that would let the version pass.

    Args:
        bar: time that one bar takes on average, closing times of the market included.
    """
    missed = [check for check in verdict.missed if check.kind is not CheckKind.EVIDENCE]
    sentences = [
        f"{check.label}: {check.required} instead of {check.measured}"
        for check in missed
        if math.isfinite(check.value)
    ]
    if proof is None or not proof.record.measured:
        return sentences
    return [*sentences, *_evidence(proof, bar)]


def _evidence(proof: Proof, bar: timedelta) -> list[str]:
    record = proof.record
    needed = proof.needed_bars
    if needed <= record.bars:
        return []
    count = proof.max_trials
    sharpe = proof.needed_sharpe
    longer = "No number of bars at this rate would rule out luck"
    if math.isfinite(needed):
        days = (needed - record.bars) * bar / timedelta(days=1)
        longer = f"{needed - record.bars:,.0f} more bars at this rate, {days:,.0f} days of trading"
    higher = "no Sharpe ratio on so few bars would do"
    if math.isfinite(sharpe):
        higher = f"or a Sharpe ratio of {sharpe:.2f} on these {record.bars:,} bars"
    trials = proof.trial_luck.effective_trials
    fewer = f"or the same record as one of at most {count:.1f} independent trials, not {trials:.1f}"
    return [longer, higher, *([fewer] if count else [])]


def textbook_lengths(proof: Proof | None) -> list[str]:
    """Minimum track record length and minimum backtest length of a record with a Sharpe ratio above 0."""
    if proof is None or not proof.record.measured or not proof.record.sharpe > 0.0:
        return []
    a_year = proof.trial_luck.bars_per_year
    sharpe = proof.record.sharpe * math.sqrt(a_year)
    years = proof.record.bars / a_year
    confidence = proof.levels.min_deflated_sharpe
    alone = minimum_track_record_length(proof.record, confidence) / a_year
    lucky = minimum_backtest_length(proof.trial_luck.effective_trials, sharpe)
    return [
        f"Minimum track record length: {alone:,.2f} years at this rate show a Sharpe ratio above 0, if "
        f"nothing else had been tried; the record has {years:,.2f} years.",
        f"Minimum backtest length: on {lucky:,.2f} years or fewer, the best of "
        f"{proof.trial_luck.effective_trials:,.1f} independent trials without an edge is expected to show a "
        f"Sharpe ratio of {sharpe:,.2f}.",
    ]


def page(
    title: str,
    verdict: Verdict,
    evaluation: EvaluationResult,
    proof: Proof | None,
    bar: timedelta,
) -> str:
    """A self-contained HTML page, readable without a network."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=PackageLoader("clm_core.decisions"), autoescape=True, undefined=StrictUndefined
    )
    pictures = (
        [trial_luck_svg(proof, evaluation), length_svg(proof)]
        if proof is not None and proof.record.measured
        else []
    )
    return templates.get_template("explanation.html").render(
        title=title,
        verdict=verdict,
        evaluation=evaluation,
        luck=verdict.luck,
        changes=changes_to_pass(verdict, proof, bar),
        lengths=textbook_lengths(proof),
        check_columns=CHECK_COLUMNS,
        baseline_columns=BASELINE_COLUMNS,
        rule_columns=RULE_COLUMNS,
        rule_note=RULE_NOTE,
        earned=measures.signed_percent(evaluation.total_pnl),
        sharpe=verdict.estimate_of("sharpe_ratio") or measures.ratio(evaluation.sharpe_ratio),
        lucky_sharpe="" if verdict.luck is None else measures.ratio(verdict.luck.sharpe_ratio),
        pictures=pictures,
        symbol_columns=SYMBOL_COLUMNS,
        fold_columns=FOLD_COLUMNS,
    )


def trial_luck_svg(proof: Proof, evaluation: EvaluationResult) -> str:
    """Densities of the annualised Sharpe ratio of a single trial without an edge and of the luckiest of all
    trials, with the measured ratio marked."""
    from matplotlib.figure import Figure

    trial_luck = proof.trial_luck
    measured = evaluation.sharpe_ratio
    reach = max(4.5 * trial_luck.deviation, 1.15 * abs(measured))
    ratios = np.linspace(-reach, reach, 500)
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    one, best = _densities(ratios / trial_luck.deviation, trial_luck.effective_trials)
    axes.plot(ratios, one, color=MUTED, label="one trial without an edge")
    axes.fill_between(ratios, best, color=TRIAL_LUCK_COLOUR, alpha=0.25)
    axes.plot(
        ratios,
        best,
        color=TRIAL_LUCK_COLOUR,
        label=f"luckiest of {trial_luck.effective_trials:.0f} such trials",
    )
    axes.axvline(measured, color=MEASURED, label=f"measured: {measured:.2f}")
    axes.set_xlabel("annualised Sharpe ratio")
    return _svg(figure, axes, y_label="density")


def _densities(standard: Floats, trials: float) -> tuple[Floats, Floats]:
    """Densities of a standard normal variable and of the maximum of `trials` independent normal variables.

    Args:
        standard: points, shape (n,).
        trials: number of variables, at least 1; need not be whole.

    Returns:
        Two arrays of shape (n,).
    """
    one = np.array([NORMAL.pdf(value) for value in standard])
    below = np.array([NORMAL.cdf(value) for value in standard])
    return one, trials * one * below ** (trials - 1.0)


def length_svg(proof: Proof) -> str:
    """Deflated Sharpe ratio over the length of the track record, at the measured rate."""
    from matplotlib.figure import Figure

    now = proof.record.bars
    needed = proof.needed_bars
    bars = np.linspace(now / 4.0, max(1.2 * needed if math.isfinite(needed) else 0.0, 2.0 * now), 200)
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(bars, [proof.deflated(count) for count in bars], color=MEASURED, label="at this rate")
    axes.axhline(proof.levels.min_deflated_sharpe, color=TRIAL_LUCK_COLOUR, linestyle="--", label="required")
    axes.plot([now], [proof.deflated(now)], "o", color=MEASURED, label=f"now: {now:,} bars")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_ylim(0.0, 1.02)
    axes.set_xlabel("bars of track record")
    return _svg(figure, axes, y_label="deflated Sharpe ratio")


def _svg(figure: "Figure", axes: "Axes", y_label: str) -> str:
    axes.set_ylabel(y_label)
    axes.legend(frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    return text[text.index("<svg") :]
