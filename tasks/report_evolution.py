from clm_core.domain.evolution import EvolveResult
from clm_core.search.evolution import Evolution
from clm_core.search.evolution_report import write_report
from clm_core.services import services
from tasks.step import step


@step("report {evolution.name}")
def report_evolution(evolution: Evolution, result: EvolveResult) -> EvolveResult:
    return write_report(services().reports, evolution, result)
