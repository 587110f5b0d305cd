"""Tuning: a search for better training parameters."""

from prefect import flow

from clm_core.domain.tuning import TuneRequest, TuneResult
from tasks.open_tuning import open_tuning
from tasks.report_tuning import report_tuning
from tasks.show_tuning import show_tuning
from tasks.tune import search


@flow(name="tune", flow_run_name="tune {request.model_id}")
def tune(request: TuneRequest) -> TuneResult:
    """Evaluate sets of training parameters out of sample; every trial is counted in the trial ledger.

    Args:
        request: Model, market and limits of the tuning.
    """
    tuning = open_tuning(request)
    result = search(tuning, request)
    reported = report_tuning(tuning, result)
    show_tuning(reported)
    return reported
