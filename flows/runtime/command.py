"""What is run, as argv and environment: the server, its worker, and the deployments."""

from __future__ import annotations

import base64
import ipaddress
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

from airlock.errors import Refused

ROOT = Path(__file__).resolve().parents[2]
PREFECT_FILE = ROOT / "prefect.yaml"
LOOPBACK = "127.0.0.1"
WORK_POOL = "airlock"
WORKER = "airlock"
CORE_LOGGER = "airlock"
AUTH_VARIABLE = "PREFECT_SERVER_API_AUTH_STRING"
POLL_S = 2
# Prefect's shortest. A run whose process and worker are both gone is noticed by its silence.
HEARTBEAT_S = 30


def auth_string() -> str | None:
    """What the server asks of whoever speaks to it, as ``name:password``; None: of nobody."""
    return os.environ.get(AUTH_VARIABLE) or None


def authorization() -> dict[str, str]:
    """The header that carries it."""
    secret = auth_string()
    if secret is None:
        return {}
    return {"Authorization": f"Basic {base64.b64encode(secret.encode()).decode()}"}


def check_host(host: str) -> None:
    """Raises Refused for an address where everybody could start a deploy, or none could be met."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise Refused(
            f"{host!r} is no IP address. Name the one of this machine that others reach it by."
        ) from None
    if address.is_unspecified:
        raise Refused(
            f"{host} stands for every address, and no browser can go there. Name the one of this "
            "machine that others reach it by."
        )
    if not address.is_loopback and auth_string() is None:
        raise Refused(
            f"On {host} everybody who reaches this machine could start a deploy. Set "
            f"{AUTH_VARIABLE} to a name and a password (name:password), or leave --host out."
        )


def check_ui_url() -> None:
    """Raises Refused for a PREFECT_UI_URL that no link in alerts and reports can begin with."""
    given = os.environ.get("PREFECT_UI_URL", "")
    if given and not _begins_links(given):
        # Not repeated: it may hold a password.
        raise Refused(
            "PREFECT_UI_URL is not the address of a web page without user, query and fragment. "
            "Set it to the one that people type into their browsers, such as "
            "https://prefect.example.org, or unset it."
        )


def _begins_links(address: str) -> bool:
    try:
        parts = urlsplit(address)
        _ = parts.port  # read when asked for
    except ValueError:
        return False
    has_more = "@" in parts.netloc or parts.query or parts.fragment or address.split() != [address]
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not has_more


def api_url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/api"


def database(state_dir: Path) -> Path:
    return state_dir / "prefect.db"


def environment(state_dir: Path, *, api_url: str | None = None) -> dict[str, str]:
    """This process's environment with its Prefect settings replaced by ours.

    Whatever PREFECT_ variables a person has set point at another server or another account; only
    what our own server asks of its callers is taken over.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    # The worker starts flow runs with "python"; a bare one may be the system's.
    own["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), own.get("PATH", os.defpath)])
    own |= {
        "PREFECT_HOME": str(state_dir),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{database(state_dir)}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_EXTRA_LOGGERS": CORE_LOGGER,
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_WORKER_QUERY_SECONDS": str(POLL_S),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),
        "PYTHONUNBUFFERED": "1",
    }
    if secret := auth_string():
        own |= {AUTH_VARIABLE: secret, "PREFECT_API_AUTH_STRING": secret}
    if api_url:
        own["PREFECT_API_URL"] = api_url
        # The default lets the page of any site start a deploy through the browser of whoever
        # looks at it.
        ui = api_url.removesuffix("/api")
        allowed = f"{ui},{ui.replace(LOOPBACK, 'localhost')}"
        own["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] = allowed
        # That alone hides the answers from such a page; what it sends without asking is taken.
        own["PREFECT_SERVER_CSRF_PROTECTION_ENABLED"] = "true"
    return own


def server_command(host: str, port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "prefect", "server", "start"),
        *("--host", host, "--port", str(port), "--analytics-off"),
    ]


# Prefect keeps a folder for its runs in /tmp/runner_storage, which belongs to whichever user of the
# machine had a worker first, and is closed to all others. TMPDIR would move it too, but the flows
# and the service that they start would inherit that.
_WITH_OWN_RUNNER_STORAGE = (
    "import os, runpy, tempfile; tempfile.tempdir = os.environ['PREFECT_HOME']; "
    "runpy.run_module('prefect', run_name='__main__', alter_sys=True)"
)


def worker_command() -> list[str]:
    return [
        *(sys.executable, "-c", _WITH_OWN_RUNNER_STORAGE, "worker", "start"),
        *("--pool", WORK_POOL, "--type", "process", "--name", WORKER),
    ]


def deploy_command(file: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "prefect", "--no-prompt", "deploy"),
        *("--all", "--prefect-file", str(file)),
    ]
