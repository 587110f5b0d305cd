"""Actors: people and parts of the system, with their roles."""

from pydantic import BaseModel, ConfigDict, Field

from clm_core.domain.vocabulary import Role


class Actor(BaseModel):
    """A person or a part of the system, as named in the audit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    role: Role


SYSTEM = Actor(name="clm", role=Role.OPERATOR)
"""Actor of the changes without a direct request: a job's own steps, scheduled maintenance."""
WATCH = Actor(name="watch", role=Role.OPERATOR)
"""Actor of the retrains that the watch requests."""
FORM = Actor(name="prefect", role=Role.OPERATOR)
"""Actor of answers on a run's page in Prefect and of requests from a deployment's form: Prefect knows no
accounts, and the name typed there is recorded beside."""
EVOLUTION = Actor(name="evolution", role=Role.OPERATOR)
"""Actor of the retrains requested with the parameters of a better variant."""
PROTECTION = Actor(name="protection", role=Role.OPERATOR)
"""Actor of the rollbacks and halts of a production version that disappoints."""
AUTOMATIC = (SYSTEM, WATCH, EVOLUTION, PROTECTION)
"""Actors that are parts of this system."""
