"""Who acts, and with what rights."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class Role(StrEnum):
    VIEWER = "viewer"
    """Reads."""
    OPERATOR = "operator"
    """Retrains, promotes what passed its gate, rolls back."""
    ADMIN = "admin"
    """Also forces what the rules refuse."""

    def includes(self, other: "Role") -> bool:
        """Whether it may do all that the other one may."""
        ranks = list(Role)
        return ranks.index(self) >= ranks.index(other)


class Actor(BaseModel):
    """A person or a part of the system, as it stands in the audit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    role: Role


SYSTEM = Actor(name="clm", role=Role.OPERATOR)
"""Nobody asked for it at that moment: a job's own steps, a sweep."""
