"""Results of replays kept in a home."""

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from clm_core.domain.replays import ReplayRequest, ReplayResult


class ListedReplay(BaseModel):
    """A kept replay in a list."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Id of the run in Prefect, or the name of the page for a replay in a terminal."""
    at: AwareDatetime
    """End of the replay."""
    digest: str
    """SHA-256 over the digests of all policies, hexadecimal."""
    headlines: tuple[str, ...]
    """A sentence about each policy."""
    request: ReplayRequest


class KeptReplay(ListedReplay):
    """A kept replay with the result."""

    page: str
    """Name of the page among the reports of replays."""
    result: ReplayResult

    @property
    def listed(self) -> ListedReplay:
        return ListedReplay(**{name: getattr(self, name) for name in ListedReplay.model_fields})


class KeptReplays(BaseModel):
    """Kept replays, newest first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    replays: tuple[ListedReplay, ...]
    unread: tuple[str, ...] = Field(
        default=(), description="Names of results by another release, not shown; replay again to have them."
    )
