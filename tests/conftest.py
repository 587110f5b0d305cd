"""Real servers for the whole session: PostgreSQL, MLflow's store and Prefect, in a folder of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from clm_core.runner import prefect_server, prepare_environment
from clm_core.services import Services, open_services
from clm_core.settings import Settings


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Others may enter: started by root, PostgreSQL runs as a user of its own."""
    folder = tmp_path_factory.mktemp("home")
    for parent in (folder, folder.parent, folder.parent.parent):
        parent.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def services(home: Path) -> Iterator[Services]:
    prepare_environment(home)
    with open_services(Settings(home=home)) as opened:
        yield opened


@pytest.fixture(scope="session")
def prefect_url(services: Services) -> Iterator[str]:
    from prefect.settings import PREFECT_API_URL

    with prefect_server(services.database, services.settings.home) as wait_until_ready:
        wait_until_ready()
        yield str(PREFECT_API_URL.value())
