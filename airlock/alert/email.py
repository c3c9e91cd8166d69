"""E-mail, handed to a mail server by SMTP."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr

from airlock.alert import Alert, NotTaken
from airlock.settings import AlertSettings, EmailSettings, Target

TIMEOUT_S = 30.0
# The first of SMTP's codes after which the same would be refused again (RFC 5321, 4.2.1).
PERMANENT = 500


def is_configured(alerts: AlertSettings) -> bool:
    return alerts.email is not None


async def send(target: Target, key: str, alert: Alert) -> None:
    settings = target.alerts.email
    assert settings is not None  # noqa: S101 – is_configured
    if settings.tls == "none":
        target.refuse_plaintext(settings.host)
    password = target.variable(settings.password_env) if settings.password_env else None
    # Whoever hands the mail over may be here; whoever reads it is not.
    mail = message(settings, key, alert.seen_from(None))
    await asyncio.to_thread(_hand_over, settings, password, mail)


def message(settings: EmailSettings, key: str, alert: Alert) -> EmailMessage:
    """A second copy has the same Message-ID, by which mail programs put copies together."""
    mail = EmailMessage()
    # A line break would begin another header.
    mail["Subject"] = " ".join(alert.title.split())
    mail["From"] = settings.sender
    mail["To"] = ", ".join(settings.to)
    mail["Date"] = format_datetime(alert.at or datetime.now(UTC))
    domain = parseaddr(settings.sender)[1].rpartition("@")[2] or "localhost"
    mail["Message-ID"] = f"<airlock-{key}@{domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content("\n".join(alert.lines) + "\n")
    return mail


def _hand_over(settings: EmailSettings, password: str | None, mail: EmailMessage) -> None:
    # create_default_context checks the server's name and its certificate.
    context = ssl.create_default_context() if settings.tls != "none" else None
    try:
        with _connected(settings, context) as server:
            if settings.tls == "starttls":
                server.starttls(context=context)
            if settings.user is not None:
                server.login(settings.user, password or "")
            # Those who were refused would not be the wiser for a second mail to the others.
            server.send_message(mail)
    except smtplib.SMTPResponseException as error:
        # Anything else, such as a wrong password, is said about every mail alike.
        is_final = isinstance(error, smtplib.SMTPDataError) and error.smtp_code >= PERMANENT
        said = f"{type(error).__name__} {error.smtp_code}"
        raise NotTaken(said, is_final=is_final) from None
    except smtplib.SMTPRecipientsRefused as error:
        raise NotTaken(type(error).__name__, is_final=False) from None


def _connected(settings: EmailSettings, context: ssl.SSLContext | None) -> smtplib.SMTP:
    if settings.tls == "tls":
        return smtplib.SMTP_SSL(settings.host, settings.port, timeout=TIMEOUT_S, context=context)
    return smtplib.SMTP(settings.host, settings.port, timeout=TIMEOUT_S)
