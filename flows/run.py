"""What the worker starts for each run: one of our own flows, by our own table.

The server says which run it is, and of which deployment. Which flow that is, and of which target,
stands in prefect.yaml of this checkout; what the server has as entrypoint, path or pull steps is
not looked at. A run that is none of ours ends as refused, and nothing is done.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect._internal.control_listener import configure_from_env
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.engine import _drive_run_flow_result, handle_engine_signals
from prefect.exceptions import ObjectNotFound
from prefect.flow_engine import flow_run_logger, run_flow
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.states import Failed

from airlock.errors import Refused
from flows.runtime.deployments import in_our_table

RUN_VARIABLE = "PREFECT__FLOW_RUN_ID"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A deployment of ours, and the parameters that are not the run's to say."""

    flow: Flow[..., Any]
    fixed: Mapping[str, Any]


def main() -> int:
    run_id = UUID(os.environ[RUN_VARIABLE])
    configure_from_env()
    with handle_engine_signals(run_id), get_client(sync_client=True) as client:
        run = client.read_flow_run(run_id)
        try:
            chosen = choose(*_asked_for(client, run))
            check(run, chosen.fixed)
        except Refused as error:
            ended = Failed(name="Refused", message=str(error))
            client.set_flow_run_state(run.id, ended, force=True)
            return 0
        _carry_out(chosen.flow, run)
    return 0


def _asked_for(client: SyncPrefectClient, run: FlowRun) -> tuple[str, str]:
    """The names of flow and deployment. Raises Refused for a run of no deployment."""
    if run.deployment_id is None:
        raise Refused(
            "This run belongs to no deployment. Start it from one: Deployments, Run. "
            "Nothing was started."
        )
    try:
        deployment = client.read_deployment(run.deployment_id)
    except ObjectNotFound:
        raise Refused("The deployment of this run was deleted. Nothing was started.") from None
    return client.read_flow(deployment.flow_id).name, deployment.name


def choose(flow_name: str, name: str) -> Chosen:
    """The deployment of that name in prefect.yaml of this checkout. Raises Refused otherwise."""
    for each in in_our_table(name):
        flow = load_flow_from_entrypoint(each["entrypoint"], use_placeholder_flow=False)
        if flow.name == flow_name:
            target = each.get("parameters", {}).get("target")
            return Chosen(flow=flow, fixed={} if target is None else {"target": target})
    raise Refused(
        f"prefect.yaml of this worker has no deployment {flow_name}/{name}. Start one that it has, "
        "or add it there and publish again. Nothing was started."
    )


def check(run: FlowRun, fixed: Mapping[str, Any]) -> None:
    """Raises Refused where the run asks for another target than its deployment is for."""
    for key, value in fixed.items():
        asked = run.parameters.setdefault(key, value)
        if asked != value:
            raise Refused(
                f"This deployment is for {key} {value}, and the run asks for {asked!r}. Start the "
                f"deployment of {asked!r}. Nothing was started."
            )


def _carry_out(flow: Flow[..., Any], run: FlowRun) -> None:
    logger = flow_run_logger(flow_run=run)
    # For its state: a result would be loaded from where the server says, and unpickled.
    ended = run_flow(flow, flow_run=run, return_type="state", error_logger=logger)
    _drive_run_flow_result(flow, ended)


if __name__ == "__main__":
    sys.exit(main())
