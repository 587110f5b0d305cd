"""Runs of flows at the request of a person: a pass at once, or a search."""

from uuid import UUID

from pydantic import BaseModel, ConfigDict


class RequestedRun(BaseModel):
    """A run created for a worker."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: UUID
    """Id of the run in Prefect."""
    flow: str
    """`watch`, `shadow`, `tune`, `evolve`, `evolve-strategies`, `replay`."""
    name: str
    """Prefect's name of the run until the run starts."""
    search: str | None = None
    """Name of the study, evolution or search, for the continuation; None for a pass."""
    page: str | None = None
    """Address of the run's page in Prefect; None where the address of the pages is unknown."""
