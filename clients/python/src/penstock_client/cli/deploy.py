"""`penstock deploy`: models in service."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from penstock.dplo.v1 import deployment_pb2, deployment_service_pb2
from rich.console import Console

from penstock_client import names
from penstock_client.cli import deployment_view as view
from penstock_client.cli.context import client
from penstock_client.cli.output import (
    Format,
    OutputOption,
    age,
    err,
    message_json,
    moment,
    print_json,
    print_message,
    print_messages,
    table,
    word,
)
from penstock_client.deployments import OnChange
from penstock_client.errors import NotFound

app = typer.Typer(help="Deployments: which versions of a model are in service.", no_args_is_help=True)

DeploymentArgument = Annotated[str, typer.Argument(help="PROJECT/DEPLOYMENT", metavar="DEPLOYMENT")]
FileArgument = Annotated[Path, typer.Argument(help="Declaration in YAML.", metavar="FILE")]
MessageOption = Annotated[str, typer.Option("--message", "-m", help="Why, for the history.")]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the rollout to its end.")]
TimeoutOption = Annotated[
    float | None, typer.Option(help="Seconds to wait; the rollout goes on after them.", show_default=False)
]


@app.command()
def plan(file: FileArgument, output: OutputOption = Format.TABLE) -> None:
    """Say what applying a declaration would change and do, without doing it."""
    with client("deploy plan") as penstock:
        found = penstock.deployments.plan(file)
    if output is Format.JSON:
        print_message(found)
        return
    print(f"{names.short(found.deployment.name)}  " + ("is new" if found.creates else "exists"))
    print()
    table(
        ["field", "now", "then"],
        [(c.path, c.before or "-", c.after or "-") for c in found.changes],
        empty="no field changes",
    )
    print()
    table(
        ["phase", "action", "traffic"],
        [
            (
                word(deployment_pb2.RolloutPhase, a.phase, "ROLLOUT_PHASE"),
                a.description,
                view.traffic(a.traffic),
            )
            for a in found.actions
        ],
        empty="nothing would be done",
    )


@app.command()
def apply(
    file: FileArgument,
    message: MessageOption = "",
    force: Annotated[bool, typer.Option("--force", help="Roll out again even if nothing changed.")] = False,
    wait: WaitOption = True,
    timeout: TimeoutOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Make a deployment what the declaration says, and follow its rollout."""
    with client("deploy apply") as penstock, _following("applying", wait=wait) as on_change:
        found = penstock.deployments.apply(
            file, message=message, force=force, wait=wait, timeout=timeout, on_change=on_change
        )
    _show(found, output)


@app.command()
def status(deployment: DeploymentArgument, output: OutputOption = Format.TABLE) -> None:
    """Show what is declared, what runs, and how far a rollout is."""
    with client("deploy status") as penstock:
        found = penstock.deployments.get(deployment)
    _show(found, output)


@app.command("list")
def list_(
    project: Annotated[str, typer.Option(help="Only this project.")] = "-",
    output: OutputOption = Format.TABLE,
) -> None:
    """List deployments."""
    with client("deploy list") as penstock:
        found = penstock.deployments.list(project)
    if output is Format.JSON:
        print_messages("deployments", found)
        return
    table(
        ["deployment", "rollout", "versions", "ready", "traffic", "changed"],
        [view.row(d) for d in found],
        empty="there are no deployments yet; make one with: penstock deploy apply FILE",
    )


@app.command()
def history(deployment: DeploymentArgument, output: OutputOption = Format.TABLE) -> None:
    """List a deployment's revisions: who, what, when, why, and how the rollout went."""
    with client("deploy history") as penstock:
        found = penstock.deployments.history(deployment)
    if output is Format.JSON:
        print_messages("revisions", found)
        return
    table(
        ["revision", "state", "cause", "versions", "traffic", "author", "when", "message"],
        [
            (
                r.name.rpartition("/")[2],
                word(deployment_pb2.RolloutState, r.state, "ROLLOUT_STATE"),
                word(deployment_pb2.RevisionCause, r.cause, "REVISION_CAUSE"),
                ", ".join(v.version for v in r.declaration.versions),
                view.traffic(r.declaration.traffic),
                r.author or "-",
                moment(r.create_time),
                r.message or "-",
            )
            for r in found
        ],
    )


@app.command()
def promote(
    deployment: DeploymentArgument,
    to_completion: Annotated[
        bool, typer.Option("--to-completion", help="Move all traffic now, through every later step.")
    ] = False,
    wait: WaitOption = True,
    timeout: TimeoutOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Let a rollout that waits at a step go on."""
    with client("deploy promote") as penstock, _following("promoting", wait=wait) as on_change:
        found = penstock.deployments.promote(
            deployment, to_completion=to_completion, wait=wait, timeout=timeout, on_change=on_change
        )
    _show(found, output)


@app.command()
def rollback(
    deployment: DeploymentArgument,
    to: Annotated[
        int | None, typer.Option(help="Revision to go back to. Default: the last complete one before this.")
    ] = None,
    message: MessageOption = "",
    wait: WaitOption = True,
    timeout: TimeoutOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Go back to an earlier revision, as a new revision."""
    with client("deploy rollback") as penstock, _following("rolling back", wait=wait) as on_change:
        found = penstock.deployments.rollback(
            deployment, revision=to, message=message, wait=wait, timeout=timeout, on_change=on_change
        )
    _show(found, output)


@app.command()
def delete(
    deployment: DeploymentArgument,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="No error if it does not exist.")
    ] = False,
    wait: WaitOption = True,
    timeout: TimeoutOption = None,
) -> None:
    """Take a deployment out of service: its route first, then its replicas."""
    with client("deploy delete") as penstock, _following("deleting", wait=wait) as on_change:
        penstock.deployments.delete(
            deployment, allow_missing=allow_missing, wait=wait, timeout=timeout, on_change=on_change
        )
    err().print(f"deleted {deployment}" if wait else f"deleting {deployment}")


@app.command()
def watch(deployment: DeploymentArgument, output: OutputOption = Format.TABLE) -> None:
    """Follow what happens to a deployment until Ctrl-C or until it is gone."""
    with client("deploy watch") as penstock:
        for response in penstock.deployments.watch(deployment):
            if output is Format.JSON:
                print(json_line(response), flush=True)
            elif response.HasField("event"):
                print(view.event_line(response.event), flush=True)
            else:
                view.show(response.deployment)
                print(flush=True)


@app.command()
def drift(deployment: DeploymentArgument, output: OutputOption = Format.TABLE) -> None:
    """Ask every hop of the chain whether it agrees with the declaration."""
    with client("deploy drift") as penstock:
        found = penstock.deployments.drift(deployment)
    if output is Format.JSON:
        print_message(found)
        return
    table(
        ["hop", "state", "differences", "asked"],
        [
            (
                word(deployment_pb2.Hop, h.hop, "HOP"),
                word(deployment_pb2.DriftState, h.state, "DRIFT_STATE"),
                "; ".join(f"{d.path}: declared {d.declared}, is {d.actual}" for d in h.differences)
                or h.message
                or "-",
                age(h.observe_time),
            )
            for h in found.hops
        ],
    )


@app.command()
def logs(
    deployment: DeploymentArgument,
    replica: Annotated[str | None, typer.Option(help="Only this replica.")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=10_000, help="Lines from the end.")] = 50,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show the end of the replicas' logs."""
    with client("deploy logs") as penstock:
        found = penstock.deployments.get(deployment)
        there = [r for v in found.observed_versions for r in v.replicas]
        wanted = [r.name for r in there if replica in (None, r.name, r.name.rpartition("/")[2])]
        if not wanted:
            known = ", ".join(r.name.rpartition("/")[2] for r in there) or "none"
            what = f"no replica {replica!r}" if replica else "no replicas"
            raise NotFound(f"{deployment} has {what} (there: {known})", reason="REPLICA_NOT_FOUND")
        answers = [penstock.deployments.logs(name, lines=lines) for name in wanted]
    if output is Format.JSON:
        print_json({"logs": [message_json(answer) for answer in answers]})
        return
    for answer in answers:
        prefix = f"{answer.replica.rpartition('/')[2]} | " if len(answers) > 1 else ""
        for line in answer.lines:
            print(f"{prefix}{line}")


def json_line(response: deployment_service_pb2.WatchDeploymentResponse) -> str:
    """One response as one line of JSON."""
    import json

    return json.dumps(message_json(response), ensure_ascii=False)


def _show(deployment: deployment_pb2.Deployment, output: Format) -> None:
    if output is Format.JSON:
        print_message(deployment)
    else:
        view.show(deployment)


@contextlib.contextmanager
def _following(doing: str, *, wait: bool) -> Iterator[OnChange | None]:
    """Tells events on standard error as they come, with a status line where there is a terminal."""
    if not wait:
        yield None
        return
    console: Console = err()
    with console.status(doing) as line:

        def on_change(response: deployment_service_pb2.WatchDeploymentResponse) -> None:
            if view.is_step(response):
                console.print(view.event_line(response.event), markup=False, highlight=False)
            progress = response.deployment.rollout_progress
            if progress.message:
                line.update(f"{doing}: {progress.message}")

        yield on_change
