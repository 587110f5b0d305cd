"""A search for better training parameters."""

from prefect import flow

from clm_core.domain.tuning import TuneRequest, TuneResult
from tasks.open_tuning import open_tuning
from tasks.report_tuning import report_tuning
from tasks.show_tuning import show_tuning
from tasks.tune import search


@flow(name="tune", flow_run_name="tune {request.model_id}")
def tune(request: TuneRequest) -> TuneResult:
    """Try sets of training parameters out of sample; every trial is counted against luck.

    Args:
        request: What is to be tuned.
    """
    tuning = open_tuning(request)
    found = search(tuning, request)
    reported = report_tuning(tuning, found)
    show_tuning(reported)
    return reported
