"""GitHub: one deployment for each deploy of a release, and the status it ended with.

https://docs.github.com/rest/deployments
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airlock.alert import Alert, http
from airlock.alert.routing import ROUTES
from airlock.settings import AlertSettings, Target

if TYPE_CHECKING:
    import httpx

DESCRIPTION_CHARACTERS = 140


def is_configured(alerts: AlertSettings) -> bool:
    return alerts.github is not None


async def send(target: Target, key: str, alert: Alert) -> None:
    del key  # found by deployment() instead
    settings = target.alerts.github
    assert settings is not None  # noqa: S101 – is_configured
    headers = {
        "Authorization": f"Bearer {target.variable(settings.token_env)}",
        "Accept": "application/vnd.github+json",
        "X-GitHub-Api-Version": "2022-11-28",
    }
    url = f"{settings.api_url.rstrip('/')}/repos/{settings.repository}/deployments"
    wanted = deployment(alert, settings.environment or target.name)
    async with http.client(target, headers) as client:
        number = await _found(client, url, wanted) or await _created(client, url, wanted)
        http.taken(
            await client.post(
                f"{url}/{number}/statuses", json=status(alert.seen_from(http.host(url)))
            )
        )


def deployment(alert: Alert, environment: str) -> dict[str, object]:
    """The deployment of one deploy; its task is what it is found by again."""
    return {
        "ref": alert.ref,
        "task": f"deploy:airlock-{alert.target}-{alert.deploy}",
        "environment": environment,
        "description": _short(f"Migrations {alert.versions}"),
        # Ours was rehearsed: nothing is to be merged or waited for.
        "auto_merge": False,
        "required_contexts": [],
    }


def status(alert: Alert) -> dict[str, object]:
    said: dict[str, object] = {
        "state": ROUTES[alert.state].status,
        "description": _short(alert.headline),
    }
    return said | ({"log_url": alert.run_url} if alert.run_url else {})


def _short(text: str) -> str:
    most = DESCRIPTION_CHARACTERS
    return text if len(text) <= most else f"{text[: most - 1]}…"


async def _found(client: httpx.AsyncClient, url: str, wanted: dict[str, object]) -> int | None:
    """That of an earlier try, or of the deploy that was undone since."""
    query = {name: str(wanted[name]) for name in ("ref", "task", "environment")}
    answer = http.taken(await client.get(url, params=query))
    return next((each["id"] for each in answer.json()), None)


async def _created(client: httpx.AsyncClient, url: str, wanted: dict[str, object]) -> int:
    return http.taken(await client.post(url, json=wanted)).json()["id"]
