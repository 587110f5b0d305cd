"""Trace of a retrain: from a webhook over the inbox and the intake to the job, its steps and the training."""

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import NAMESPACE_URL, uuid5

from fastapi.testclient import TestClient
from markets import add_market
from trace_receiver import collecting
from webhooks import signed

from clm_core.domain.tracing_settings import TracingSettings
from clm_core.domain.vocabulary import JobStatus, Role
from clm_core.platform import tracing
from clm_core.retraining import jobs, steps
from clm_core.services import Services
from clm_core.triggers import inbox

Client = Callable[[Role | None], TestClient]


def test_a_webhook_leads_to_the_trace_of_its_job(client: Client, wired: Services) -> None:
    sender = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    message_id = uuid.uuid4().hex
    # a request would join a pending job that another test of the process left
    add_market(wired.settings.home, "TRACEUSD")
    data = {"model_type": "lightgbm", "symbol": "TRACEUSD", "dataset_span_days": 90}
    data |= {"training_params": {"rounds": 2}, "seed": uuid.uuid4().int % 2**32, "requested_by": "ada"}
    body = json.dumps({"type": "manual.training_requested", "data": data})
    secret = wired.settings.webhooks["monitor"].secrets[0].get_secret_value()
    headers = signed(secret, message_id, body, datetime.now(UTC)) | sender
    # messages of other tests of the process
    while inbox.answer_next(wired) is not None:
        pass
    with collecting() as collector, tracing.exported(TracingSettings(endpoint=collector.url)):
        assert client(None).post("/webhooks/monitor", content=body, headers=headers).status_code == 202
        assert client(None).get("/health").status_code == 200
        while (answered := inbox.answer_next(wired)) and answered[0].message_id != message_id:
            pass
        assert answered is not None
        assert answered[1] is not None
        job_id = answered[1][0].job_id
        assert job_id is not None
        job = wired.ledger.job(job_id)
        with jobs.running(wired, job):
            steps.train(wired, job, steps.fetch_bars(wired, job))
        assert wired.ledger.job(job_id).status is JobStatus.COMPLETED
        refused = client(Role.VIEWER).post("/clm/train", json={})
        assert refused.status_code == 403
    request = collector.named("POST /webhooks/{source}")
    assert (request.trace_id, request.parent) == (sender["traceparent"][3:35], sender["traceparent"][36:52])
    assert request.attributes["http.response.status_code"] == 202
    received = collector.named("message received")
    message = collector.named("message answered")
    assert {received.trace_id, message.trace_id} == {uuid5(NAMESPACE_URL, f"monitor/{message_id}").hex}
    assert received.links == (request.trace_id,)
    intake = collector.named("intake")
    assert intake.parent == message.span_id
    assert intake.attributes["clm.reply"] == "accepted"
    assert intake.links == (job_id.hex,)
    retrain = collector.named("retrain")
    assert (retrain.trace_id, retrain.parent) == (job_id.hex, "")
    children = {each.name for each in collector.spans if each.parent == retrain.span_id}
    assert children == {"accepted", "waiting for a run", "bars", "training"}
    training = collector.named("training")
    assert training.attributes["clm.job_id"] == str(job_id)
    assert training.attributes["clm.model_id"] == job.model_id
    inner = [each.name for each in collector.spans if each.parent == training.span_id]
    assert inner == ["Walk-forward", "Final fit", "Looking for leaks"]
    assert collector.named("POST /clm/train").attributes["http.response.status_code"] == 403
    assert not any("health" in each.name for each in collector.spans)
