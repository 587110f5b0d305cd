"""Queries for lists that are read page by page."""

import contextlib
import hashlib
import math
import re
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from clm_core.domain.evaluations import EvaluationResult, IntervalEstimate
from clm_core.domain.moments import Bound
from clm_core.domain.spellings import NOT_EMPTY, TimeframeName
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
MAX_ITEMS = 1000
"""Maximum number of items on a page."""


class Page(BaseModel, Generic[Item]):
    model_config = ConfigDict(frozen=True, extra="forbid")

    items: tuple[Item, ...]
    next: str | None
    """Cursor of the following page; None on the last page."""


class Listing(BaseModel):
    """Filters and order shared by all lists; a filter with the value None is off."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    since: Bound | None = None
    """Earliest creation time, inclusive."""
    until: Bound | None = None
    """Latest creation time, exclusive."""
    descending: bool = True
    limit: int = Field(default=50, ge=1, le=MAX_ITEMS)
    after: str | None = Field(default=None, json_schema_extra=NOT_EMPTY)
    """`next` of the preceding page of the same list; None: the first page.

    A page begins where the preceding page ended, whatever was added meanwhile. An item that changes place
    between two pages may appear twice or not at all."""

    @property
    def fingerprint(self) -> str:
        """Hash of the filters and the order, equal for all pages of a list."""
        definition = f"{type(self).__name__} {self.model_dump_json(exclude={'limit', 'after'})}"
        return hashlib.sha256(definition.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class MetricCondition:
    """Condition on a validation metric of a version."""

    name: str
    comparison: str
    """One of >, >=, < and <=."""
    limit: float

    @classmethod
    def of(cls, text: str) -> "MetricCondition":
        """Condition from text such as `brier_skill_low>0`.

        Raises:
            ValueError: the text is no condition.
        """
        parts = re.fullmatch(r"\s*([a-z][a-z0-9_]{0,60})\s*(>=|<=|>|<)\s*(\S+)\s*", text)
        limit = _number(parts[3]) if parts else None
        if parts is None or limit is None:
            raise ValueError(f"{text!r} is no condition: write brier_skill_low>0 or trades>=50")
        return cls(parts[1], parts[2], limit)

    @property
    def json_path(self) -> str:
        """The condition in the path language of SQL/JSON."""
        return f'$."{self.name}" {self.comparison} {self.limit!r}'


def _number(text: str) -> float | None:
    """Finite number from text; None for other text."""
    with contextlib.suppress(ValueError):
        number = float(text)
        return number if math.isfinite(number) else None
    return None


def _condition(text: str) -> str:
    MetricCondition.of(text)
    return text


MetricText = Annotated[str, AfterValidator(_condition)]
"""Condition on a validation metric as text: name, one of >, >=, < and <=, and a number."""


class JobQuery(Listing):
    """Training jobs by creation time."""

    model_id: str | None = None
    status: JobStatus | None = None


class VersionQuery(Listing):
    """Versions, with the results of the newest evaluation; a missing or NaN result ranks lowest."""

    model_id: str | None = None
    model_type: ModelType | None = None
    plugin: str | None = None
    symbol: str | None = Field(default=None, json_schema_extra=NOT_EMPTY)
    """Symbol in any spelling: BTC/USD is BTCUSD."""
    timeframe: TimeframeName | None = None
    status: ModelStatus | None = None
    min_sharpe: float | None = None
    """Minimum Sharpe ratio; excludes versions without an evaluation or with NaN."""
    metric: tuple[MetricText, ...] = Field(default=(), max_length=20)
    """Conditions on validation metrics, all of which hold: `brier_skill_low>0`, `trades>=50`; excludes
    versions without the metric."""
    order: VersionOrder = VersionOrder.CREATED_AT


class ListedVersion(BaseModel):
    """A version and the version's newest evaluation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: ModelVersion
    evaluation: EvaluationResult | None
    """None if the version was never judged."""
    sharpe_interval: IntervalEstimate | None = None
    """Annualised Sharpe ratio with its interval of 95 %; None for a verdict before intervals were stored."""


class CandidateQuery(Listing):
    """Strategy candidates; a candidate without a score ranks lowest."""

    base_strategy: str | None = None
    model_type: ModelType | None = None
    plugin: str | None = None
    symbol: str | None = Field(default=None, json_schema_extra=NOT_EMPTY)
    """Symbol in any spelling: BTC/USD is BTCUSD."""
    timeframe: TimeframeName | None = None
    origin: CandidateOrigin | None = None
    min_fitness: float | None = None
    awaits_evaluation: bool | None = None
    """True for candidates not evaluated yet, False for the others."""
    order: CandidateOrder = CandidateOrder.CREATED_AT
