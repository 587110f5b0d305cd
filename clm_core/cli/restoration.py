"""`clm restore-version`: versions that were deleted in MLflow."""

from typing import TYPE_CHECKING, Annotated

import typer

from clm_core.cli.output import AsJson, print_json
from clm_core.cli.promotion import this_user
from clm_core.cli.settings_in_force import settings_for_repair

if TYPE_CHECKING:
    from clm_core.registry.restoration import RestoredModel, RestoredVersion

app = typer.Typer(rich_markup_mode=None)


@app.command()
def restore_version(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model id, as in `clm models`.")],
    version: Annotated[
        str | None, typer.Argument(metavar="VERSION", help="Version label, as in `clm models`.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every version of the model.")] = False,
    reason: Annotated[str, typer.Option(help="Reason for the audit log.")] = "deleted in MLflow",
    as_json: AsJson = False,
) -> None:
    """Register a version deleted in MLflow again, from its files; a lost production version serves again.

    The files are compared with the ledger's digests first. Missing aliases, tags, runs and the experiment are
    put back too. The command can be interrupted and repeated.
    """
    from clm_core.domain.errors import FilesLost
    from clm_core.registry.restoration import Restorations
    from clm_core.services import open_services

    if (version is None) is not every:
        raise typer.BadParameter("name one version or --all: clm restore-version MODEL VERSION")
    with open_services(settings_for_repair()) as services:
        restored = Restorations(services.promotions).restore(
            model, version, this_user(), reason, services.clock()
        )
    if as_json:
        print_json(_as_json(restored))
    else:
        for each in restored.versions:
            typer.echo(_sentence(each))
        typer.echo(_production(model, restored))
    if restored.problems:
        raise FilesLost("\n".join(restored.problems))


def _sentence(each: "RestoredVersion") -> str:
    version = each.version
    name = f"{version.model_id} {version.version}"
    if not each.restored:
        return f"{name} is complete in MLflow: nothing to restore."
    former = "" if each.former_number == version.mlflow_version else f", formerly {each.former_number}"
    return f"{name} is MLflow version {version.mlflow_version}{former}; put back: {', '.join(each.restored)}."


def _production(model_id: str, restored: "RestoredModel") -> str:
    if restored.returned is not None:
        return f"{model_id}: {restored.returned.to_version} is in production again."
    if restored.champion is None:
        return f"{model_id}: no version is in production."
    return f"{model_id}: {restored.champion} is in production, as before."


def _as_json(restored: "RestoredModel") -> dict[str, object]:
    return {
        "versions": [
            {
                "version": each.version.model_dump(mode="json"),
                "former_number": each.former_number,
                "restored": list(each.restored),
            }
            for each in restored.versions
        ],
        "returned": restored.returned and restored.returned.model_dump(mode="json"),
        "champion": restored.champion,
        "problems": list(restored.problems),
    }
