"""Tuning: a search for better training parameters."""

from prefect import State, flow

from clm_core.domain.tuning import TuneRequest, TuneResult
from flows.sequences.tune import tune as sequence


@flow(name="tune", flow_run_name="tune {request.model_id}")
def tune(request: TuneRequest) -> State[TuneResult]:
    """Evaluate sets of training parameters out of sample; every trial is counted in the trial ledger.

    Args:
        request: Model, market and limits of the tuning.
    """
    return sequence(request).state()
