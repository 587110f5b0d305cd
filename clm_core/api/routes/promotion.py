"""What serves, and how that changes."""

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from clm_core.api.auth import Caller
from clm_core.api.context import Connected
from clm_core.api.once import DoneOnce, written
from clm_core.api.parameters import Label, ModelId, Text
from clm_core.domain.promotions import UNSET, Expected


class _Change(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    model_id: ModelId = Field(examples=["xgboost_btcusdt_1h"])
    promoted_by: Text | None = Field(
        default=None, description="Who wants it, as you say; recorded beside whose token it is."
    )
    reason: Text = Field(default="", description="Why; kept for ever. Forcing needs one.")
    expected_champion: Label | None = Field(
        default=None,
        description="Only if this version serves now; null: only if none does. Left out, it doesn't matter.",
    )
    force: bool = Field(default=False, description="An admin overrules the gate for 7 days.")

    @property
    def expected(self) -> Expected:
        return self.expected_champion if "expected_champion" in self.model_fields_set else UNSET


class PromoteRequest(_Change):
    version: Label = Field(examples=["v20251204_143022"])


class RollbackRequest(_Change):
    to: Label | None = Field(default=None, description="An earlier one than the one that served before.")


def promote(asked: PromoteRequest, actor: Caller, clm: Connected, once: DoneOnce) -> Response:
    """Let a version serve that passed its gate; forcing one that didn't is an admin's."""

    def work() -> Response:
        done = clm.promotions.promote(
            asked.model_id,
            asked.version,
            actor,
            asked.reason,
            clm.clock(),
            expected_champion=asked.expected,
            force=asked.force,
            said_by=asked.promoted_by,
        )
        return written(done)

    return once(asked, work)


def rollback(asked: RollbackRequest, actor: Caller, clm: Connected, once: DoneOnce) -> Response:
    """Let the version serve again that served before, or a named earlier one."""

    def work() -> Response:
        done = clm.promotions.rollback(
            asked.model_id,
            actor,
            asked.reason,
            clm.clock(),
            to=asked.to,
            expected_champion=asked.expected,
            force=asked.force,
            said_by=asked.promoted_by,
        )
        return written(done)

    return once(asked, work)
