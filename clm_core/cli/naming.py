"""Names of versions on the command line."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from clm_core.domain.versions import ModelVersion
    from clm_core.services import Services

VersionName = Annotated[
    str,
    typer.Argument(
        metavar="VERSION",
        help="MODEL@VERSION, MODEL@production, a version label, or a model id for its newest.",
    ),
]


def find_version(services: "Services", name: str) -> "ModelVersion":
    """Version by its name, see `ledger.naming`."""
    from clm_core.ledger import naming

    return naming.find_version(services.ledger, name)
