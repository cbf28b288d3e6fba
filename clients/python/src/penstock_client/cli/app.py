"""The command's tree."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Annotated

import typer

from penstock_client.cli import deploy, package, predict, route, stack
from penstock_client.cli.context import CHOICE
from penstock_client.cli.failures import EXIT_CODES
from penstock_client.cli.output import Format, OutputOption, print_json

_EPILOG = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + "."

app = typer.Typer(
    name="penstock",
    help="Package, deploy and route machine-learning models.",
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(
    profile: Annotated[
        str | None,
        typer.Option(help="Profile of the configuration file to use.", envvar="PENSTOCK_PROFILE"),
    ] = None,
) -> None:
    """Package, deploy and route machine-learning models."""
    CHOICE.profile = profile


app.command("up")(stack.up)
app.command("down")(stack.down)
app.command("status")(stack.status)
app.add_typer(package.app, name="package")
app.add_typer(deploy.app, name="deploy")
app.add_typer(route.app, name="route")
app.command("predict")(predict.predict)


@app.command("version")
def show_version(output: OutputOption = Format.TABLE) -> None:
    """Show the version of this command."""
    own, python = version("penstock-client"), platform.python_version()
    if output is Format.JSON:
        print_json({"penstock": own, "python": python})
    else:
        print(f"penstock {own} (Python {python})")
