"""What is run, as argv and environment: the server, its worker, and the deployments."""

from __future__ import annotations

import ipaddress
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

from airlock.errors import Refused
from flows.runtime import auth

ROOT = Path(__file__).resolve().parents[2]
PREFECT_FILE = ROOT / "prefect.yaml"
LOOPBACK = "127.0.0.1"
WORK_POOL = "airlock"
WORKER = "airlock"
CORE_LOGGER = "airlock"
# Where people find the UI, if not at the server's own address: the links in alerts lead there.
UI_VARIABLE = "PREFECT_UI_URL"
UI_PORT = 4200
POLL_S = 2
# Prefect's shortest. A run whose process and worker are both gone is noticed by its silence.
HEARTBEAT_S = 30


def check_host(host: str) -> None:
    """Raises Refused for what is no address, or one that no browser can go to."""
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


def check_ui_url() -> None:
    """Raises Refused for a PREFECT_UI_URL that no link in alerts and reports can begin with."""
    given = os.environ.get(UI_VARIABLE, "")
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


def environment(state_dir: Path, *, auth_string: str, api_url: str) -> dict[str, str]:
    """This process's environment with its Prefect settings replaced by ours.

    Whatever PREFECT_ variables a person has set point at another server or another account; only
    where people find the UI is taken over.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
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
    if ui_url := os.environ.get(UI_VARIABLE):
        own[UI_VARIABLE] = ui_url
    own |= {auth.VARIABLE: auth_string, "PREFECT_API_AUTH_STRING": auth_string}
    own["PREFECT_API_URL"] = api_url
    # The default lets the page of any site start a deploy through the browser of whoever looks
    # at it.
    ui = api_url.removesuffix("/api")
    own["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] = f"{ui},{ui.replace(LOOPBACK, 'localhost')}"
    # That alone hides the answers from such a page; what it sends without asking is taken.
    own["PREFECT_SERVER_CSRF_PROTECTION_ENABLED"] = "true"
    return own


def server_command(listener: int) -> list[str]:
    """listener: the descriptor of a socket that listens."""
    return [sys.executable, "-P", "-m", "flows.runtime.server", "--fd", str(listener)]


# -P: what lies in the folder that the worker was started in, such as a tasks.py, is not imported in
# place of ours.
_PYTHON = (sys.executable, "-P", "-m")


def worker_command() -> list[str]:
    return [*_PYTHON, "flows.worker", "--name", WORKER]


def run_command() -> list[str]:
    """What the worker starts for each run; the run's id is in its environment."""
    return [*_PYTHON, "flows.run"]


def deploy_command(file: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "prefect", "--no-prompt", "deploy"),
        *("--all", "--prefect-file", str(file)),
    ]
