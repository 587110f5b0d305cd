from clm_core.domain.evolution import EvolveRequest
from clm_core.search import evolution
from clm_core.services import services
from tasks.step import step


@step("open evolution")
def open_evolution(request: EvolveRequest) -> evolution.Evolution:
    return evolution.open_evolution(services(), request)
