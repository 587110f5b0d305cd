"""Jobs of runs that a person cancelled, or that ended with their worker."""

import signal
from getpass import getuser

import pytest
from prefect.exceptions import TerminationSignal

from clm_core.domain.alerts import AlertKind
from clm_core.domain.jobs import RetrainRequest
from clm_core.domain.vocabulary import JobStatus, ModelType
from clm_core.retraining import jobs
from clm_core.retraining.cancellation import StoppedRun, stopped_run
from clm_core.services import Services


@pytest.mark.parametrize(
    ("error", "cause", "is_alerted"),
    [
        (KeyboardInterrupt(), f"cancelled by {getuser()} with Ctrl-C", False),
        (TerminationSignal(signal.SIGTERM), "stopped with its worker: the process got SIGTERM", True),
        (ValueError("no"), "ValueError: no", True),
    ],
    ids=["Ctrl-C", "SIGTERM", "a failure"],
)
def test_a_job_says_who_stopped_it_and_a_cancelled_one_alerts_nobody(
    error: BaseException, cause: str, is_alerted: bool, services: Services
) -> None:
    request = RetrainRequest(model_type=ModelType.LIGHTGBM, symbol="BTCUSD", requested_by="tests")
    job = jobs.open_job(services, request)
    with pytest.raises(type(error)), jobs.running(services, job):
        raise error
    ended = services.ledger.job(job.id)
    assert (ended.status, ended.failure_cause) == (JobStatus.FAILED, ended.failure_cause)
    assert (ended.failure_cause or "").startswith(cause)
    assert (ended.cancelled_by is None) == is_alerted
    alerted = {each.subject for each in services.alerts.newest(50) if each.kind is AlertKind.JOB_FAILED}
    assert (str(job.id) in alerted) == is_alerted


def test_a_run_that_prefect_has_as_cancelled_is_cancelled_by_a_person(
    services: Services, prefect_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.runtime import flow_run
    from prefect.states import Cancelling

    seen: list[StoppedRun | None] = []

    @flow
    def cancelled() -> None:
        error = TerminationSignal(signal.SIGTERM)
        seen.append(stopped_run(error, services.settings.home))
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(flow_run.id, Cancelling())
        seen.append(stopped_run(error, services.settings.home))

    cancelled(return_state=True)
    assert [each and each.cancelled_by for each in seen] == [None, "prefect"]
    assert seen[1] is not None
    assert seen[1].cause == "cancelled by a person in Prefect"
