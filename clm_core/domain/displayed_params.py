"""Training parameters for display."""

from collections.abc import Mapping
from typing import Any

from clm_core.domain.recipes import EXECUTION, SIZING
from clm_core.domain.vocabulary import ModelType


def readable(model_type: ModelType, params: Mapping[str, Any]) -> dict[str, Any]:
    """Training parameters of any kind for display: members by name, values of sections by both names."""
    sections = (SIZING, EXECUTION)
    displayed = {name: value for name, value in params.items() if name.partition(".")[0] not in sections}
    if model_type is ModelType.ENSEMBLE and not isinstance(displayed.get("members", ""), str):
        displayed["members"] = ", ".join(map(_member_name, displayed["members"]))
    for section in sections:
        match params.get(section):
            case None:
                pass
            case Mapping() as values:
                displayed |= {f"{section}.{name}": value for name, value in values.items()}
            case text:
                displayed[section] = text
    return displayed


def _member_name(member: str | Mapping[str, Any]) -> str:
    return member if isinstance(member, str) else f"{member['model_id']}@{member['version']}"
