"""A tuning, step by step: a search for better training parameters."""

from clm_core.domain.tuning import TuneRequest, TuneResult
from clm_core.platform.prefect_runs import SEARCH_TAG
from clm_core.search.tuning_report import headline
from flows.sequences.ended import Ended
from tasks.open_tuning import open_tuning
from tasks.report_tuning import report_tuning
from tasks.show_tuning import show_tuning
from tasks.tag_run import tag_run
from tasks.tune import search


def tune(request: TuneRequest) -> Ended[TuneResult]:
    tag_run(SEARCH_TAG, request.model_id, str(request.kind), "tune")
    tuning = open_tuning(request)
    result = search(tuning, request)
    reported = report_tuning(tuning, result)
    show_tuning(reported)
    return Ended(headline(reported), reported)
