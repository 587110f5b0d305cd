"""Who acts, and with what rights."""

from pydantic import BaseModel, ConfigDict, Field

from clm_core.domain.vocabulary import Role


class Actor(BaseModel):
    """A person or a part of the system, as it stands in the audit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    role: Role


SYSTEM = Actor(name="clm", role=Role.OPERATOR)
"""Nobody asked for it at that moment: a job's own steps, a sweep."""
