"""How a version is named on the command line."""

from typing import TYPE_CHECKING, Annotated

import typer

from clm_core.domain.errors import NotFound

if TYPE_CHECKING:
    from clm_core.domain.versions import ModelVersion
    from clm_core.services import Services

VersionName = Annotated[
    str,
    typer.Argument(metavar="VERSION", help="xgboost_btcusd_1h@v20251204_143022, its label, or a model id."),
]


def find_version(services: "Services", name: str) -> "ModelVersion":
    """`model_id@label`, a label that only one model has, or a model id for its newest version."""
    model_id, separator, label = name.rpartition("@")
    if separator:
        return services.ledger.version(model_id, label)
    found = services.ledger.versions(label=name) or services.ledger.versions(model_id=name, limit=1)
    if not found:
        raise NotFound(f"There is no version or model {name}. `clm models` lists them.")
    if len(found) > 1:
        names = ", ".join(f"{version.model_id}@{version.version}" for version in found)
        raise NotFound(f"{name} could be any of {names}: say which.")
    return found[0]
