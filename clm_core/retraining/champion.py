"""Champion of a model as a new version is compared with it: loaded once for every comparison of a verdict.

A lost bundle is trained again to the same bytes. Where training again gives other bytes, no other model
stands in: the comparisons are missing evidence with a reason, and no version passes the gate without them.
"""

from clm_core.domain.errors import CLMError
from clm_core.domain.versions import ModelVersion
from clm_core.retraining.results import ChampionModel
from clm_core.retraining.trained_again import recovered
from clm_core.services import Services


def champion_of(services: Services, version: ModelVersion) -> ChampionModel | None:
    """Champion to compare a version with; None without another version in production.

    Raises:
        RegistryUnavailable: MLflow does not answer.
    """
    label = services.ledger.promotions.champion(version.model_id)
    if label is None or label == version.version:
        return None
    production = services.ledger.version(version.model_id, label)
    try:
        recovery = recovered(services, production)
    except CLMError as error:
        # an outage passes, and the retrain can be repeated
        services.registry.require_reachable()
        return ChampionModel(production, None, problem=str(error))
    return ChampionModel(production, recovery.model, remark=recovery.lost)
