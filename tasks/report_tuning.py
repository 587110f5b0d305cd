from clm_core.domain.searches import Tuning
from clm_core.domain.tuning import TuneResult
from clm_core.search.tuning_report import write_report
from clm_core.services import services
from tasks.step import step


@step("report {tuning.name}")
def report_tuning(tuning: Tuning, result: TuneResult) -> TuneResult:
    return write_report(services().database, services().reports, tuning, result)
