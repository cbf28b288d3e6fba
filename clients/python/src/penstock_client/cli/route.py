"""`penstock route`: traffic as the gateway has it."""

from __future__ import annotations

from typing import Annotated

import typer
from penstock.aigw.v1 import endpoint_service_pb2, route_pb2
from penstock.common.v1 import types_pb2

from penstock_client import names
from penstock_client.cli.context import client
from penstock_client.cli.output import (
    Format,
    OutputOption,
    age,
    message_json,
    print_json,
    print_message,
    print_messages,
    table,
    word,
)
from penstock_client.errors import InvalidArgument

app = typer.Typer(help="Routes: which versions answer a model's callers.", no_args_is_help=True)

RouteArgument = Annotated[str, typer.Argument(help="PROJECT/MODEL", metavar="ROUTE")]


@app.command("list")
def list_(
    project: Annotated[str, typer.Option(help="Only this project.")] = "-",
    output: OutputOption = Format.TABLE,
) -> None:
    """List routes with their weights."""
    with client("route list") as penstock:
        found = penstock.routes.list(project)
    if output is Format.JSON:
        print_messages("routes", found)
        return
    table(
        ["route", "weights", "ready", "changed"],
        [
            (
                names.short(r.name),
                ", ".join(f"{t.version}={t.weight}" for t in r.targets),
                _condition(r, "Ready"),
                f"{age(r.update_time)} ago",
            )
            for r in found
        ],
        empty="there are no routes yet; a deployment makes its own",
    )


@app.command()
def get(route: RouteArgument, output: OutputOption = Format.TABLE) -> None:
    """Show one route: weights wanted and observed, and the replicas behind it."""
    with client("route get") as penstock:
        found = penstock.routes.get(route)
        endpoints = penstock.endpoints.list(names.short(found.model or found.name))
    if output is Format.JSON:
        print_json({"route": message_json(found), "endpoints": [message_json(e) for e in endpoints]})
        return
    print(f"{names.short(found.name)}  generation {found.generation}, changed {age(found.update_time)} ago")
    weights = {t.version: t.weight for t in found.targets}
    print()
    table(
        ["version", "weight", "share", "ready", "draining", "ejected"],
        [
            (
                o.version,
                weights.get(o.version, 0),
                f"{o.share:.1%}",
                o.ready_endpoints,
                o.draining_endpoints,
                o.ejected_endpoints,
            )
            for o in found.observed_targets
        ],
        empty="no version has a replica",
    )
    print()
    table(
        ["endpoint", "version", "state", "grpc", "rest", "since"],
        [
            (
                e.name.rpartition("/")[2],
                e.version,
                word(endpoint_service_pb2.EndpointState, e.state, "ENDPOINT_STATE"),
                e.grpc_address,
                e.http_address or "-",
                age(e.register_time),
            )
            for e in endpoints
        ],
        empty="no replica is registered",
    )


@app.command("set")
def set_(
    route: RouteArgument,
    weights: Annotated[list[str], typer.Argument(help="VERSION=WEIGHT ...", metavar="VERSION=WEIGHT...")],
    reason: Annotated[str, typer.Option(help="Why, for the history.")] = "",
    prune: Annotated[bool, typer.Option("--prune", help="Remove versions that are not named.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Set all weights of a route at once. What a deployment owns, DPLO will set back: change the
    deployment.
    """
    wanted: dict[str, int] = {}
    for item in weights:
        version, equals, weight = item.partition("=")
        if not equals or not version or not weight.isdigit():
            raise InvalidArgument(
                f"{item!r} is no weight; write VERSION=WEIGHT, for example 1.0.0=90", reason="WEIGHT_INVALID"
            )
        wanted[version] = int(weight)
    with client("route set") as penstock:
        found = penstock.routes.set_weights(route, wanted, prune=prune, reason=reason)
    if output is Format.JSON:
        print_message(found)
    else:
        print(f"{names.short(found.name)}  " + ", ".join(f"{t.version}={t.weight}" for t in found.targets))


def _condition(route: route_pb2.Route, kind: str) -> str:
    for condition in route.conditions:
        if condition.type == kind:
            status = word(types_pb2.ConditionStatus, condition.status, "CONDITION_STATUS")
            return "yes" if status == "true" else f"no: {condition.message}" if status == "false" else status
    return "-"
