"""Traces of requests, decisions, retrains, passes and deliveries, sent to an OpenTelemetry collector.

Off without `[tracing] endpoint`: nothing is imported, and a span is a function call. The global provider of
OpenTelemetry stays untouched, so that the tracing of Prefect and MLflow is not switched on along with this.

The trace of a retrain has the id of the job as trace id, and the id of the first span follows from the job's.
Every process that knows the job can add a span, and neither the ledger nor Prefect carries a context.
"""

import functools
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from importlib.util import find_spec
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar
from uuid import UUID

from clm_core.domain.errors import MissingExtra
from clm_core.domain.progress import Announce
from clm_core.domain.tracing_settings import TracingSettings
from clm_core.platform.flow_run import current_run
from clm_core.platform.log_fields import current_fields

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, SpanContext, Tracer

P = ParamSpec("P")
R = TypeVar("R")
Attributes = Mapping[str, object]
Kind = Literal["internal", "server", "client"]

TRACES = "/v1/traces"
EXPORTER = "opentelemetry.exporter.otlp.proto.http"
DISABLED = "OTEL_SDK_DISABLED"
SERVICE_NAME = "OTEL_SERVICE_NAME"
TIMEOUTS = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
TIMEOUT_SECONDS = 2.0
"""Time limit of an export by default: the longest wait of a process that ends while the collector is away."""
RETRY_SECONDS = 30.0
"""Time after a failed export in which spans are dropped without another try."""

logger = logging.getLogger(__name__)
_lock = Lock()


@dataclass
class _Tracing:
    """Tracing of this process; the provider is made for the first span."""

    endpoint: str
    _provider: "TracerProvider | None" = None
    _chosen: "ContextVar[SpanContext | None]" = field(
        default_factory=lambda: ContextVar("chosen_span", default=None)
    )

    @functools.cached_property
    def tracer(self) -> "Tracer":
        return self.provider.get_tracer("clm", version("continuous-learning-manager"))

    @property
    def provider(self) -> "TracerProvider":
        with _lock:
            if self._provider is None:
                self._provider = _provider(self.endpoint, self._chosen)
            return self._provider

    @contextmanager
    def named(self, context: "SpanContext | None") -> Iterator[None]:
        """Give the span started in the block the ids of a context."""
        token = self._chosen.set(context)
        try:
            yield
        finally:
            self._chosen.reset(token)

    def first_span(self, trace_id: UUID) -> "SpanContext":
        """Context of the first span in a trace, sampled or not in every process alike."""
        from opentelemetry.sdk.trace.sampling import Decision
        from opentelemetry.trace import SpanContext, TraceFlags

        span_id = int.from_bytes(hashlib.sha256(trace_id.bytes).digest()[:8], "big")
        decision = self.provider.sampler.should_sample(None, trace_id.int, "clm").decision
        flags = TraceFlags(0 if decision is Decision.DROP else TraceFlags.SAMPLED)
        return SpanContext(trace_id.int, span_id, is_remote=True, trace_flags=flags)

    def end(self) -> None:
        if self._provider is not None:
            self._provider.shutdown()


_tracing: _Tracing | None = None


@contextmanager
def exported(settings: TracingSettings) -> Iterator[None]:
    """Send the spans of the block to the collector of the settings, if they name any.

    Raises:
        MissingExtra: the exporter is not installed.
    """
    global _tracing  # noqa: PLW0603 - a process exports to one place, from any thread
    before = _tracing
    _tracing = _opened(settings)
    try:
        yield
    finally:
        ended = _tracing
        _tracing = before
        if ended is not None:
            ended.end()


def require_exporter(settings: TracingSettings) -> None:
    """Refuse settings for which the libraries are missing.

    Raises:
        MissingExtra: the exporter is not installed.
    """
    if settings.endpoint is not None and not _is_installed():
        raise MissingExtra("opentelemetry-exporter-otlp-proto-http", "otel")


@contextmanager
def span(
    name: str,
    *,
    kind: Kind = "internal",
    traceparent: str | None = None,
    start: datetime | None = None,
    **attributes: object,
) -> Iterator[None]:
    """A span around the block, within the span around the call; an error of the block is recorded.

    Args:
        traceparent: header of a request that the span continues, if the sender has a trace.
        start: begin of the span; by default now.
        attributes: `job_id=...` becomes `clm.job_id`; None is left out.
    """
    if _tracing is None:
        yield
        return
    from opentelemetry import trace

    with _tracing.tracer.start_as_current_span(
        name,
        context=_remote(traceparent),
        kind=trace.SpanKind[kind.upper()],
        attributes=_with_fields(attributes),
        start_time=None if start is None else _nanoseconds(start),
    ):
        yield


@contextmanager
def trace_span(name: str, trace_id: UUID, *, first: bool = False, **attributes: object) -> Iterator[None]:
    """A span in the trace of a job or a message, whose ids follow from the id of the job or message.

    The span is linked with the span around the call, which belongs to a request or a pass.

    Args:
        first: True for the span to which all others in the trace belong.
    """
    if _tracing is None:
        yield
        return
    from opentelemetry import trace

    beginning = _tracing.first_span(trace_id)
    around = trace.get_current_span()
    links = [trace.Link(around.get_span_context())] if around.get_span_context().is_valid else []
    around.add_link(beginning)
    parent = trace.set_span_in_context(trace.INVALID_SPAN if first else trace.NonRecordingSpan(beginning))
    with _tracing.named(beginning if first else None):
        opened = _tracing.tracer.start_span(
            name, context=parent, links=links, attributes=_with_fields(attributes)
        )
    with trace.use_span(opened, end_on_exit=True):
        yield


def annotate(**attributes: object) -> None:
    """Add attributes to the span around the call."""
    if _tracing is not None:
        _current().set_attributes(_named(attributes))


def rename(name: str, failed: bool = False) -> None:
    """Rename the span around the call, once more is known.

    Args:
        failed: True marks the span as an error.
    """
    if _tracing is None:
        return
    from opentelemetry.trace import StatusCode

    _current().update_name(name)
    if failed:
        _current().set_status(StatusCode.ERROR)


def traced(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: a span around each call of the function."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if _tracing is None:
                return function(*args, **kwargs)
            with span(name):
                return function(*args, **kwargs)

        return call

    return decorate


@contextmanager
def steps(announce: Announce) -> Iterator[Announce]:
    """Receiver of progress that makes a span of each step, and passes the progress on."""
    if _tracing is None:
        yield announce
        return
    from opentelemetry.context import get_current

    # progress comes from any thread
    tracer = _tracing.tracer
    attributes = _with_fields({})
    around = get_current()
    began: dict[str, Span] = {}
    order = Lock()

    def end() -> None:
        while began:
            began.popitem()[1].end()

    def announce_and_trace(step: str, share: float) -> None:
        # the steps of a reason to wait differ in the text after the colon
        name, _, detail = step.partition(": ")
        with order:
            if name not in began:
                end()
                began[name] = tracer.start_span(name, context=around, attributes=attributes)
            if detail:
                began[name].set_attribute("clm.detail", detail)
        announce(step, share)

    try:
        yield announce_and_trace
    finally:
        end()


def ids() -> dict[str, str]:
    """Trace and span around the call, for log lines; empty without."""
    context = None if _tracing is None else _current().get_span_context()
    if context is None or not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


def headers() -> dict[str, str]:
    """W3C trace context of the span around the call, for requests to others; empty without."""
    trace = ids()
    if not trace:
        return {}
    flags = int(_current().get_span_context().trace_flags)
    return {"traceparent": f"00-{trace['trace_id']}-{trace['span_id']}-{flags:02x}"}


def variables() -> dict[str, str]:
    """W3C trace context as a variable of a child process: TRACEPARENT."""
    return {name.upper(): value for name, value in headers().items()}


def _opened(settings: TracingSettings) -> _Tracing | None:
    if settings.endpoint is None or os.environ.get(DISABLED, "").lower() == "true":
        return None
    require_exporter(settings)
    return _Tracing(settings.endpoint)


def _is_installed() -> bool:
    try:
        return find_spec(EXPORTER) is not None
    except ModuleNotFoundError:
        return False


def _provider(endpoint: str, chosen: "ContextVar[SpanContext | None]") -> "TracerProvider":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # one warning of our own instead of one for each try
    logging.getLogger(f"{EXPORTER}.trace_exporter").setLevel(logging.CRITICAL)
    seconds = None if any(name in os.environ for name in TIMEOUTS) else TIMEOUT_SECONDS
    url = endpoint if endpoint.endswith(TRACES) else f"{endpoint}{TRACES}"
    attributes: dict[str, str | int] = {
        "service.version": version("continuous-learning-manager"),
        "process.pid": os.getpid(),
    }
    if SERVICE_NAME not in os.environ:
        attributes["service.name"] = "clm"
    provider = TracerProvider(
        resource=Resource.create(attributes), id_generator=_id_generator(chosen), shutdown_on_exit=False
    )
    exporter = OTLPSpanExporter(endpoint=url, timeout=seconds)
    provider.add_span_processor(BatchSpanProcessor(_with_deadline(exporter, url)))
    return provider


def _id_generator(chosen: "ContextVar[SpanContext | None]") -> Any:
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class JobIds(RandomIdGenerator):
        """Ids of the first span of a job; random ids for all other spans."""

        def generate_trace_id(self) -> int:
            context = chosen.get()
            return super().generate_trace_id() if context is None else context.trace_id

        def generate_span_id(self) -> int:
            context = chosen.get()
            return super().generate_span_id() if context is None else context.span_id

    return JobIds()


def _with_deadline(exporter: "SpanExporter", url: str) -> "SpanExporter":
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class Patient(SpanExporter):
        """Exporter that warns once of a collector that is away, and asks again after a while."""

        def __init__(self) -> None:
            self._away_since: float | None = None
            self._failed_at = 0.0

        def export(self, spans: Sequence[Any]) -> SpanExportResult:
            now = time.monotonic()
            if self._away_since is not None and now - self._failed_at < RETRY_SECONDS:
                return SpanExportResult.FAILURE
            result = exporter.export(spans)
            if result is SpanExportResult.SUCCESS:
                self._away_since = None
                return result
            if self._away_since is None:
                self._away_since = now
                logger.warning("The collector %s does not take the traces: spans are dropped meanwhile.", url)
            self._failed_at = time.monotonic()
            return result

        def shutdown(self) -> None:
            exporter.shutdown()

    return Patient()


def _current() -> "Span":
    from opentelemetry.trace import get_current_span

    return get_current_span()


def _remote(traceparent: str | None) -> Any:
    """Context of a sender, if the header is well formed; None for the context of the call."""
    if traceparent is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": traceparent})


def _with_fields(attributes: Attributes) -> dict[str, Any]:
    run_id = _run_id()
    return _named({**current_fields(), **({} if run_id is None else {"run_id": run_id}), **attributes})


def _named(attributes: Attributes) -> dict[str, Any]:
    """Attributes in the namespace of CLM; a name with a dot is one of OpenTelemetry's conventions."""
    return {
        name if "." in name else f"clm.{name}": value if isinstance(value, bool | int | float) else str(value)
        for name, value in attributes.items()
        if value is not None
    }


def _run_id() -> UUID | None:
    """Prefect run of this process, if it is one."""
    run = current_run()
    return None if run is None else run.id


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1e9)
