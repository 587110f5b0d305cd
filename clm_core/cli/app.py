"""Command line `clm`; commands import heavy libraries themselves, so that `clm --help` is fast."""

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from clm_core.cli import (
    ab,
    approvals,
    attribution,
    audit,
    backup,
    candidates,
    compare,
    configuration,
    data,
    db,
    deliveries,
    drift,
    evolve,
    explain,
    features,
    fills,
    gate,
    maintenance,
    paper,
    promotion,
    prune,
    regimes,
    registry,
    replay,
    restoration,
    retrain,
    shadow,
    stack,
    storage,
    tokens,
    triggers,
    tune,
    versions,
    watch,
)
from clm_core.cli.command_groups import CommandGroups, keep_sentences_whole
from clm_core.cli.exit_codes import ExitCode
from clm_core.cli.renamed import show_deprecations
from clm_core.cli.settings_in_force import settings_for_look
from clm_core.domain.errors import CLMError
from clm_core.market import feature_files
from clm_core.platform.garbage_collection import YOUNG_OBJECTS_OF_A_COMMAND, collect_garbage_rarely
from clm_core.platform.interpreter import ONE_BLAS_THREAD
from clm_core.platform.private_files import keep_files_private

app = typer.Typer(
    cls=CommandGroups,
    help="Continuous Learning Manager: retrain, judge and promote trading models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich help takes longer to import than all else that help needs
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
app.add_typer(configuration.app)
app.add_typer(retrain.app)
app.add_typer(versions.app)
app.add_typer(data.app, name="data")
app.add_typer(audit.app, name="audit")
app.add_typer(db.app, name="db")
app.add_typer(deliveries.app, name="deliveries")
app.add_typer(features.app, name="features")
app.add_typer(gate.app, name="gate")
app.add_typer(tokens.app, name="tokens")
app.add_typer(registry.app)
app.add_typer(promotion.app)
app.add_typer(restoration.app)
app.add_typer(backup.app)
app.add_typer(prune.app)
app.add_typer(storage.app, name="storage")
app.add_typer(triggers.app)
app.add_typer(tune.app)
app.add_typer(evolve.app)
app.add_typer(candidates.app, name="candidates")
app.add_typer(stack.app)
app.add_typer(maintenance.app)
app.add_typer(watch.app)
app.add_typer(drift.app)
app.add_typer(explain.app)
app.add_typer(compare.app)
app.add_typer(replay.app)
app.add_typer(regimes.app)
app.add_typer(shadow.app)
app.add_typer(approvals.app)
app.add_typer(ab.app, name="ab")
app.add_typer(paper.app)
app.add_typer(fills.app)
app.add_typer(attribution.app)
keep_sentences_whole(app)

DISTRIBUTION = "continuous-learning-manager"


def _print_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        typer.echo(version(DISTRIBUTION))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version, and exit."
        ),
    ] = False,
) -> None:
    """Continuous Learning Manager: retrain, judge and promote trading models."""


def main() -> None:
    """Entry point of `clm`: prints errors and warnings of CLM as messages without tracebacks."""
    collect_garbage_rarely(YOUNG_OBJECTS_OF_A_COMMAND)
    # the user's own number of threads stays
    os.environ |= ONE_BLAS_THREAD | os.environ
    users_umask = keep_files_private()
    show_deprecations()
    # commands check parameters before they open the home
    feature_files.use_files_of(_feature_files)
    try:
        app(obj=users_umask)
    except CLMError as error:
        Console(stderr=True).print(Text("Error: ", style="red"), error, sep="", markup=False, soft_wrap=True)
        sys.exit(ExitCode.FAILED)


def _feature_files() -> tuple[Path, ...]:
    from clm_core.settings import load_settings

    return load_settings().features.files


@app.command(name="exec", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def exec_(context: typer.Context) -> None:
    """Run a command with the environment of CLM's database and servers: `clm exec -- mlflow server`."""
    import subprocess

    from clm_core.platform.bucket import variables_of_mlflow
    from clm_core.platform.database import open_database
    from clm_core.platform.stack_state import prefect_environment, running
    from clm_core.registry.mlflow_webhooks import webhook_variables
    from clm_core.services import settle_home

    if not context.args:
        raise typer.BadParameter("name a command: clm exec -- python trader.py")
    settings = settings_for_look()
    with open_database(settings.home, settings.database_url) as database:
        settle_home(settings.home, database)
        state = running(settings.home)
        uri = database.url("mlflow", driver="psycopg")
        own_programs = str(Path(sys.executable).parent)
        # variables of the user win: the program may use another account as well
        environment = (
            variables_of_mlflow(settings.storage)
            | webhook_variables(settings.home)
            | os.environ
            | {
                "PATH": os.pathsep.join([own_programs, os.environ.get("PATH", os.defpath)]),
                "MLFLOW_TRACKING_URI": uri,
                "MLFLOW_BACKEND_STORE_URI": uri,
                "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                "PREFECT_DEFAULT_WORK_POOL_NAME": settings.deploy.work_pool,
                **(prefect_environment(settings.home, state) if state else {}),
            }
        )
        program = shutil.which(context.args[0], path=environment["PATH"])
        if program is None:
            raise typer.BadParameter(f"there is no command {context.args[0]}")
        # files of the user's own program have the modes that the user is used to
        umask = -1 if context.obj is None else context.obj
        done = subprocess.run([program, *context.args[1:]], env=environment, check=False, umask=umask)
        sys.exit(done.returncode)
