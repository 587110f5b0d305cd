"""Evolution of training parameters; the candidates are proposals only."""

from prefect import flow

from clm_core.domain.evolution import EvolveRequest, EvolveResult
from tasks.evolve import evolve as breed
from tasks.open_evolution import open_evolution
from tasks.show_evolution import show_evolution


@flow(name="evolve", flow_run_name="evolve {request.model_id}")
def evolve(request: EvolveRequest) -> EvolveResult:
    """Breed training parameters, measured out of sample; no model is retrained or promoted.

    Args:
        request: Model, market and rules of the evolution.
    """
    evolution = open_evolution(request)
    result = breed(evolution, request.placement)
    show_evolution(result)
    return result
