"""Settings of traces: `[tracing]`."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict


def _http(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must look like http://collector:4318")
    if parts.username or parts.password:
        raise ValueError("must not hold a password: OTEL_EXPORTER_OTLP_HEADERS takes credentials")
    return address.rstrip("/")


class TracingSettings(BaseModel):
    """Traces for an OpenTelemetry collector; the OTEL_ variables of the process complete these settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: Annotated[str, AfterValidator(_http)] | None = None
    """Address of the collector for OTLP over HTTP, `http://collector:4318`; without an address no traces."""
