"""Comparison of a measured value with a limit; a value that is missing, NaN or infinite fails."""

import math
from collections.abc import Callable

from clm_core.domain import measures
from clm_core.domain.evaluations import Check, CheckKind

Reasoned = tuple[Check, str]
"""A check, and the reason to give should the check fail."""


def at_least(name: str, value: float, limit: float, kind: CheckKind = CheckKind.THRESHOLD) -> Check:
    return _check(kind, name, value, limit, ">=", lambda v: v >= limit, lambda v: v - limit)


def at_most(name: str, value: float, limit: float, kind: CheckKind = CheckKind.THRESHOLD) -> Check:
    return _check(kind, name, value, limit, "<=", lambda v: v <= limit, lambda v: limit - v)


def above(name: str, value: float, limit: float, kind: CheckKind = CheckKind.THRESHOLD) -> Check:
    return _check(kind, name, value, limit, ">", lambda v: v > limit, lambda v: v - limit)


def _check(
    kind: CheckKind,
    name: str,
    value: float,
    limit: float,
    comparison: str,
    holds: Callable[[float], bool],
    margin: Callable[[float], float],
) -> Check:
    usable = is_finite_number(value)
    return Check(
        name=name,
        kind=kind,
        value=float(value) if is_number(value) else math.nan,
        limit=limit,
        comparison=comparison,
        passed=usable and holds(value),
        margin=margin(value) if usable else math.nan,
    )


def is_number(value: object) -> bool:
    """True for Python numbers and NumPy floats; False for NumPy integers, booleans and text."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_finite_number(value: float) -> bool:
    return is_number(value) and math.isfinite(value)


def refusal(check: Check) -> str:
    if not math.isfinite(check.value):
        return f"{check.label} could not be measured"
    requirement = {">=": "below the required", "<=": "above the allowed", ">": "not above"}[check.comparison]
    value = measures.apart(check.name, check.value, check.limit)
    limit = measures.format_of(check.name)(check.limit)
    return f"{check.label} {value}{f' ({check.note})' if check.note else ''} is {requirement} {limit}"
