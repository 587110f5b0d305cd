"""Evolution of training parameters; the candidates are proposals only."""

from prefect import State, flow

from clm_core.domain.evolution import EvolveRequest, EvolveResult
from flows.sequences.evolve import evolve as sequence


@flow(name="evolve", flow_run_name="evolve {request.model_id}")
def evolve(request: EvolveRequest) -> State[EvolveResult]:
    """Breed training parameters, measured out of sample; no model is retrained or promoted.

    Args:
        request: Model, market and rules of the evolution.
    """
    return sequence(request).state()
