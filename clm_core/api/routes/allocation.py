"""Allocation (A/B): weights in force, start, end, and reports of the bars that were traded."""

from datetime import timedelta
from typing import Annotated

from fastapi import Query, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from clm_core.api.auth import Caller
from clm_core.api.context import Connected
from clm_core.api.idempotency import Idempotent, json_response
from clm_core.api.parameters import Label, ModelIdInPath, Text
from clm_core.domain.allocations import AllocationRun, AllocationState, ArmWeight, Observed
from clm_core.domain.moments import Moment

MAX_BARS = 10_000
"""Bars of one report."""


class BarArm(BaseModel):
    """Version that trades the position after a bar."""

    bar: AwareDatetime
    """Open time of the bar."""
    version: str | None
    """Null: hold no position."""


class AllocationAnswer(BaseModel):
    model_id: str
    state: AllocationState
    arms: tuple[ArmWeight, ...]
    """Weights to use now, the production version first; all 0 for a halted model."""
    since: AwareDatetime | None
    reasons: tuple[str, ...]
    """Reasons for the weights."""
    allocation: AllocationRun | None
    """Running allocation; null: the production version has everything, or the model is halted."""
    arm: BarArm | None = None
    """Answer for the bar of the query."""


class StartRequest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    candidates: tuple[Label, ...] = Field(
        min_length=1, max_length=20, description="Versions that share the capital with production."
    )
    observed: Observed | None = Field(
        default=None,
        description="Known returns: of every arm (paper) or of the traded arm (fills); default: policy.",
    )
    reason: Text = Field(default="", description="Reason for the audit log; required to force.")
    force: bool = Field(
        default=False, description="Accept versions in shadow that have not passed; takes the role admin."
    )


class ServedBar(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    bar: Moment = Field(description="Open time of the bar after whose close the position was taken.")
    version: Label


class ServedRequest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    bars: tuple[ServedBar, ...] = Field(max_length=MAX_BARS)


class ServedAnswer(BaseModel):
    new: int
    """Number of bars reported for the first time."""


def weights(
    model_id: ModelIdInPath,
    clm: Connected,
    bar: Annotated[
        Moment | None,
        Query(description="Open time of a bar; the answer names its version."),
    ] = None,
) -> AllocationAnswer:
    """Weights to use now for the versions of a model; all 0 while the model is halted."""
    # imported here: the libraries of bars
    from clm_core.market.timeframes import Timeframe
    from clm_core.registry.allocation_in_force import allocation_in_force, arm_for_bar

    now = allocation_in_force(clm.ledger, model_id)
    arm = None
    if bar is not None:
        [version] = clm.ledger.versions(model_id=model_id, limit=1)
        length = timedelta(seconds=Timeframe(version.timeframe).seconds)
        arm = BarArm(bar=bar, version=arm_for_bar(now, bar, length))
    return AllocationAnswer(
        model_id=model_id,
        state=now.state,
        arms=now.arms,
        since=now.since,
        reasons=now.reasons,
        allocation=now.run,
        arm=arm,
    )


def start(
    model_id: ModelIdInPath, body: StartRequest, actor: Caller, clm: Connected, idempotent: Idempotent
) -> Response:
    """Start an allocation: 70 % production and 30 % candidates, then by the returns."""
    # imported here: the libraries of backtests
    from clm_core.lifecycle import allocation

    def change() -> Response:
        run = allocation.start(
            clm, model_id, body.candidates, actor, body.reason, body.observed, force=body.force
        )
        return json_response(run, 201)

    return idempotent(body, change)


def stop(
    model_id: ModelIdInPath,
    actor: Caller,
    clm: Connected,
    reason: Annotated[str, Query(min_length=1, max_length=2000, description="Reason for the audit log.")],
) -> AllocationRun:
    """End the running allocation of a model: the production version has the whole capital."""
    from clm_core.lifecycle import allocation

    return allocation.stop(clm, model_id, actor, reason)


def report_served(
    model_id: ModelIdInPath, body: ServedRequest, actor: Caller, clm: Connected
) -> ServedAnswer:
    """Report the versions that were traded after each bar, for the daily comparison with the weights."""
    from clm_core.lifecycle import allocation

    arms = {each.bar: each.version for each in body.bars}
    return ServedAnswer(new=allocation.report_served(clm, model_id, arms, actor))
