"""Replay of the past under the rules of continuous learning."""

from prefect import State, flow

from clm_core.domain.replays import ReplayRequest, ReplayResult
from flows.sequences.replay import replay as sequence


@flow(name="replay", flow_run_name="replay {request.market} {request.start} to {request.end}")
def replay(request: ReplayRequest) -> State[ReplayResult]:
    """Show what continuous learning would have done over a stretch of the past; changes nothing in the home.

    Args:
        request: Model, market or world, days and policies.
    """
    return sequence(request).state()
