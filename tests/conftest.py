"""Real servers for the whole session: PostgreSQL, MLflow's store and Prefect, in a folder of their own."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis

from clm_core.platform.prefect_runs import prefect_server, prepare_environment
from clm_core.services import Services, open_services
from clm_core.settings import Settings, TrainingSettings

# the same cases in every run, so that a change is never refused for what it did not touch;
# `make chaos` searches anew each time
hypothesis.register_profile("suite", derandomize=True, deadline=None)
hypothesis.register_profile("search", deadline=None, max_examples=1000)
hypothesis.load_profile("suite")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes is begun first: at the end it would keep one processor waiting for the other."""
    items.sort(key=lambda item: item.path.parent.name not in {"deployments", "cli"})


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="clm-tests-"))
    # started by root, PostgreSQL runs as a user of its own, who has to get in
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def services(home: Path) -> Iterator[Services]:
    prepare_environment(home)
    with open_services(
        Settings(home=home, database_url=None, training=TrainingSettings(isolated=False))
    ) as opened:
        yield opened


@pytest.fixture(scope="session")
def prefect_url(services: Services) -> Iterator[str]:
    from prefect.settings import PREFECT_API_URL

    with prefect_server(services.database, services.settings.home) as wait_until_ready:
        wait_until_ready()
        yield str(PREFECT_API_URL.value())
