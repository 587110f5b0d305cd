"""Hourly evaluation of the candidates that wait."""

from prefect import State, flow
from prefect.states import Completed

from clm_core.lifecycle.candidates import CandidateReport
from clm_core.operations.passes import run_name
from tasks.evaluate_candidates import evaluate_candidates
from tasks.show_pass import show_pass


@flow(name="candidates", flow_run_name=run_name("candidates"))
def candidates() -> State[CandidateReport]:
    """Evaluate the oldest candidates; fails after the pass if one could not be evaluated for now."""
    report = evaluate_candidates()
    if report.evaluated or report.answers:
        show_pass(report, "candidates")
    return Completed(message=report.complete().headline, data=report)
