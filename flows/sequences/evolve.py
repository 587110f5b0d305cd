"""An evolution of training parameters, step by step."""

from clm_core.domain.evolution import EvolveRequest, EvolveResult
from clm_core.platform.prefect_runs import SEARCH_TAG
from clm_core.search.evolution_report import headline
from flows.sequences.ended import Ended
from tasks.evolve import evolve as breed
from tasks.open_evolution import open_evolution
from tasks.report_evolution import report_evolution
from tasks.show_evolution import show_evolution
from tasks.tag_run import tag_run


def evolve(request: EvolveRequest) -> Ended[EvolveResult]:
    tag_run(SEARCH_TAG, request.model_id, str(request.kind), "evolve")
    evolution = open_evolution(request)
    result = report_evolution(evolution, breed(evolution, request.placement))
    show_evolution(result)
    return Ended(headline(result), result)
