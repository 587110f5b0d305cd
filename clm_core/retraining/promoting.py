"""Promotion of a version: the stored evidence is judged anew, under the lock of the model."""

from clm_core.domain.actors import Actor
from clm_core.domain.promotions import UNSET, Expected, Promotion
from clm_core.registry.promotion import Promotions
from clm_core.retraining.judging import rejudge
from clm_core.services import Services


def promote(
    services: Services,
    model_id: str,
    label: str,
    actor: Actor,
    reason: str,
    expected_champion: Expected = UNSET,
    force: bool = False,
    said_by: str | None = None,
    key: str | None = None,
) -> Promotion:
    """Promote a version whose stored evidence passes the gate under what is in force now.

    The arguments are those of `Promotions.promote`.

    Raises:
        NotAllowed, ConflictError, PromotionRefused, BundleCorrupt, RegistryUnavailable: as for
            `Promotions.promote`.
    """
    now = services.clock()
    promotions: Promotions = services.promotions
    return promotions.promote(
        model_id,
        label,
        actor,
        reason,
        now,
        lambda version: rejudge(services, version, now),
        expected_champion=expected_champion,
        force=force,
        said_by=said_by,
        key=key,
    )
