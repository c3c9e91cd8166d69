"""The alert: what a person must know first, as a webhook takes it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from airlock import alert, record
from airlock.alert import Alert
from airlock.settings import AlertSettings, Target


def make(**changed: object) -> Alert:
    facts: dict[str, object] = {
        "headline": "ROLLED BACK – prod is back on 010_x",
        "target": "prod",
        "deploy": 7,
        "state": "rolled_back",
        "versions": "011",
        "failed_step": "check_health",
        "error": "The new release is unhealthy",
        "requester": "somebody",
        "reason": "",
        "kept_rows": 1234,
        "snapshot": "s1",
        "next_command": "airlock plan prod",
    }
    return Alert(**(facts | changed))  # type: ignore[arg-type]


def target(tmp_path: Path, variable: str | None = "SLACK_URL") -> Target:
    return Target(
        name="prod",
        root=tmp_path,
        state_dir=tmp_path,
        migrations_dir=tmp_path,
        database_url_env="PROD_URL",
        alerts=AlertSettings(slack_url_env=variable),
    )


def test_the_headline_comes_first_and_what_is_unknown_is_left_out():
    assert make().lines == (
        "ROLLED BACK – prod is back on 010_x",
        "Target: prod, migrations 011, deploy 7",
        "Failing step: check_health",
        "Error: The new release is unhealthy",
        "Started by: somebody",
        "Rows kept: 1,234 in airlock.kept",
        "Snapshot: s1",
        "Next: airlock plan prod",
    )
    bare = make(kept_rows=0, snapshot=None, requester="", failed_step="", error="")
    assert [line.partition(":")[0] for line in bare.lines[1:]] == ["Target", "Next"]


def test_what_a_webhook_would_take_for_markup_is_escaped():
    said = alert.slack_payload(make(error="<!channel> a & b > c"))["text"]
    assert isinstance(said, str)
    assert "&lt;!channel&gt; a &amp; b &gt; c" in said
    assert said.startswith("*ROLLED BACK")


def test_an_alert_comes_back_from_the_outbox_as_it_was():
    assert record.load(Alert, record.dump(make())) == make()


async def test_without_an_address_it_counts_as_delivered(tmp_path):
    assert await alert.deliver(target(tmp_path, None), record.dump(make())) is None


@pytest.mark.parametrize(("status", "said"), [(200, None), (204, None), (500, "HTTP status 500")])
async def test_it_is_delivered_when_the_webhook_takes_it(tmp_path, monkeypatch, status, said):
    bodies: list[dict[str, str]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-len"))
        bodies.append(json.loads(await reader.readexactly(length)))
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as receiver:
        port = receiver.sockets[0].getsockname()[1]
        monkeypatch.setenv("SLACK_URL", f"http://127.0.0.1:{port}/s3cr3t")
        assert await alert.deliver(target(tmp_path), record.dump(make())) == said
    assert "ROLLED BACK" in bodies[0]["text"]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/s3cr3t", "s3cr3t", "http://s3cr3t.invalid/", "http://[s3cr3t"]
)
async def test_an_address_that_does_not_answer_is_a_reason_that_shows_nothing_of_it(
    tmp_path, monkeypatch, url
):
    monkeypatch.setenv("SLACK_URL", url)
    said = await alert.deliver(target(tmp_path), record.dump(make()))
    assert said
    assert "s3cr3t" not in said


async def test_a_missing_address_is_a_reason_too(tmp_path, monkeypatch):
    monkeypatch.delenv("SLACK_URL", raising=False)
    said = await alert.deliver(target(tmp_path), record.dump(make()))
    assert said is not None
    assert "SLACK_URL" in said
