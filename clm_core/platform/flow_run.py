"""Flow run of Prefect around the present call, found without an import of Prefect."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun


def current_run() -> "FlowRun | None":
    """The flow run; None outside of one, as in a command without a Prefect server."""
    # a run has imported the module
    if "prefect.context" not in sys.modules:
        return None
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    return None if context is None else context.flow_run
