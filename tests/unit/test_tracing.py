"""Spans made of the journal, and none where nobody wants them."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from airlock import tracing
from tests.unit.test_report import AT, deploy, make

VARIABLES = (
    "OTEL_SDK_DISABLED",
    "OTEL_TRACES_EXPORTER",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_SERVICE_NAME",
)


@pytest.fixture(autouse=True)
def _nothing_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


FAILED = make(
    deploy(
        state="rolled_back",
        failure="it says s3cr3t",
        failed_step="check_health",
        finished_at=AT + timedelta(seconds=9),
    ),
    ("apply_plan", "intent"),
    ("apply_plan", "done"),
    ("check_health", "intent"),
    ("check_health", "failed"),
    ("roll_back", "intent"),
)


def test_each_step_is_a_span_within_the_deploy_s_with_the_times_of_the_journal():
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.emit(provider.get_tracer("t"), FAILED)
    *steps, whole = exporter.get_finished_spans()
    assert [each.name for each in (*steps, whole)] == [
        "apply_plan",
        "check_health",
        "roll_back",
        "deploy",
    ]
    assert whole.parent is None
    assert whole.context is not None
    assert {each.parent.span_id for each in steps if each.parent} == {whole.context.span_id}
    began = int(AT.timestamp()) * 10**9
    assert (whole.start_time, whole.end_time) == (began, began + 9 * 10**9)
    times = [(each.start_time, each.end_time) for each in steps]
    assert times == [(began + s * 10**9, began + e * 10**9) for s, e in ((0, 1), (2, 3), (4, 4))]
    codes = [each.status.status_code for each in (*steps, whole)]
    assert codes == [StatusCode.OK, *[StatusCode.ERROR] * 3]
    assert whole.status.description == "check_health"
    assert dict(whole.attributes or {}) == {
        "airlock.target": "prod",
        "airlock.deploy": 7,
        "airlock.state": "rolled_back",
        "airlock.versions": "011",
    }


def test_nothing_that_people_wrote_is_in_a_span():
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.emit(provider.get_tracer("t"), FAILED)
    said = "".join(each.to_json() for each in exporter.get_finished_spans())
    assert not {word for word in ("s3cr3t", "Ada", "halts") if word in said}


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({"OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, False),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_spans_are_made_only_where_the_standard_variables_ask_for_them(
    monkeypatch, variables, wanted
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert tracing.is_wanted() is wanted


def test_the_configured_exporter_gets_the_spans_and_airlock_s_name():
    code = (
        "from airlock import tracing\nfrom tests.unit.test_tracing import FAILED\n"
        "from opentelemetry import trace\ntracing.export(FAILED)\n"
        "assert type(trace.get_tracer_provider()).__name__ == 'ProxyTracerProvider'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OTEL_TRACES_EXPORTER": "console"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert [done.stdout.count(f'"name": "{each}"') for each in ("deploy", "roll_back")] == [1, 1]
    assert '"service.name": "airlock"' in done.stdout


def test_an_exporter_that_is_not_installed_is_a_warning(monkeypatch, caplog):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "unheard-of")
    tracing.export(FAILED)
    assert "no spans of deploy 7: ValueError" in caplog.text


def test_where_nothing_is_configured_nothing_is_imported():
    code = (
        "import sys\nfrom airlock import tracing\nassert not tracing.is_wanted()\n"
        "found = [name for name in sys.modules if name.startswith('opentelemetry')]\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
