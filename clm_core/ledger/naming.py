"""Names of versions, as typed by people."""

from clm_core.domain.errors import NotFound
from clm_core.domain.versions import ModelVersion
from clm_core.ledger.store import Ledger

PRODUCTION = "production"
"""Label that stands for the version in production."""


def find_version(ledger: Ledger, name: str) -> ModelVersion:
    """Version by `model_id@label`, by `model_id@production`, by a label unique among models, or the newest
    version of a model id.

    Raises:
        NotFound: no version has the name, several have it, or none is in production.
    """
    model_id, separator, label = name.rpartition("@")
    if separator:
        return ledger.version(model_id, _produced(ledger, model_id) if label == PRODUCTION else label)
    versions = ledger.versions(label=name) or ledger.versions(model_id=name, limit=1)
    if not versions:
        raise NotFound(f"There is no version or model {name}. `clm models` lists them.")
    if len(versions) > 1:
        names = ", ".join(f"{version.model_id}@{version.version}" for version in versions)
        raise NotFound(f"{name} could be any of {names}: use MODEL@VERSION.")
    return versions[0]


def _produced(ledger: Ledger, model_id: str) -> str:
    """Label of the production version of a model."""
    label = ledger.promotions.champion(model_id)
    if label is None:
        raise NotFound(f"No version of {model_id} is in production: `clm promote` promotes a version.")
    return label
