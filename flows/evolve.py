"""Generations of training parameters, of which the best are proposed."""

from prefect import flow

from clm_core.domain.evolution import EvolveRequest, EvolveResult
from tasks.evolve import evolve as breed
from tasks.open_evolution import open_evolution
from tasks.show_evolution import show_evolution


@flow(name="evolve", flow_run_name="evolve {request.model_id}")
def evolve(request: EvolveRequest) -> EvolveResult:
    """Breed training parameters, measured out of sample; nothing is retrained or promoted by it.

    Args:
        request: What is to be evolved.
    """
    evolution = open_evolution(request)
    found = breed(evolution, request.workers)
    show_evolution(found)
    return found
