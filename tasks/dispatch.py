from clm_core.services import services
from clm_core.triggers.dispatch import DispatchResult, dispatch_pending
from tasks.step import step


@step()
def dispatch() -> DispatchResult:
    return dispatch_pending(services())
