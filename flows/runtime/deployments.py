"""The deployments of prefect.yaml, as far as airlock.toml has their targets."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import yaml

from airlock import settings
from airlock.errors import Broken, Refused
from flows.runtime import command
from flows.runtime.process import private, process, tail

DEPLOY_S = 120
END_S = 5


async def apply(state_dir: Path, env: dict[str, str]) -> frozenset[str]:
    """Create or update them on the server that ``env`` names; the queues that their runs wait in.

    Raises Broken with Prefect's words.

    Prefect refuses a preset target that the form does not offer, so a deployment whose target
    airlock.toml does not have is left out.
    """
    log, file = state_dir / "deployments.log", state_dir / command.PREFECT_FILE.name
    content = yaml.safe_load(command.PREFECT_FILE.read_text(encoding="utf-8"))
    chosen = fitting(content, _targets())
    if not chosen["deployments"]:
        return frozenset()
    with private(file) as output:
        output.write(yaml.safe_dump(chosen).encode())
    async with process(command.deploy_command(file), log=log, env=env, end_s=END_S) as child:
        async with asyncio.timeout(DEPLOY_S):
            await child.wait()
        if child.returncode:
            raise Broken(
                f"prefect deploy ended with {child.returncode} on {command.PREFECT_FILE.name}. "
                f"Its last lines:\n{tail(log)}"
            )
    pools = [each["work_pool"] for each in chosen["deployments"]]
    return frozenset(pool["work_queue_name"] for pool in pools if "work_queue_name" in pool)


def fitting(content: dict[str, Any], targets: frozenset[str]) -> dict[str, Any]:
    """prefect.yaml without the deployments that preset a target other than these."""
    kept = [
        each
        for each in content["deployments"]
        if each.get("parameters", {}).get("target") in {None, *targets}
    ]
    return {**content, "deployments": kept}


def _targets() -> frozenset[str]:
    try:
        return frozenset(settings.load(settings.config_path(command.ROOT)).targets)
    except Refused:
        return frozenset()
