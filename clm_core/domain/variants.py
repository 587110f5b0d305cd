"""Variants proposed for a weak production version, measured beside the version's own parameters."""

from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict

from clm_core.domain.searches import Search


class ProposedVariants(BaseModel):
    """Candidates proposed for a production version, from the finding of the watch to the answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: UUID
    model_id: str
    version: str
    because: str
    """Finding of the watch in words."""
    search: Search
    """Definition of the search that measures all candidates alike."""
    candidates: tuple[UUID, ...]
    """The version's own parameters, followed by the variants."""
    opened_at: AwareDatetime
    ended_at: AwareDatetime | None = None
    outcome: str | None = None
    """Answer in words: the requested retrain, or why none was requested. None while candidates wait."""
    job_id: UUID | None = None
    """Job of the requested retrain, if any."""

    @property
    def own(self) -> UUID:
        """Candidate with the version's own parameters."""
        return self.candidates[0]
