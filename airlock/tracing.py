"""The steps of a deploy as OpenTelemetry spans."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from datetime import datetime, timedelta
from importlib import metadata
from typing import TYPE_CHECKING, Any

from airlock.report import DeployReport
from airlock.timeline import StepTime

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

log = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


def is_wanted() -> bool:
    """Whether spans would go anywhere: an exporter is set up, or this process has a provider."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    return _global_provider() is not None or bool(_exporter_names() and _sdk_is_there())


def export(found: DeployReport) -> None:
    """Hand the spans of one deploy over. Only warns when that fails. Blocks for seconds at most."""
    try:
        if (given := _global_provider()) is not None:
            emit(given.get_tracer("airlock"), found)
            return
        own = _own_provider()
        emit(own.get_tracer("airlock"), found)
        own.shutdown()
    except Exception as error:  # noqa: BLE001 – its text may carry the exporter's address
        log.warning("There are no spans of deploy %d: %s", found.deploy.id, type(error).__name__)


def emit(tracer: Tracer, found: DeployReport) -> None:
    """One span for the deploy, and one in it for each step. Nothing that people wrote is in it."""
    from opentelemetry import trace

    row, steps = found.deploy, found.steps
    began = min([row.created_at, *(step.began_at for step in steps)])
    ended = max([row.finished_at or began, *(_end(step) for step in steps)])
    whole = tracer.start_span(
        row.kind,
        start_time=_ns(began),
        attributes={
            "airlock.target": row.target,
            "airlock.deploy": row.id,
            "airlock.state": row.state,
            "airlock.versions": row.planned.versions,
        },
    )
    inside = trace.set_span_in_context(whole)
    for step in steps:
        attributes = {"airlock.target": row.target, "airlock.ended": step.ended}
        span = tracer.start_span(
            step.step, context=inside, start_time=_ns(step.began_at), attributes=attributes
        )
        _settle(span, "" if step.ended == "done" else step.ended)
        span.end(_ns(_end(step)))
    _settle(whole, (row.failed_step or row.state) if row.failure else "")
    whole.end(_ns(ended))


def _settle(span: Span, trouble: str) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_status(Status(StatusCode.ERROR, trouble) if trouble else Status(StatusCode.OK))


def _end(step: StepTime) -> datetime:
    """Of a step that did not end nothing is known but its beginning."""
    return step.began_at + timedelta(seconds=max(0.0, step.seconds or 0.0))


def _ns(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000) * 1_000


# ---------------------------------------------------------------- where to


def _sdk_is_there() -> bool:
    # Its parents are packages that others share, so this imports next to nothing.
    try:
        return importlib.util.find_spec("opentelemetry.sdk.trace") is not None
    except ModuleNotFoundError:
        return False


def _global_provider() -> TracerProvider | None:
    """The provider that somebody gave this process; Airlock never sets one."""
    if "opentelemetry.sdk.trace" not in sys.modules:
        return None
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    provider = trace.get_tracer_provider()
    return provider if isinstance(provider, TracerProvider) else None


def _exporter_names() -> tuple[str, ...]:
    """What the standard variables ask for; an endpoint alone means OTLP."""
    named = os.environ.get("OTEL_TRACES_EXPORTER", "")
    if not named and any(os.environ.get(variable) for variable in _ENDPOINTS):
        named = "otlp"
    names = (name.strip() for name in named.split(","))
    return tuple(name for name in names if name not in ("", "none"))


def _own_provider() -> TracerProvider:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    is_named = "OTEL_SERVICE_NAME" in os.environ
    resource = Resource.create({} if is_named else {"service.name": "airlock"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    for name in _exporter_names():
        provider.add_span_processor(BatchSpanProcessor(_exporter(name)))
    return provider


def _exporter(name: str) -> Any:
    """The installed exporter of that name, as its package registers it."""
    if name == "otlp":
        given = (os.environ.get(variable) for variable in _PROTOCOLS)
        protocol = next((each for each in given if each), "http/protobuf")
        name = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    (found,) = metadata.entry_points(group="opentelemetry_traces_exporter", name=name)
    return found.load()()
