from prefect import task
from prefect.cache_policies import NO_CACHE

from clm_core.domain.searches import Tuning
from clm_core.domain.tuning import TuneResult
from clm_core.search.tuning_report import write_report
from clm_core.services import services


@task(cache_policy=NO_CACHE, task_run_name="report {tuning.name}")
def report_tuning(tuning: Tuning, result: TuneResult) -> TuneResult:
    return write_report(services().database, services().reports, tuning, result)
