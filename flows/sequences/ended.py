"""End of a sequence of steps."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from prefect import State

R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True)
class Ended(Generic[R_co]):
    """Result of a sequence, with a sentence for the list of runs."""

    message: str
    data: R_co

    def state(self) -> "State[R_co]":
        """State of the flow run."""
        from prefect.states import Completed

        return Completed(message=self.message, data=self.data)
