"""`airlock ui`: Prefect's UI in the browser, without the auth string being typed."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import webbrowser
from pathlib import Path

from airlock import settings
from airlock.errors import AirlockError, Refused
from flows.runtime import Runtime, auth, published_api_url, running
from flows.runtime.process import private

# Browsers are given their addresses on the command line, which every user of the machine can read.
PAGE = """\
<!DOCTYPE html>
<meta charset="utf-8">
<title>Airlock</title>
<script>location.replace({link})</script>
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="airlock ui", description=__doc__)
    parser.add_argument("--print", action="store_true", dest="shown")
    parser.add_argument("--rotate", action="store_true")
    given = parser.parse_args()
    try:
        state_dir = settings.load().state_dir / "prefect"
        if given.rotate:
            _rotate(state_dir)
        elif given.shown:
            print(_runtime(state_dir).ui_link())  # noqa: T201
        else:
            _open(state_dir)
    except AirlockError as error:
        print(f"airlock: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _runtime(state_dir: Path) -> Runtime:
    found = asyncio.run(running(state_dir))
    if found is None:
        raise Refused(f"No Prefect server runs on {state_dir}. Start one: make serve")
    return found


def _open(state_dir: Path) -> None:
    link, page = _runtime(state_dir).ui_link(), state_dir / "ui.html"
    with private(page) as file:
        file.write(PAGE.format(link=json.dumps(link)).encode())
    if not webbrowser.open(page.as_uri()):
        raise Refused("No browser was found here. For a link to open in one: airlock ui --print")


def _rotate(state_dir: Path) -> None:
    auth.rotate(state_dir)
    print("There is a new auth string. Browsers are let in again with: airlock ui")  # noqa: T201
    if api_url := published_api_url(state_dir):
        print(  # noqa: T201
            f"The server at {api_url} keeps the old one until it ends: stop `make serve` with "
            "Ctrl-C, and start it again."
        )


if __name__ == "__main__":
    sys.exit(main())
