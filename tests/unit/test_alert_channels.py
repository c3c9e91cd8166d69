"""Each channel against a server of its kind on loopback: what it sends, and when it counts."""

from __future__ import annotations

import asyncio
import email
import json
import logging
import smtplib
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from email import policy
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

from airlock import outbox, record
from airlock.alert import Alert, channels, http, pagerduty, routing, slack
from airlock.alert import email as mails
from airlock.alert.letters import Letter
from airlock.ledger import Delivery
from airlock.settings import (
    AlertSettings,
    EmailSettings,
    GithubSettings,
    HealthSettings,
    ServiceSettings,
    Target,
)
from tests.patience import PATIENCE_S
from tests.receiver import Receiver, receiving
from tests.unit.test_alert import AT, make

KEY = "prod-7-rolled_back-1"
FULL = make(ref="c" * 40, at=AT, run_url="http://prefect/runs/1")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as found:
        yield found


@pytest.fixture
def target(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Target:
    """Every channel, mail left out, at the receiver."""
    monkeypatch.setenv("SLACK_URL", f"{receiver.url}/slack/s3cr3t")
    monkeypatch.setenv("HOOK_URL", f"{receiver.url}/hook/s3cr3t")
    monkeypatch.setenv("PAGER_KEY", "pager-s3cr3t")
    monkeypatch.setenv("HUB_TOKEN", "hub-s3cr3t")
    receiver.answers = {("GET", "/deployments"): [], ("POST", "/deployments"): {"id": 42}}
    return Target(
        name="prod",
        root=Path(),
        state_dir=Path(),
        migrations_dir=Path(),
        database_url_env="PROD_URL",
        alerts=AlertSettings(
            slack_url_env="SLACK_URL",
            webhook_url_env="HOOK_URL",
            pagerduty_key_env="PAGER_KEY",
            pagerduty_url=f"{receiver.url}/v2/enqueue",
            github=GithubSettings(
                repository="team/tracker", token_env="HUB_TOKEN", api_url=f"{receiver.url}/api/"
            ),
        ),
    )


async def send(
    target: Target, channel: str, alert: Alert = FULL
) -> tuple[str | None, outbox.Ending]:
    letter = Letter(alert=alert, key=KEY, delivery=Delivery(alert=1, channel=channel))
    return await outbox._send(target, letter, frozenset({1}))


# ---------------------------------------------------------------- over HTTP


async def test_slack_is_told_the_lines_with_markup_escaped(target, receiver):
    assert await send(target, "slack", make(error="<!channel> a & b")) == (None, "taken")
    (got,) = receiver.received
    assert got.path == "/slack/s3cr3t"
    assert got.body["text"].startswith("*ROLLED BACK – service healthy on 010_x (prod)*\nTarget: ")
    assert "&lt;!channel&gt; a &amp; b" in got.body["text"]


async def test_the_end_of_an_alert_is_told_as_such():
    text = slack.body(make(state="succeeded", headline="DEPLOYED – prod", resolves=True))["text"]
    assert str(text).startswith("*RESOLVED – DEPLOYED – prod*")


async def test_the_webhook_gets_the_whole_alert(target, receiver):
    assert await send(target, "webhook") == (None, "taken")
    (got,) = receiver.received
    assert got.headers["idempotency-key"] == KEY
    assert got.body["event"] == "airlock.deploy.rolled_back"
    assert got.body["key"] == KEY
    assert record.load(Alert, json.dumps(got.body)) == FULL


async def test_an_incident_is_opened_and_resolved_by_the_same_key(target, receiver):
    ends = ("airlock-prod-7", "airlock-prod-7-stranded")
    for alert in (routing.filed(FULL), make(state="succeeded", resolves=True, ends=ends)):
        assert await send(target, "pagerduty", alert) == (None, "taken")
    opened, *resolved = receiver.bodies
    assert (opened["event_action"], opened["dedup_key"]) == ("trigger", "airlock-prod-7")
    assert [each["event_action"] for each in resolved] == ["resolve"] * 2
    assert tuple(each["dedup_key"] for each in resolved) == ends
    assert opened["routing_key"] == "pager-s3cr3t"
    assert opened["payload"]["severity"] == "error"
    assert opened["payload"]["summary"] == FULL.headline
    assert opened["payload"]["timestamp"] == "2026-01-02T03:04:05+00:00"
    assert opened["payload"]["custom_details"]["Failing step"] == "check_health"
    assert opened["links"] == [{"href": "http://prefect/runs/1", "text": "The run"}]


@pytest.mark.parametrize(
    ("state", "severity"),
    [("stranded", "critical"), ("rolled_back", "error"), ("failed", "warning")],
)
def test_the_pager_is_as_loud_as_the_outcome_is_bad(state, severity):
    assert pagerduty.body("k", make(state=state), "i")["payload"]["severity"] == severity  # type: ignore[index]


async def test_github_has_one_deployment_of_the_release_and_the_status_it_ended_with(
    target, receiver
):
    assert await send(target, "github") == (None, "taken")
    asked, created, status = receiver.received
    assert {each.headers["authorization"] for each in receiver.received} == {"Bearer hub-s3cr3t"}
    assert urlsplit(asked.path).path == "/api/repos/team/tracker/deployments"
    assert parse_qs(urlsplit(asked.path).query) == {
        "ref": ["c" * 40],
        "task": ["deploy:airlock-prod-7"],
        "environment": ["prod"],
    }
    assert created.method == "POST"
    assert created.body["ref"] == "c" * 40
    assert created.body["environment"] == "prod"
    assert (created.body["auto_merge"], created.body["required_contexts"]) == (False, [])
    assert status.path == "/api/repos/team/tracker/deployments/42/statuses"
    assert (status.body["state"], status.body["log_url"]) == ("failure", "http://prefect/runs/1")


async def test_github_s_deployment_of_an_earlier_try_is_used_again(target, receiver):
    receiver.answers[("GET", "/deployments")] = [{"id": 17}]
    assert await send(target, "github", replace(FULL, state="undone")) == (None, "taken")
    _, status = receiver.received
    assert status.path.endswith("/deployments/17/statuses")
    assert status.body["state"] == "inactive"


async def test_a_description_is_no_longer_than_github_takes(target, receiver):
    await send(target, "github", replace(FULL, headline="x" * 200, versions="y" * 200))
    _, created, status = receiver.received
    assert len(status.body["description"]) == len(created.body["description"]) == 140


HTTP_CHANNELS = ("slack", "webhook", "pagerduty", "github")


@pytest.mark.parametrize("channel", HTTP_CHANNELS)
@pytest.mark.parametrize(
    ("status", "ended"),
    [(302, "later"), (400, "refused"), (404, "refused"), (429, "later"), (500, "later")],
)
async def test_an_answer_that_is_no_yes_is_a_reason_and_no_redirect_is_followed(
    target, receiver, channel, status, ended
):
    receiver.status, receiver.headers = status, "Location: /elsewhere\r\n"
    assert await send(target, channel) == (f"HTTP status {status}", ended)
    assert len(receiver.received) == 1


@pytest.mark.parametrize("header", ["Retry-After: 60", "X-RateLimit-Remaining: 0"])
async def test_githubs_rate_limit_is_no_refusal(target, receiver, header):
    receiver.status, receiver.headers = 403, f"{header}\r\n"
    assert await send(target, "github") == ("HTTP status 403", "later")


@pytest.mark.parametrize("channel", ["slack", "webhook"])
@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/s3cr3t",
        "s3cr3t",
        "http://s3cr3t.invalid/",
        "http://[s3cr3t",
        "http://\0",
    ],
)
async def test_an_address_that_does_not_answer_is_a_reason_that_shows_nothing_of_it(
    target, monkeypatch, caplog, channel, url
):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(Target, "variable", lambda self, name: url)
    reason, ended = await send(target, channel)
    assert reason
    assert "s3cr3t" not in reason
    assert ended == "silent"
    assert "s3cr3t" not in caplog.text


async def test_no_address_is_logged_when_all_is_well(target, caplog):
    caplog.set_level(logging.INFO)
    for channel in HTTP_CHANNELS:
        await send(target, channel)
    assert "s3cr3t" not in caplog.text


async def test_a_proxy_of_the_environment_hears_nothing(target, monkeypatch, receiver):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert await send(target, "slack") == (None, "taken")


@pytest.mark.parametrize(
    ("channel", "variable"), [("slack", "SLACK_URL"), ("pagerduty", "PAGER_KEY")]
)
async def test_a_missing_variable_is_a_reason_that_names_it(target, monkeypatch, channel, variable):
    monkeypatch.delenv(variable)
    reason, _ = await send(target, channel)
    assert variable in str(reason)


async def test_who_does_not_answer_is_left_after_a_while(target, receiver, monkeypatch):
    monkeypatch.setattr(outbox, "SEND_S", 0.05)
    receiver.hold.clear()
    assert await send(target, "slack") == ("TimeoutError", "silent")
    receiver.hold.set()


def test_a_channel_is_there_when_its_settings_are():
    plain = Target(
        name="prod", root=Path(), state_dir=Path(), migrations_dir=Path(), database_url_env="U"
    )
    assert channels.configured(plain) == frozenset()
    settings: dict[str, dict[str, Any]] = {
        "slack": {"slack_url_env": "X"},
        "webhook": {"webhook_url_env": "X"},
        "pagerduty": {"pagerduty_key_env": "X"},
        "email": {"email": EmailSettings(host="h", sender="a@b", to=("c@d",))},
        "github": {"github": GithubSettings(repository="a/b", token_env="X")},
    }
    assert settings.keys() == channels.CHANNELS.keys()
    for name, given in settings.items():
        target = plain.model_copy(update={"alerts": AlertSettings(**given)})
        assert channels.configured(target) == {name}


@pytest.mark.parametrize(
    ("status", "url", "said"),
    [
        (200, None, "service answers"),
        (503, None, "service down"),
        (200, "http://127.0.0.1:1/", "service down"),
        (200, "http://127.0.0.1:none/", "nobody knows how the service is"),
    ],
)
async def test_a_rollback_that_failed_says_how_the_service_answers_now(
    target, receiver, status, url, said
):
    receiver.status = status
    service = {
        "service": ServiceSettings(),
        "health": HealthSettings(url=url or f"{receiver.url}/health"),
    }
    assert await outbox.service_now(target.model_copy(update=service)) == said
    assert await outbox.service_now(target) == "the database needs a person"


# ---------------------------------------------------------------- by SMTP


# Without slots: aiosmtpd looks at every attribute, and Python 3.11 leaves one that cannot be read.
@dataclass(kw_only=True)
class MailServer:
    """A mail server that keeps what it takes."""

    port: int = 0
    mails: list[email.message.EmailMessage] = field(default_factory=list)
    envelopes: list[tuple[str, list[str], bool]] = field(default_factory=list)
    answer: str = "250 OK"
    looks_s: float = 0

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:  # noqa: N802
        await asyncio.sleep(self.looks_s)
        self.envelopes.append((envelope.mail_from, envelope.rcpt_tos, session.ssl is not None))
        if self.answer.startswith("250"):
            self.mails.append(
                email.message_from_bytes(envelope.content, policy=policy.default)  # type: ignore[arg-type]
            )
        return self.answer


class _OnThisPort(Controller):
    """Without a TLS of its own for the question whether it is up, which would not be trusted."""

    def _trigger_server(self) -> None:
        socket.create_connection((self.hostname, self.port), timeout=PATIENCE_S).close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost, with its key in the same file."""
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    subprocess.run(
        [
            *command.split(),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", "key.pem", "-out", "cert.pem"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder


def authenticate(server: Any, session: Any, envelope: Any, mechanism: Any, data: Any) -> AuthResult:
    del server, session, envelope, mechanism
    good = data == LoginPassword(b"airlock", b"mail-s3cr3t")
    return AuthResult(success=good, handled=False)


@pytest.fixture
def mail_server(
    certificate: Path, request: pytest.FixtureRequest, port: int
) -> Iterator[MailServer]:
    """Speaks the kind of TLS that the test names: starttls, tls or none."""
    kind = request.param
    found = MailServer()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    found.port = port
    tls: dict[str, Any] = {
        "starttls": {"tls_context": context, "require_starttls": True, "auth_require_tls": True},
        "tls": {"ssl_context": context, "auth_require_tls": False},
        "none": {"auth_require_tls": False},
    }[kind]
    controller = _OnThisPort(
        found,
        hostname="127.0.0.1",
        port=port,
        ready_timeout=PATIENCE_S,
        authenticator=authenticate,
        **tls,
    )
    controller.start()
    yield found
    controller.stop()


def mailing(port: int, **changed: Any) -> Target:
    settings = {
        "host": "localhost",
        "port": port,
        "sender": "Airlock <airlock@example.org>",
        "to": ("dba@example.org", "lead@example.org"),
        "user": "airlock",
        "password_env": "MAIL_PASSWORD",
    }
    return Target(
        name="prod",
        root=Path(),
        state_dir=Path(),
        migrations_dir=Path(),
        database_url_env="PROD_URL",
        alerts=AlertSettings(email=EmailSettings(**(settings | changed))),
    )


@pytest.mark.parametrize(
    ("mail_server", "tls"),
    [("starttls", "starttls"), ("tls", "tls"), ("none", "none")],
    indirect=["mail_server"],
)
async def test_a_mail_is_handed_over_with_the_headline_as_its_subject(
    mail_server, tls, certificate, monkeypatch
):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    monkeypatch.setenv("MAIL_PASSWORD", "mail-s3cr3t")
    target = mailing(mail_server.port, tls=tls)
    assert await send(target, "email", replace(FULL, headline="a\r\nBcc: x@y b")) == (None, "taken")
    ((sender, to, encrypted),) = mail_server.envelopes
    assert (sender, to) == ("airlock@example.org", ["dba@example.org", "lead@example.org"])
    assert encrypted is (tls == "starttls")  # with "tls" the server speaks nothing else
    (mail,) = mail_server.mails
    assert mail["Subject"] == "a Bcc: x@y b"
    assert mail["Bcc"] is None
    assert mail["Message-ID"] == f"<airlock-{KEY}@example.org>"
    assert "Failing step: check_health" in mail.get_content()


@pytest.mark.parametrize("mail_server", ["starttls", "tls"], indirect=True)
async def test_a_server_whose_certificate_nobody_vouches_for_gets_no_password(
    mail_server, monkeypatch, request
):
    monkeypatch.setenv("MAIL_PASSWORD", "mail-s3cr3t")
    kind = request.node.callspec.params["mail_server"]
    said = await send(mailing(mail_server.port, tls=kind), "email")
    assert said == ("SSLCertVerificationError", "silent")
    assert mail_server.envelopes == []


@pytest.mark.parametrize("mail_server", ["none"], indirect=True)
async def test_a_server_without_starttls_gets_neither_password_nor_mail(mail_server, monkeypatch):
    monkeypatch.setenv("MAIL_PASSWORD", "mail-s3cr3t")
    reason, _ = await send(mailing(mail_server.port), "email")
    assert reason == smtplib.SMTPNotSupportedError.__name__
    assert mail_server.envelopes == []


@pytest.mark.parametrize("mail_server", ["none"], indirect=True)
async def test_what_a_mail_server_refuses_is_a_reason_without_its_words(mail_server, monkeypatch):
    monkeypatch.setenv("MAIL_PASSWORD", "wrong s3cr3t")
    target = mailing(mail_server.port, tls="none")
    assert await send(target, "email") == ("SMTPAuthenticationError 535", "later")
    monkeypatch.setenv("MAIL_PASSWORD", "mail-s3cr3t")
    mail_server.answer = "554 no mail from s3cr3t here"
    assert await send(target, "email") == ("SMTPDataError 554", "refused")
    mail_server.answer = "451 greylisted"
    assert await send(target, "email") == ("SMTPDataError 451", "later")


@pytest.mark.parametrize("mail_server", ["none"], indirect=True)
async def test_a_mail_server_may_take_longer_than_the_others(mail_server, monkeypatch):
    monkeypatch.setenv("MAIL_PASSWORD", "mail-s3cr3t")
    monkeypatch.setattr(outbox, "SEND_S", 0.05)
    monkeypatch.setattr(http, "TIMEOUT_S", 0.05)
    mail_server.looks_s = 0.2
    target = mailing(mail_server.port, tls="none")
    assert await send(target, "email") == (None, "taken")
    assert outbox.MAIL_S == mails.TIMEOUT_S == 30


async def test_a_mail_server_that_is_down_is_a_reason(port: int):
    target = mailing(port, user=None, password_env=None)
    assert await send(target, "email") == ("ConnectionRefusedError", "silent")
