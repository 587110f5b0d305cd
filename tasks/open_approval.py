from clm_core.domain.approvals import WaitingApproval
from clm_core.lifecycle import approvals
from clm_core.services import services
from tasks.step import step


@step()
def open_approval(model_id: str, version: str, champion: str | None) -> WaitingApproval | None:
    """None if the version does not wait for an approval to replace this champion."""
    waiting = approvals.waiting_for(services(), model_id, version)
    return waiting if waiting is not None and waiting.champion == champion else None
