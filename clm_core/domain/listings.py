"""Lists that are read page by page, and what can be asked of them."""

import hashlib
from typing import Generic, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from clm_core.domain.evaluations import EvaluationResult
from clm_core.domain.versions import ModelVersion
from clm_core.domain.vocabulary import (
    CandidateOrder,
    CandidateOrigin,
    JobStatus,
    ModelStatus,
    ModelType,
    VersionOrder,
)

Item = TypeVar("Item")
MOST_ITEMS = 1000
"""On one page."""


class Page(BaseModel, Generic[Item]):
    model_config = ConfigDict(frozen=True, extra="forbid")

    items: tuple[Item, ...]
    next: str | None
    """Cursor to ask for the page after this one with; None: this is the last."""


class Listing(BaseModel):
    """What every list can be asked; a filter that is None lets everything through."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    since: AwareDatetime | None = None
    """Created then or later."""
    until: AwareDatetime | None = None
    """Created before."""
    descending: bool = True
    limit: int = Field(default=50, ge=1, le=MOST_ITEMS)
    after: str | None = None
    """`next` of the page before, of the same list; None: the first page.

    A page begins where the one before ended, whatever was added meanwhile. What changes its place between
    two pages may be seen twice or not at all."""

    @property
    def fingerprint(self) -> str:
        """Equal for two pages of one list: the same filters in the same order."""
        asked = f"{type(self).__name__} {self.model_dump_json(exclude={'limit', 'after'})}"
        return hashlib.sha256(asked.encode()).hexdigest()[:16]


class JobQuery(Listing):
    """Training jobs by when they were created."""

    model_id: str | None = None
    status: JobStatus | None = None


class VersionQuery(Listing):
    """Versions; figures are those of the newest evaluation, and lowest is what has none or a NaN."""

    model_id: str | None = None
    model_type: ModelType | None = None
    plugin: str | None = None
    symbol: str | None = None
    """As somebody types it: BTC/USD is BTCUSD."""
    timeframe: str | None = None
    status: ModelStatus | None = None
    min_sharpe: float | None = None
    """What was never judged, or has a NaN, has no such Sharpe ratio."""
    order: VersionOrder = VersionOrder.CREATED_AT


class ListedVersion(BaseModel):
    """A version with what its newest evaluation measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: ModelVersion
    evaluation: EvaluationResult | None
    """None: it was never judged."""


class CandidateQuery(Listing):
    """Strategy candidates; those that nobody has scored have the lowest fitness."""

    base_strategy: str | None = None
    model_type: ModelType | None = None
    plugin: str | None = None
    symbol: str | None = None
    """As somebody types it: BTC/USD is BTCUSD."""
    timeframe: str | None = None
    origin: CandidateOrigin | None = None
    min_fitness: float | None = None
    order: CandidateOrder = CandidateOrder.CREATED_AT
