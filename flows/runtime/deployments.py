"""The deployments of prefect.yaml, as far as airlock.toml has their targets."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import yaml

from airlock import settings
from airlock.errors import Broken, Refused
from flows.runtime import command
from flows.runtime.process import private, process, tail

DEPLOY_S = 120
END_S = 5


async def apply(http: httpx.AsyncClient, state_dir: Path, env: dict[str, str]) -> frozenset[str]:
    """Create or update them on one server; the queues that their runs wait in.

    http, env: for us and for `prefect deploy`, of the same server.
    Raises Broken with Prefect's words.

    Prefect refuses a preset target that the form does not offer, so a deployment whose target
    airlock.toml does not have is left out.
    """
    log, file = state_dir / "deployments.log", state_dir / command.PREFECT_FILE.name
    content = yaml.safe_load(command.PREFECT_FILE.read_text(encoding="utf-8"))
    chosen = as_people_left_them(fitting(content, _targets()), await published(http))
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


def in_our_table(name: str) -> list[dict[str, Any]]:
    """The deployments of that name in prefect.yaml of this checkout; one for each flow."""
    try:
        content = yaml.safe_load(command.PREFECT_FILE.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise Refused(
            f"{command.PREFECT_FILE} cannot be read: {error}. Nothing was started."
        ) from None
    return [each for each in content["deployments"] if each["name"] == name]


def fitting(content: dict[str, Any], targets: frozenset[str]) -> dict[str, Any]:
    """prefect.yaml without the deployments that preset a target other than these."""
    kept = [
        each
        for each in content["deployments"]
        if each.get("parameters", {}).get("target") in {None, *targets}
    ]
    return {**content, "deployments": kept}


def as_people_left_them(content: dict[str, Any], there: list[dict[str, Any]]) -> dict[str, Any]:
    """prefect.yaml with what was switched on the server: schedules, their hours, pauses.

    `prefect deploy` would make the file's schedules anew, and lift each pause.
    """
    known = {(each["entrypoint"], each["name"]): each for each in there}
    kept = [
        _left(each, known.get((each["entrypoint"], each["name"])))
        for each in content["deployments"]
    ]
    return {**content, "deployments": kept}


def _left(wanted: dict[str, Any], found: dict[str, Any] | None) -> dict[str, Any]:
    if found is None:
        return wanted
    # Schedules that the file does not have are left alone.
    kept = {key: value for key, value in wanted.items() if key != "schedules"}
    return (kept if found["schedules"] else wanted) | {"paused": found["paused"]}


async def published(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    """Our deployments as they are on a server."""
    ours = {"work_pools": {"name": {"any_": [command.WORK_POOL]}}}
    return (await http.post("/deployments/filter", json=ours)).raise_for_status().json()


async def published_by_title(http: httpx.AsyncClient) -> dict[str, dict[str, Any]]:
    """The same by the names that people look for, such as deploy/prod."""
    flows = (await http.post("/flows/filter", json={})).raise_for_status().json()
    names = {each["id"]: each["name"] for each in flows}
    found = {f"{names[each['flow_id']]}/{each['name']}": each for each in await published(http)}
    return dict(sorted(found.items()))


async def draw_plainly(http: httpx.AsyncClient) -> None:
    """Give each field that may be empty one box, in the forms of our deployments on a server."""
    for each in await published(http):
        drawn = {"parameter_openapi_schema": plain(each["parameter_openapi_schema"])}
        (await http.patch(f"/deployments/{each['id']}", json=drawn)).raise_for_status()


def plain(form: dict[str, Any]) -> dict[str, Any]:
    """A form whose fields that may be empty are of one type, and absent when empty.

    Prefect's new UI draws ``anyOf`` as tabs, one of them for null, and sends a default of null for
    a field that nobody touched. To the API, what is neither required nor has a default may be null.
    """
    fields = {name: _plain(field) for name, field in form["properties"].items()}
    return {**form, "properties": fields}


def _plain(field: dict[str, Any]) -> dict[str, Any]:
    kinds = [each for each in field.get("anyOf", []) if each != {"type": "null"}]
    if len(kinds) != 1 or field.get("default") is not None:
        return field
    rest = {key: value for key, value in field.items() if key not in {"anyOf", "default"}}
    return kinds[0] | rest


def _targets() -> frozenset[str]:
    try:
        return frozenset(settings.load(settings.config_path(command.ROOT)).targets)
    except Refused:
        return frozenset()
