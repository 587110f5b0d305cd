"""Power of a window: the chance that a version with a known edge passes at the first retrain of a window."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from clm_core.decisions.gate_policy import EvidenceLevels, GatePolicy
from clm_core.decisions.simulated_market import World
from clm_core.decisions.simulation import Estimate, simulate_waits
from clm_core.domain.evidence_window import EvidenceWindow
from clm_core.evidence.track_record import NORMAL, TrackRecord, minimum_track_record_length
from clm_core.evidence.trials import TrialCount, bars_to_pass, sharpe_to_pass


@dataclass(frozen=True)
class EdgePower:
    """Chances of a true Sharpe ratio."""

    annual_sharpe: float
    """True annual Sharpe ratio, net of costs and after sizing."""
    by_evidence: float
    """Chance that the deflated Sharpe ratio of normal, independent returns reaches the policy's level."""
    by_gate: Estimate | None
    """Share of simulated first retrains that the whole gate passes; None: not simulated."""
    minimum_years: float
    """Length at which a record of exactly the true Sharpe ratio passes; inf if never."""
    textbook_years: float
    """The same against zero, for a single trial (Bailey & Lopez de Prado 2012)."""


@dataclass(frozen=True)
class WindowPower:
    """What a window can show."""

    window: EvidenceWindow
    record_years: float
    """Length of the out-of-sample record, years of 365 days."""
    trials: float
    """Effective number of independent trials."""
    streams: int
    """Simulated retrains of each edge; 0: none."""
    edges: tuple[EdgePower, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready dictionary; a length without an end is null."""
        rows = [
            {
                name: None if isinstance(value, float) and not math.isfinite(value) else value
                for name, value in asdict(edge).items()
            }
            for edge in self.edges
        ]
        return {
            "window": self.window.model_dump(mode="json"),
            "record_years": self.record_years,
            "trials": self.trials,
            "streams": self.streams,
            "edges": rows,
        }


def window_power(
    window: EvidenceWindow,
    world: World,
    policy: GatePolicy,
    trials: TrialCount,
    edges: Sequence[float],
    streams: int,
    seed: int,
    progress: Callable[[float], None] = lambda done: None,
) -> WindowPower:
    """Chances of true Sharpe ratios.

    Args:
        world: simulated market, with the length of the record and the bars of the window.
        policy: policy with evidence.
        trials: trials of the market counted so far.
        edges: true annual Sharpe ratios.
        streams: simulated retrains of each edge; 0 leaves the simulation out.
        progress: called with the completed share, 0..1.
    """
    assert policy.evidence is not None
    levels = policy.evidence
    # every simulated retrain stands behind the trials made so far
    counted = levels.model_copy(update={"fewest_trials": max(trials.effective, levels.fewest_trials)})
    rows = []
    for number, edge in enumerate(edges):

        def part(done: float, number: int = number) -> None:
            progress((number + done) / len(edges))

        simulated = None
        true = replace(world, annual_sharpe=edge)
        if streams:
            rng = np.random.default_rng([seed, number])
            judged = policy.model_copy(update={"evidence": counted})
            simulated = simulate_waits(true, judged, streams, 0.0, rng, part).promoted_at_once
        rows.append(_edge_power(true, levels, trials, simulated))
    return WindowPower(window, world.record_years, trials.effective, streams, tuple(rows))


def _edge_power(
    world: World, levels: EvidenceLevels, trials: TrialCount, simulated: Estimate | None
) -> EdgePower:
    yearly = world.bars_per_year
    bars = max(round(world.record_years * yearly), 2)
    sharpe = world.annual_sharpe / math.sqrt(yearly)
    ideal = TrackRecord(sharpe, 0.0, 3.0, bars, float(bars))
    required = sharpe_to_pass(ideal, trials, levels.min_deflated_sharpe)
    error = math.sqrt((1.0 + sharpe**2 / 2.0) / (bars - 1.0))
    textbook = minimum_track_record_length(ideal, levels.min_deflated_sharpe)
    return EdgePower(
        annual_sharpe=world.annual_sharpe,
        by_evidence=NORMAL.cdf((sharpe - required) / error) if math.isfinite(required) else 0.0,
        by_gate=simulated,
        minimum_years=bars_to_pass(ideal, trials, levels.min_deflated_sharpe) / yearly,
        textbook_years=textbook / yearly,
    )
