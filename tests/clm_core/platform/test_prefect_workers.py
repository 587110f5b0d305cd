"""Workers of several queues in one process."""

import asyncio
from typing import Any

import pytest
from patience import PATIENT_SECONDS
from prefect.workers.base import BaseWorker

from clm_core.platform import prefect_workers
from clm_core.platform.prefect_workers import QueueWorker, arguments

TRAINING = QueueWorker("trains", "default", 2)
PASSES = QueueWorker("passes", "maintenance", 5)


class RecordedWorker:
    """Worker that works until its end is due."""

    made: list[dict[str, Any]]
    stopped: list[str]

    def __init__(self, **settings: Any) -> None:
        self.name = settings["name"]
        self.made.append(settings)

    async def start(self) -> None:
        if self.name == "fails":
            raise RuntimeError("Service exceeded error threshold.")
        try:
            await asyncio.sleep(PATIENT_SECONDS)
        finally:
            self.stopped.append(self.name)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> type[RecordedWorker]:
    RecordedWorker.made = []
    RecordedWorker.stopped = []
    monkeypatch.setattr(BaseWorker, "get_worker_class_from_type", {"process": RecordedWorker}.get)
    monkeypatch.setattr("prefect.utilities.processutils.setup_signal_handlers_worker", lambda *_: None)
    return RecordedWorker


def test_each_worker_has_its_queue_and_limit_and_creates_no_pool(recorded: type[RecordedWorker]) -> None:
    asyncio.run(asyncio.wait_for(prefect_workers.serve("clm", "process", [TRAINING, PASSES]), 0.1))
    assert set(recorded.stopped) == {"trains", "passes"}
    assert recorded.made == [
        {
            "name": each.name,
            "work_pool_name": "clm",
            "work_queues": [each.queue],
            "limit": each.max_runs,
            "create_pool_if_not_found": False,
        }
        for each in (TRAINING, PASSES)
    ]


def test_all_workers_end_with_the_first_that_fails(recorded: type[RecordedWorker]) -> None:
    with pytest.raises(ExceptionGroup, match="unhandled errors"):
        asyncio.run(prefect_workers.serve("clm", "process", [TRAINING, QueueWorker("fails", "q", 1)]))
    assert recorded.stopped == ["trains"]


def test_a_pool_without_an_installed_worker_is_refused_by_name(recorded: type[RecordedWorker]) -> None:
    with pytest.raises(SystemExit, match="install prefect-docker"):
        asyncio.run(prefect_workers.serve("clm", "docker", [TRAINING]))
    assert recorded.made == []


def test_the_command_line_names_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    served = list[Any]()

    async def serve(*given: Any) -> None:
        served.append(given)

    monkeypatch.setattr("prefect.logging.configuration.setup_logging", lambda: None)
    monkeypatch.setattr(prefect_workers, "serve", serve)
    monkeypatch.setattr(prefect_workers, "use_temporary_folder", lambda: None)
    prefect_workers.main(*arguments("clm", "process", [TRAINING, PASSES]))
    assert served == [("clm", "process", [TRAINING, PASSES])]
