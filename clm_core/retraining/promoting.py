"""Promotion of a version: the stored evidence is judged anew, under the lock of the model."""

from typing import Any

from clm_core.domain.actors import Actor
from clm_core.domain.promotions import Promotion
from clm_core.registry.promotion import Promotions
from clm_core.retraining.judging import rejudge
from clm_core.services import Services


def promote(
    services: Services, model_id: str, label: str, actor: Actor, reason: str, **options: Any
) -> Promotion:
    """Promote a version whose stored evidence passes the gate under what is in force now.

    Args:
        options: further arguments of `Promotions.promote`.

    Raises:
        NotAllowed, ConflictError, PromotionRefused, BundleCorrupt, RegistryUnavailable: as for
            `Promotions.promote`.
    """
    now = services.clock()
    promotions: Promotions = services.promotions
    return promotions.promote(
        model_id, label, actor, reason, now, lambda version: rejudge(services, version, now), **options
    )
