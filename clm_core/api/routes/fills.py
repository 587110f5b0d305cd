"""Fills: reports of traders, and the fills of a model beside the paper record."""

from typing import Annotated

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from clm_core.api.auth import Caller
from clm_core.api.context import Connected
from clm_core.api.parameters import ModelIdInPath
from clm_core.domain.fills import MAX_FILLS, Fill, FillPage, FillQuery, FillReceipt


class FillsRequest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    fills: tuple[Fill, ...] = Field(min_length=1, max_length=MAX_FILLS)


def report(body: FillsRequest, actor: Caller, clm: Connected) -> FillReceipt:
    """Report trades; all are recorded, or none. A report sent again changes nothing."""
    # imported here: the libraries of backtests
    from clm_core.lifecycle.fills import report_fills

    return report_fills(clm, body.fills, actor)


def list_fills(model_id: ModelIdInPath, clm: Connected, query: Annotated[FillQuery, Query()]) -> FillPage:
    """Fills of a model with slippage, and realised against paper returns of each market."""
    from clm_core.lifecycle.fills import fills_of

    return fills_of(clm, model_id, query)
