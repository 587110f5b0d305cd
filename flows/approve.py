"""Approval of a promotion: the run is suspended until a person answers on the page of the run."""

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.states import Completed
from pydantic import Field

from tasks.carry_out_answer import carry_out_answer
from tasks.open_approval import open_approval


class ApprovalForm(RunInput):
    """Form on the page of the run."""

    approve: bool = Field(title="Approve", description="Checked: promote. Unchecked: refuse and retire.")
    reason: str = Field(
        default="", max_length=2000, description="Reason for the audit log; required to refuse."
    )
    name: str = Field(min_length=1, max_length=200, description="Name of the person, for the audit log.")


@flow(name="approve", flow_run_name="approve {model_id}@{version}")
def approve(model_id: str, version: str, champion: str | None = None) -> State[None]:
    """Ask a person about a promotion earned in shadow, and carry the answer out.

    Args:
        model_id: Model.
        version: Label of the version that waits.
        champion: Production version that the promotion replaces; empty: no version serves.
    """
    waiting = open_approval(model_id, version, champion)
    if waiting is None:
        return Completed(message="The version waits for no approval any more: see `clm show`.")
    # the process ends here; resumed, the flow begins anew and gets the answer
    form = ApprovalForm.with_initial_data(description=waiting.question)
    answer = suspend_flow_run(wait_for_input=form, key="answer")
    return Completed(message=carry_out_answer(waiting, answer.approve, answer.reason, answer.name))
