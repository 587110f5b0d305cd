"""Approvals: promotions earned in shadow that wait for the answer of a person."""

from typing import Self

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from clm_core.api.auth import Caller
from clm_core.api.context import Connected
from clm_core.api.idempotency import Idempotent, json_response
from clm_core.api.parameters import Label, ModelIdInPath, Text
from clm_core.domain.approvals import WaitingApproval
from clm_core.domain.promotions import UNSET


class ApprovalRequest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Label = Field(examples=["v20251204_143022"])
    approve: bool = Field(description="true: promote; false: refuse, and retire the version.")
    reason: Text = Field(default="", description="Reason for the audit log; required to refuse.")
    said_by: Text | None = Field(
        default=None,
        description="Person in the caller's own words; recorded beside the owner of the token.",
    )
    expected_champion: Label | None = Field(
        default=None,
        description="Production version required at the moment; null requires none. Omit for the version "
        "that the decision compared with.",
    )

    @model_validator(mode="after")
    def _refuses_with_a_reason(self) -> Self:
        if not self.approve and not self.reason.strip():
            raise ValueError("a refusal needs a reason for the audit")
        return self


def list_approvals(clm: Connected) -> list[WaitingApproval]:
    """Promotions that wait for an approval, with reasons, since when and until when."""
    # imported here: the libraries of backtests
    from clm_core.lifecycle import approvals

    return approvals.all_waiting(clm)


def decide(
    model_id: ModelIdInPath, body: ApprovalRequest, actor: Caller, clm: Connected, idempotent: Idempotent
) -> Response:
    """Approve or refuse a promotion that waits; the waiting run in Prefect ends, at the latest with the next
    shadow pass."""
    from clm_core.lifecycle import approvals

    def change() -> Response:
        answered = approvals.answer(
            clm,
            model_id,
            body.version,
            body.approve,
            body.reason,
            actor,
            expected_champion=(
                body.expected_champion if "expected_champion" in body.model_fields_set else UNSET
            ),
            said_by=body.said_by,
            key=idempotent.key,
        )
        approvals.keep_forms(clm)
        return json_response(answered)

    return idempotent(body, change)
