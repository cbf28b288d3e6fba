"""The `aigw` command."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Penstock's model gateway.")

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE.yaml", help="Settings file; AIGW_... variables win over it."),
]


@app.callback()
def root() -> None:
    """Penstock's model gateway."""


@app.command()
def run(config: ConfigOption = None) -> None:
    """Run the gateway until it is told to stop (SIGTERM or Ctrl-C), then drain."""
    # Imported here, so that `aigw --help` answers at once.
    from chassis.bootstrap import main as serve

    from aigw.bootstrap import NAME, build
    from aigw.settings import AigwSettings

    raise typer.Exit(serve(NAME, AigwSettings, build, config=config))


def main() -> None:
    """Entry point of the `aigw` command."""
    app()
