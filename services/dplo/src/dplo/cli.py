"""The `dplo` command."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Penstock's deployment service.")

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE.yaml", help="Settings file; DPLO_... variables win over it."),
]


@app.callback()
def root() -> None:
    """Penstock's deployment service."""


@app.command()
def run(config: ConfigOption = None) -> None:
    """Run the deployment service until it is told to stop (SIGTERM or Ctrl-C). Replicas go on serving."""
    # Imported here, so that `dplo --help` answers at once.
    from chassis.bootstrap import main as serve

    from dplo.bootstrap import NAME, build
    from dplo.settings import DploSettings

    raise typer.Exit(serve(NAME, DploSettings, build, config=config))


def main() -> None:
    """Entry point of the `dplo` command."""
    app()
