"""Promotion of versions that pass the thresholds and carry no further evidence."""

from dataclasses import replace
from datetime import datetime
from typing import Any

from clm_core.decisions.gate_policy import load_document
from clm_core.domain.actors import Actor
from clm_core.domain.promotions import Judge, Promotion
from clm_core.retraining.judging import rejudge
from clm_core.services import Services

_SHIPPED = load_document(preset="thresholds-only")
_AT_ANY_AGE = _SHIPPED.presets["thresholds-only"].model_copy(update={"verdict_days": 3650.0})
THRESHOLDS_ALONE = _SHIPPED.model_copy(update={"presets": {"thresholds-only": _AT_ANY_AGE}})
"""Policy without evidence, for verdicts of any age."""


def by_thresholds(services: Services) -> Services:
    """The services under a policy without evidence."""
    return replace(services, policies=THRESHOLDS_ALONE)


def judge(services: Services, now: datetime) -> Judge:
    """Judge by thresholds alone."""
    judging = by_thresholds(services)
    return lambda version: rejudge(judging, version, now)


def promote(
    services: Services, model_id: str, label: str, actor: Actor, reason: str, now: datetime, **options: Any
) -> Promotion:
    """Promotion judged by thresholds alone."""
    return services.promotions.promote(model_id, label, actor, reason, now, judge(services, now), **options)
