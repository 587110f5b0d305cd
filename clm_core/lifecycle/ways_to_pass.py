"""Changes of the evidence that would let a judged version pass."""

from datetime import timedelta

from clm_core.decisions.explanation import Proof, changes_to_pass
from clm_core.domain.evaluations import Verdict
from clm_core.domain.versions import ModelVersion
from clm_core.ledger.store import Ledger
from clm_core.market.timeframes import Timeframe
from clm_core.retraining.case import proof_of


def time_of_bar(version: ModelVersion, verdict: Verdict) -> timedelta:
    """Time that one bar takes on average, closing times of the market included."""
    if verdict.luck is not None:
        # a market that closes has fewer bars than the clock
        return timedelta(days=365) / verdict.luck.bars_per_year
    return timedelta(seconds=Timeframe(version.timeframe).seconds)


def ways_to_pass(
    ledger: Ledger, version: ModelVersion, verdict: Verdict
) -> tuple[Proof | None, timedelta, list[str]]:
    """Evidence behind a verdict, time of a bar, and a sentence for each change that would let it pass."""
    proof = proof_of(ledger, version, verdict)
    bar = time_of_bar(version, verdict)
    return proof, bar, changes_to_pass(verdict, proof, bar)
