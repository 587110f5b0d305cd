"""Tuning: a search for better training parameters."""

from prefect import State, flow
from prefect.states import Completed

from clm_core.domain.tuning import TuneRequest, TuneResult
from clm_core.platform.prefect_runs import SEARCH_TAG
from clm_core.search.tuning_report import headline
from tasks.open_tuning import open_tuning
from tasks.report_tuning import report_tuning
from tasks.show_tuning import show_tuning
from tasks.tag_run import tag_run
from tasks.tune import search


@flow(name="tune", flow_run_name="tune {request.model_id}")
def tune(request: TuneRequest) -> State[TuneResult]:
    """Evaluate sets of training parameters out of sample; every trial is counted in the trial ledger.

    Args:
        request: Model, market and limits of the tuning.
    """
    tag_run(SEARCH_TAG, request.model_id, str(request.kind), "tune")
    tuning = open_tuning(request)
    result = search(tuning, request)
    reported = report_tuning(tuning, result)
    show_tuning(reported)
    return Completed(message=headline(reported), data=reported)
