"""Training parameters: validated before any data is loaded."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from clm_core.domain.errors import InvalidTrainingParams
from clm_core.domain.vocabulary import ModelType


class TrainingParams(BaseModel):
    """Parameters of one kind of model. Text is accepted for every value: "5", "0.1", "true"."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    model_type: ClassVar[ModelType]

    @classmethod
    def parse(cls, params: Mapping[str, Any]) -> Self:
        """
        Raises:
            InvalidTrainingParams: a parameter is unknown or out of range.
        """
        try:
            return cls.model_validate(dict(params))
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise InvalidTrainingParams(
                f"{cls.model_type.value} cannot be trained with these parameters: {problems}. "
                f"Valid parameters: {', '.join(cls.model_fields)}"
            ) from error


def split_commas(value: object) -> object:
    """The names in a text, for a parameter that is a list of them."""
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value
