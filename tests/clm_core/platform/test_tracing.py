"""Traces for an OpenTelemetry collector: no cost while off, ids of jobs, a collector that is away."""

import json
import logging
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from trace_receiver import Collector, collecting

from clm_core.domain.errors import MissingExtra
from clm_core.domain.tracing_settings import TracingSettings
from clm_core.platform import tracing
from clm_core.platform.json_logs import JsonFormatter
from clm_core.platform.log_fields import log_fields


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def test_without_an_endpoint_nothing_is_imported_and_spans_do_nothing() -> None:
    code = (
        "import sys, uuid; from clm_core.domain.tracing_settings import TracingSettings;"
        "from clm_core.platform import tracing\n"
        "off = tracing.exported(TracingSettings())\n"
        "with off, tracing.span('a'), tracing.trace_span('b', uuid.uuid4()):\n"
        "    tracing.annotate(x=1); tracing.rename('c'); assert tracing.ids() == {} == tracing.variables()\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_spans_have_names_attributes_parents_and_errors(collector: Collector) -> None:
    def fail() -> None:
        with tracing.span("outer", start=datetime.now(UTC) - timedelta(seconds=5)):
            tracing.annotate(version="v1", score=71.5)
            with tracing.span("inner", part="verify", nothing=None):
                pass
            tracing.rename("renamed")
            raise ValueError("broken")

    fields = log_fields(model_id="lightgbm_btcusd_1h")
    refused = pytest.raises(ValueError, match="broken")
    with tracing.exported(TracingSettings(endpoint=collector.url)), fields, refused:
        fail()
    outer = collector.named("renamed")
    inner = collector.named("inner")
    assert (inner.trace_id, inner.parent) == (outer.trace_id, outer.span_id)
    assert inner.attributes == {"clm.model_id": "lightgbm_btcusd_1h", "clm.part": "verify"}
    assert outer.attributes["clm.version"] == "v1"
    assert outer.attributes["clm.score"] == 71.5
    assert (outer.is_error, inner.is_error) == (True, False)
    assert outer.seconds > 4
    assert {each["service.name"] for each in collector.resources} == {"clm"}


def test_the_trace_of_a_job_has_the_id_of_the_job_in_every_process(collector: Collector) -> None:
    job_id = uuid.uuid4()
    settings = TracingSettings(endpoint=collector.url)
    accept = tracing.trace_span("accepted", job_id, job_id=job_id)
    with tracing.exported(settings), tracing.span("request"), accept:
        pass
    run = tracing.trace_span("retrain", job_id, first=True)
    with tracing.exported(settings), run, tracing.span("training"):
        pass
    request = collector.named("request")
    accepted = collector.named("accepted")
    retrain = collector.named("retrain")
    training = collector.named("training")
    assert {accepted.trace_id, retrain.trace_id, training.trace_id} == {job_id.hex}
    assert retrain.parent == ""
    assert accepted.parent == training.parent == retrain.span_id
    assert len({accepted.span_id, retrain.span_id, training.span_id}) == 3
    assert (request.links, accepted.links) == ((job_id.hex,), (request.trace_id,))
    assert accepted.attributes["clm.job_id"] == str(job_id)


@pytest.mark.parametrize(("ratio", "count"), [("0", 0), ("1", 2)])
def test_the_sampler_of_the_variables_holds_for_whole_traces_of_jobs(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, ratio: str, count: int
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", ratio)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "desk")
    job_id = uuid.uuid4()
    accept = tracing.trace_span("accepted", job_id)
    with tracing.exported(TracingSettings(endpoint=collector.url)), accept, tracing.span("inner"):
        pass
    assert len(collector.spans) == count
    assert all(each["service.name"] == "desk" for each in collector.resources)


def test_a_request_continues_the_trace_of_its_sender_and_passes_it_on(collector: Collector) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with tracing.exported(TracingSettings(endpoint=collector.url)):
        with tracing.span("request", kind="server", traceparent=parent):
            sent = tracing.headers()["traceparent"]
        with tracing.span("other", kind="server", traceparent="nonsense"):
            pass
    request = collector.named("request")
    assert (request.trace_id, request.parent) == (parent[3:35], parent[36:52])
    assert sent[:-2] == f"00-{request.trace_id}-{request.span_id}-"
    assert collector.named("other").parent == ""


def test_steps_of_the_progress_are_spans(collector: Collector) -> None:
    seen: list[tuple[str, float]] = []
    with (
        tracing.exported(TracingSettings(endpoint=collector.url)),
        tracing.span("training"),
        tracing.steps(lambda *step: seen.append(step)) as announce,
    ):
        announce("Waiting for a pod", 0.0)
        announce("Walk-forward", 0.1)
        announce("Walk-forward", 0.5)
        announce("Final fit", 0.9)
    training = collector.named("training")
    names = [each.name for each in collector.spans if each.parent == training.span_id]
    assert names == ["Waiting for a pod", "Walk-forward", "Final fit"]
    assert len(seen) == 4


def test_log_lines_have_the_ids_of_trace_and_span(collector: Collector) -> None:
    record = logging.LogRecord("clm", logging.INFO, "file", 1, "hello", None, None)
    with tracing.exported(TracingSettings(endpoint=collector.url)), tracing.span("work"):
        line = json.loads(JsonFormatter().format(record))
    work = collector.named("work")
    assert (line["trace_id"], line["span_id"]) == (work.trace_id, work.span_id)
    assert "trace_id" not in json.loads(JsonFormatter().format(record))


def test_a_collector_that_is_away_blocks_nothing_and_is_named_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "TIMEOUT_SECONDS", 0.5)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with tracing.exported(TracingSettings(endpoint="http://127.0.0.1:9")):
        begun = time.monotonic()
        for _ in range(5):
            with tracing.span("work"):
                pass
            time.sleep(0.1)
        assert time.monotonic() - begun < 0.9
    assert time.monotonic() - begun < 2
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "The collector http://127.0.0.1:9/v1/traces does not take the traces: spans are dropped meanwhile."
    ]


def test_the_provider_of_other_libraries_stays_untouched(collector: Collector) -> None:
    from opentelemetry import trace

    before = trace.get_tracer_provider()
    with tracing.exported(TracingSettings(endpoint=collector.url)), tracing.span("work"):
        assert trace.get_tracer_provider() is before
        with trace.get_tracer("prefect").start_as_current_span("of Prefect"), tracing.span("inner"):
            pass
    assert {each.name for each in collector.spans} == {"work", "inner"}
    assert collector.named("inner").parent == collector.named("work").span_id


def test_a_missing_exporter_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"continuous-learning-manager\[otel\]"):
        tracing.require_exporter(TracingSettings(endpoint="http://127.0.0.1:4318"))
    tracing.require_exporter(TracingSettings())


def test_the_sdk_is_switched_off_by_its_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with tracing.exported(TracingSettings(endpoint="http://127.0.0.1:9")), tracing.span("work"):
        assert tracing.ids() == {}


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [("collector:4318", "must look like http"), ("http://a:b@collector:4318", "must not hold a password")],
)
def test_an_address_of_another_form_is_refused(endpoint: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TracingSettings(endpoint=endpoint)
