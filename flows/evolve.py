"""Evolution of training parameters; the candidates are proposals only."""

from prefect import State, flow
from prefect.states import Completed

from clm_core.domain.evolution import EvolveRequest, EvolveResult
from clm_core.platform.prefect_runs import SEARCH_TAG
from clm_core.search.evolution_report import headline
from tasks.evolve import evolve as breed
from tasks.open_evolution import open_evolution
from tasks.report_evolution import report_evolution
from tasks.show_evolution import show_evolution
from tasks.tag_run import tag_run


@flow(name="evolve", flow_run_name="evolve {request.model_id}")
def evolve(request: EvolveRequest) -> State[EvolveResult]:
    """Breed training parameters, measured out of sample; no model is retrained or promoted.

    Args:
        request: Model, market and rules of the evolution.
    """
    tag_run(SEARCH_TAG, request.model_id, str(request.kind), "evolve")
    evolution = open_evolution(request)
    result = report_evolution(evolution, breed(evolution, request.placement))
    show_evolution(result)
    return Completed(message=headline(result), data=result)
