"""Promotion, rollback and halt of the production version, and retirement of versions."""

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from clm_core.api.auth import Caller
from clm_core.api.context import Connected
from clm_core.api.idempotency import Idempotent, json_response
from clm_core.api.parameters import Label, ModelId, Text
from clm_core.domain.promotions import UNSET, Expected
from clm_core.lifecycle.answered_forms import end_answered_forms


class _Change(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    model_id: ModelId = Field(examples=["xgboost_btcusdt_1h"])
    promoted_by: Text | None = Field(
        default=None,
        description="Requester in the caller's own words; recorded beside the owner of the token.",
    )
    reason: Text = Field(default="", description="Reason for the audit log; required to force.")
    expected_champion: Label | None = Field(
        default=None,
        description="Production version required at the moment; null requires none. Omit to skip the check.",
    )
    force: bool = Field(default=False, description="Overrule the gate for 7 days; takes the role admin.")

    @property
    def expected(self) -> Expected:
        return self.expected_champion if "expected_champion" in self.model_fields_set else UNSET


class PromoteRequest(_Change):
    version: Label = Field(examples=["v20251204_143022"])


class RollbackRequest(_Change):
    to: Label | None = Field(
        default=None, description="Version to go back to; by default the production version before."
    )


class HaltRequest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    model_id: ModelId = Field(examples=["xgboost_btcusdt_1h"])
    reason: Text = Field(min_length=1, description="Reason for the audit log and for the people it pages.")
    promoted_by: Text | None = Field(
        default=None,
        description="Requester in the caller's own words; recorded beside the owner of the token.",
    )
    expected_champion: Label | None = Field(
        default=None, description="Production version required at the moment. Omit to skip the check."
    )


class ConfirmRequest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    model_id: ModelId = Field(examples=["xgboost_btcusdt_1h"])
    days: int = Field(default=7, ge=1, le=90, description="Days from now.")
    reason: Text = Field(min_length=1, description="Reason for the audit log.")


class RetireRequest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    model_id: ModelId = Field(examples=["xgboost_btcusdt_1h"])
    version: Label = Field(examples=["v20251204_143022"])
    reason: Text = Field(default="", description="Reason for the audit log.")


def promote(body: PromoteRequest, actor: Caller, clm: Connected, idempotent: Idempotent) -> Response:
    """Promote a version to production; its stored evidence is judged anew under the policy, the costs and the
    production version in force. Forcing a version against the gate takes an admin."""
    # imported here: the libraries of backtests
    from clm_core.retraining import promoting

    def change() -> Response:
        done = promoting.promote(
            clm,
            body.model_id,
            body.version,
            actor,
            body.reason,
            expected_champion=body.expected,
            force=body.force,
            said_by=body.promoted_by,
            key=idempotent.key,
        )
        end_answered_forms(clm, body.model_id)
        return json_response(done)

    return idempotent(body, change)


def rollback(body: RollbackRequest, actor: Caller, clm: Connected, idempotent: Idempotent) -> Response:
    """Roll back to the production version before, or to a named earlier version."""

    def change() -> Response:
        done = clm.promotions.rollback(
            body.model_id,
            actor,
            body.reason,
            clm.clock(),
            to=body.to,
            expected_champion=body.expected,
            force=body.force,
            said_by=body.promoted_by,
            key=idempotent.key,
        )
        end_answered_forms(clm, body.model_id)
        return json_response(done)

    return idempotent(body, change)


def halt(body: HaltRequest, actor: Caller, clm: Connected, idempotent: Idempotent) -> Response:
    """Take the production version out of production without another in its place: traders hold no position
    until the next promotion or rollback."""

    def change() -> Response:
        done = clm.promotions.halt(
            body.model_id,
            actor,
            body.reason,
            clm.clock(),
            expected_champion=UNSET if body.expected_champion is None else body.expected_champion,
            said_by=body.promoted_by,
            key=idempotent.key,
        )
        end_answered_forms(clm, body.model_id)
        return json_response(done)

    return idempotent(body, change)


def confirm(body: ConfirmRequest, actor: Caller, clm: Connected, idempotent: Idempotent) -> Response:
    """Extend a forced promotion: the version serves for some days from now, and still counts as forced."""

    def change() -> Response:
        now = clm.clock()
        return json_response(clm.promotions.confirm(body.model_id, body.days, actor, body.reason, now))

    return idempotent(body, change)


def retire(body: RetireRequest, actor: Caller, clm: Connected, idempotent: Idempotent) -> Response:
    """Retire a version that is not in production; a retired version stays retired."""

    def change() -> Response:
        retired = clm.promotions.retire(body.model_id, body.version, actor, body.reason, clm.clock())
        end_answered_forms(clm, body.model_id)
        return json_response(retired)

    return idempotent(body, change)
