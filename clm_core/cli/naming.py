"""Names of versions on the command line."""

from typing import TYPE_CHECKING, Annotated

import typer

from clm_core.domain.errors import NotFound

if TYPE_CHECKING:
    from clm_core.domain.versions import ModelVersion
    from clm_core.services import Services

VersionName = Annotated[
    str,
    typer.Argument(metavar="VERSION", help="MODEL@VERSION, a version label, or a model id for its newest."),
]


def find_version(services: "Services", name: str) -> "ModelVersion":
    """Version by `model_id@label`, by a label unique among models, or the newest version of a model id."""
    model_id, separator, label = name.rpartition("@")
    if separator:
        return services.ledger.version(model_id, label)
    versions = services.ledger.versions(label=name) or services.ledger.versions(model_id=name, limit=1)
    if not versions:
        raise NotFound(f"There is no version or model {name}. `clm models` lists them.")
    if len(versions) > 1:
        names = ", ".join(f"{version.model_id}@{version.version}" for version in versions)
        raise NotFound(f"{name} could be any of {names}: use MODEL@VERSION.")
    return versions[0]
