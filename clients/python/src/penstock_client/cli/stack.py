"""`penstock up`, `down`, `status`: everything on this machine."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from penstock_client.cli.output import Format, OutputOption, err, out, print_json, table
from penstock_client.errors import FailedPrecondition
from penstock_client.local import stack as local
from penstock_client.local import state
from penstock_client.local.services import DEFAULT_FIRST_PORT

StateOption = Annotated[
    Path | None,
    typer.Option(
        "--state",
        help="Folder for data, logs and process ids. "
        "Default: PENSTOCK_STATE, else penstock under the user's state folder.",
        show_default=False,
    ),
]


def up(
    folder: StateOption = None,
    first_port: Annotated[
        int,
        typer.Option(help="First of the ports: AIGW takes it, DPLO 10 and MDS 20 above. 0: any free ports."),
    ] = DEFAULT_FIRST_PORT,
    traces: Annotated[
        str, typer.Option(help="Where spans go: off, file (below the state folder), or otlp:HOST:PORT.")
    ] = "off",
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay here until Ctrl-C, then stop everything.")
    ] = False,
) -> None:
    """Start gateway, deployment service and package service on this machine and leave them running.

    Nothing else is needed: state lies in SQLite and folders. What already runs is left as it is.
    """
    where = folder or state.folder()
    console = err()
    options = local.StackOptions(where.absolute(), first_port, traces)
    with console.status("starting Penstock"):
        running = local.start(options, _teller())
    _show_next_steps(running, is_default=where == state.folder())
    if foreground:
        _stay(running)


def down(folder: StateOption = None) -> None:
    """Stop everything that `penstock up` started, model replicas included. Data stays."""
    where = (folder or state.folder()).absolute()
    with err().status("stopping Penstock"):
        had = local.stop(where, _teller())
    err().print("everything is stopped" if had else "nothing was running")


def status(folder: StateOption = None, output: OutputOption = Format.TABLE) -> None:
    """Show the services that `penstock up` started."""
    where = (folder or state.folder()).absolute()
    services = local.status(where)
    if output is Format.JSON:
        print_json(
            {
                "folder": str(where),
                "services": [
                    {
                        "name": s.name,
                        "state": _word(s),
                        "pid": s.state.pid,
                        "grpc": s.state.grpc,
                        "rest": s.state.rest,
                        "log": s.state.log,
                    }
                    for s in services
                ],
            }
        )
    else:
        table(
            ["service", "state", "pid", "grpc", "rest", "log"],
            [(s.title, _word(s), s.state.pid, s.state.grpc, s.state.rest, s.state.log) for s in services],
            empty="nothing was started here; start it with: penstock up",
        )
    if not services or not all(s.ready for s in services):
        raise typer.Exit(6)


def _word(service: local.ServiceStatus) -> str:
    if not service.running:
        return "stopped"
    return "ready" if service.ready else "not ready"


def _teller() -> local.Tell:
    console = err()

    def tell(name: str, what: str) -> None:
        console.print(f"  [bold]{name:<9}[/bold] {what}", highlight=False)

    return tell


def _show_next_steps(running: state.StackState, *, is_default: bool) -> None:
    console = out()
    lead = "" if is_default else f"PENSTOCK_STATE={running.folder} "
    rest = {name: entry.rest for name, entry in running.services.items()}
    lines = ["", "Penstock is up. Try:"]
    if sys.prefix != sys.base_prefix and os.environ.get("VIRTUAL_ENV") != sys.prefix:
        # Run as .venv/bin/penstock or by make: the person's own shell does not know the command.
        lines.append(f'  export PATH="{Path(sys.executable).parent}:$PATH"')
    lines += [
        f"  {lead}penstock status",
        f"  {lead}penstock package push MODEL-VERSION.mdspkg --project PROJECT   # made by: mds build FOLDER",
        f"  {lead}penstock deploy apply DEPLOYMENT.yaml",
        f"  {lead}penstock predict PROJECT/MODEL --input @INPUT.json",
        f"  {lead}penstock down",
        "The repository's docs/quickstart.md goes through it with a model of handwritten digits.",
        "",
        "REST faces, each with its documentation:",
        f"  gateway      {rest['aigw']}/docs",
        f"  deployments  {rest['dplo']}/docs",
        f"  packages     {rest['mds']}/docs",
    ]
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def _stay(running: state.StackState) -> None:
    """Waits for Ctrl-C or SIGTERM, or for a service to end by itself, and stops everything then."""
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    err().print("Ctrl-C stops everything.", style="dim")
    ended: list[str] = []
    while not over.wait(0.5) and not ended:
        ended = [s.title for s in local.status(running.folder) if not s.running]
    local.stop(running.folder, _teller())
    if ended:
        raise FailedPrecondition(
            f"{', '.join(ended)} ended by itself; its log is in {running.folder / 'logs'}",
            reason="SERVICE_ENDED",
        )
