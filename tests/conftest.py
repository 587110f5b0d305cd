"""Real servers for the whole session: PostgreSQL, MLflow's store and Prefect, in a folder of their own.

Each test process has servers of its own. Their databases are copies of one template, which the first process
makes (`prepared_homes`).
"""

import contextlib
import gc
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.testing
from hypothesis import settings as hypothesis
from memory_folder import use_memory
from prepared_homes import prepare

from clm_core.domain.training_settings import TrainingPlace, TrainingSettings
from clm_core.platform.prefect_server import own_server, prepare_environment
from clm_core.services import Services, open_services
from clm_core.settings import Settings

# the same cases in every run, so that a change is never refused for a part of the code it left alone;
# `make chaos` searches anew each time
hypothesis.register_profile("suite", derandomize=True, deadline=None)
hypothesis.register_profile("search", deadline=None, max_examples=1000)
hypothesis.load_profile("suite")

# a test process calls `clm` by the hundred, and building all of its commands takes 16 ms
typer.testing._get_command = cache(typer.testing._get_command)

# modules and collected tests live until the end: the collector would examine them dozens of times
gc.disable()

MAX_PAUSE_SECONDS = 1.0
GROUPS = {
    # one process imports torch, Lightning and neuralforecast: seconds of processor time each
    "torch": (
        "benchmarks/test_sections.py::test_every_part_is_imported_without_the_peers[reinforcement]",
        "clm_core/explain/test_reliance.py",
        "clm_core/explain/test_attention.py",
        "clm_core/explain/test_blocks.py",
        "clm_core/models/networks",
        "clm_core/models/policies",
        "clm_core/models/test_contract.py",
        "clm_core/models/test_exclusive_torch.py",
        "clm_core/models/test_golden.py",
        "clm_core/models/test_on_gpu.py",
        "clm_core/backtest/test_walk_forward.py",
        "clm_core/retraining/test_own_features.py::test_every_kind_trains",
        "clm_core/retraining/test_own_series.py::test_a_bundle_holds_series",
        "clm_core/search/test_folds.py::test_folds_computed_one_by_one",
        "clm_core/search/test_tuning.py::test_a_gaussian_process",
        "clm_core/search/test_tuning.py::test_a_model_type_is_tuned_over",
        "clm_core/search/test_tuning.py::test_contradictory_parameters",
        "flows/test_every_kind.py",
    ),
    # one process starts a Prefect server, which is busy as long as it lives
    "prefect": (
        "flows",
        "clm_core/api/test_runs.py",
        "clm_core/operations/test_delivery.py",
        "clm_core/operations/test_maintenance.py",
        "clm_core/lifecycle/test_approvals.py",
        "clm_core/lifecycle/test_candidates.py",
        "clm_core/lifecycle/test_shadow.py",
        "clm_core/lifecycle/test_watch.py",
        "clm_core/lifecycle/test_whole_story.py",
        "clm_core/retraining/test_cancellation.py",
        "clm_core/triggers/test_dispatch.py",
        "clm_core/triggers/test_prefect_events.py",
        "deployments/test_deployments.py",
        "deployments/test_maintenance_loop.py",
        "deployments/test_watchdog.py",
    ),
    # one process starts MLflow's servers
    "mlflow": ("clm_core/registry/server",),
    # one process has the parent of the processes to be killed, which retrains a model first
    "killed": (
        "clm_core/api/test_interrupted_requests.py",
        "clm_core/lifecycle/test_allocation_crashes.py",
        "clm_core/lifecycle/test_shadow_decision_crashes.py",
        "clm_core/registry/test_promotion_crashes.py",
        "clm_core/registry/test_restoration.py",
        "clm_core/retraining/test_retraining_crashes.py",
    ),
}
"""Tests that one test process runs one after the other, by beginnings of their ids.

The first group that lists a test has it. Every other file is a group of its own."""
FIRST = (
    # needs a process whose children nobody else waits for
    "clm_core/platform/test_database.py",
    "deployments/test_stack.py",
    "torch",
    "prefect",
    "deployments/test_secrets.py",
    "test_readme.py",
    "test_tutorial.py",
    "mlflow",
    "killed",
    "deployments",
    "clm_core/search",
    "clm_core/registry",
    "clm_core/retraining",
    "clm_core/api/test_description.py",
    "clm_core/lifecycle/test_replay.py",
    "clm_core/test_serving.py",
    "examples",
)
"""Groups that take longest, which are begun first: at the end they would keep one processor waiting."""


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # a shell without job control starts its background jobs so, and tests interrupt processes
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line(
        "markers", "chaos: takes long, measures or moves the clock; `make chaos` runs these tests"
    )

    if not hasattr(config, "workerinput") and (memory := use_memory()) is not None:
        config.add_cleanup(lambda: shutil.rmtree(memory, ignore_errors=True))
    _trust_one_certificate(_shared_folder())
    if not hasattr(config, "workerinput"):
        paths = [str(Path(__file__).parent / "support" / "child_processes"), os.environ.get("PYTHONPATH")]
        os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if differing := next((each.nodeid for each in items if _may_differ(each.nodeid)), None):
        raise pytest.UsageError(f"{differing!r} may be another id in another process: name the case by ids=")
    for item in items:
        if item.get_closest_marker("chaos") and "CHAOS_REPETITIONS" not in os.environ:
            item.add_marker(pytest.mark.skip(reason="`make chaos` runs this test"))
    items.sort(key=lambda item: _rank(_group(item.nodeid)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand whole groups of files to the test processes."""
    from xdist.scheduler import LoadScopeScheduling

    class GroupScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid)

    return GroupScheduling(config, log)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(_shared_folder(), ignore_errors=True)


def _trust_one_certificate(folder: Path) -> None:
    """Make the clients of httpx and Prefect, which talk plain HTTP in tests, read one certificate.

    The 140 certificates by default cost each client 20 ms, and a test session makes thousands of clients.
    """
    import certifi

    file = folder / "trusted.pem"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        certificate, end, _ = certifi.contents().partition("-----END CERTIFICATE-----\n")
        unfinished = folder / f"trusted.{os.getpid()}"
        unfinished.write_text(certificate + end)
        unfinished.replace(file)
    os.environ |= {"SSL_CERT_FILE": str(file), "PREFECT_API_SSL_CERT_FILE": str(file)}


def _may_differ(nodeid: str) -> bool:
    """True for an id with an address, or with binary content, such as a compressed file with its time."""
    return " at 0x" in nodeid or nodeid.count("\\x") > 2


def _group(nodeid: str) -> str:
    """Group of a test: its file, or the name of the group that lists the test."""
    test = nodeid.removeprefix("tests/")
    file = test.partition("::")[0]
    return next((name for name, begun in GROUPS.items() if test.startswith(begun)), file)


def _rank(group: str) -> int:
    return next((rank for rank, name in enumerate(FIRST) if group.startswith(name)), len(FIRST))


def _shared_folder() -> Path:
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"alone-{os.getpid()}")
    return Path(tempfile.gettempdir()) / f"clm-tests-shared-{run}"


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="clm-tests-"))
    # started by root, PostgreSQL runs as a user of its own, who needs access
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def make_home(home: Path) -> Callable[[str], Path]:
    """Makes a home beside the session's whose databases are migrated."""
    return lambda name: prepare(home / name, _shared_folder())


@pytest.fixture(scope="session")
def services(home: Path) -> Iterator[Services]:
    prepare_environment(home)
    prepare(home, _shared_folder())
    with open_services(
        Settings(home=home, database_url=None, training=TrainingSettings(where=TrainingPlace.INLINE))
    ) as opened:
        # a test would wait half a minute for a sign of life of a job that another test has killed
        object.__setattr__(opened, "pause", lambda seconds: time.sleep(min(seconds, MAX_PAUSE_SECONDS)))
        yield opened


@pytest.fixture(scope="module")
def prefect_url(services: Services) -> str:
    """A Prefect server without a password; flows in this process are its flow runs.

    The server ends with the group of the test: an idle server takes three hundredths of a processor.
    """
    if not prefect_urls:
        server = own_server(services.database, services.settings.home / "prefect")
        prefect_urls.append(until_the_group_ends.enter_context(server))
        until_the_group_ends.callback(prefect_urls.clear)
    return prefect_urls[0]


prefect_urls: list[str] = []
"""Address of the Prefect server of this process while the server runs."""
until_the_group_ends = contextlib.ExitStack()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    try:
        yield
    finally:
        if nextitem is None or _group(nextitem.nodeid) != _group(item.nodeid):
            until_the_group_ends.close()
