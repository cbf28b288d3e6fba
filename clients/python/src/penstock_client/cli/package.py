"""`penstock package`: packages, from build to the package service and back."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from penstock.mds.v1 import package_pb2

from penstock_client import names
from penstock_client.cli.context import client
from penstock_client.cli.output import (
    Format,
    OutputOption,
    age,
    err,
    print_json,
    print_message,
    print_messages,
    size,
    table,
    transfer,
    word,
)
from penstock_client.errors import FailedPrecondition

app = typer.Typer(help="Packages: build, push, list, get, download, delete.", no_args_is_help=True)

PackageArgument = Annotated[str, typer.Argument(help="PROJECT/MODEL:VERSION", metavar="PACKAGE")]


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False
)
def build(context: typer.Context) -> None:
    """Build a package: hands everything on to `mds build`."""
    if importlib.util.find_spec("mds") is not None:
        command = [sys.executable, "-m", "mds"]
    elif (found := shutil.which("mds")) is not None:
        command = [found]
    else:
        raise FailedPrecondition(
            "building packages needs the MDS package; install it with: pip install 'penstock-mds[onnx]'",
            reason="SERVICE_NOT_INSTALLED",
        )
    raise typer.Exit(subprocess.run([*command, "build", *context.args], check=False).returncode)


@app.command()
def push(
    file: Annotated[Path, typer.Argument(help="Package file that `mds build` made.")],
    name: Annotated[
        str | None,
        typer.Option(help="Store it as PROJECT/MODEL:VERSION instead of what its manifest says."),
    ] = None,
    project: Annotated[str | None, typer.Option(help="Project it belongs to.")] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Send a package to the package service. Safe to repeat: what is there is not sent again."""
    with client("package push") as penstock, transfer(f"pushing {file.name}") as progress:
        stored = penstock.packages.upload(file, name=name, project=project, progress=progress)
    if output is Format.JSON:
        print_message(stored)
    else:
        print(f"{names.short(stored.name)}  {stored.digest}")


@app.command("list")
def list_(
    model: Annotated[str | None, typer.Argument(help="PROJECT/MODEL; without it, all.")] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """List packages, newest first."""
    with client("package list") as penstock:
        found = penstock.packages.list(model)
    if output is Format.JSON:
        print_messages("packages", found)
        return
    table(
        ["package", "framework", "size", "state", "age", "digest"],
        [
            (
                names.short(p.name),
                p.manifest.framework,
                size(p.size_bytes),
                word(package_pb2.Package.State, p.state, "STATE"),
                age(p.create_time),
                p.digest[:19],
            )
            for p in found
        ],
        empty="there are no packages yet; push one with: penstock package push FILE --project PROJECT",
    )


@app.command()
def get(package: PackageArgument, output: OutputOption = Format.TABLE) -> None:
    """Show one package: its signature, requirements and files."""
    with client("package get") as penstock:
        found = penstock.packages.get(package)
    if output is Format.JSON:
        print_message(found)
        return
    manifest = found.manifest
    print(f"{names.short(found.name)}  {manifest.description}".rstrip())
    print(f"digest     {found.digest}")
    print(
        f"size       {size(found.size_bytes)} in {len(manifest.files)} files, "
        f"pushed {age(found.create_time)} ago"
    )
    print(f"framework  {manifest.framework}")
    if manifest.entry_class:
        print(f"class      {manifest.entry_class}")
    for requirement in manifest.requirements:
        print(f"requires   {requirement}")
    rows = [
        (kind, t.name, word(package_pb2.DataType, t.data_type, "DATA_TYPE").upper(), list(t.shape))
        for kind, tensors in (("input", manifest.signature.inputs), ("output", manifest.signature.outputs))
        for t in tensors
    ]
    print()
    table(["tensor", "name", "datatype", "shape"], rows)


@app.command()
def download(
    package: PackageArgument,
    destination: Annotated[Path, typer.Argument(help="Folder or file to write to.")] = Path(),
    output: OutputOption = Format.TABLE,
) -> None:
    """Fetch a package and check its digest. A download that broke off goes on where it stopped."""
    with client("package download") as penstock, transfer(f"downloading {package}") as progress:
        path = penstock.packages.download(package, destination, progress=progress)
    if output is Format.JSON:
        print_json({"path": str(path)})
    else:
        print(path)


@app.command()
def delete(
    package: PackageArgument,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="No error if it does not exist.")
    ] = False,
) -> None:
    """Delete a package. Replicas that already run it are not touched."""
    with client("package delete") as penstock:
        penstock.packages.delete(package, allow_missing=allow_missing)
    err().print(f"deleted {package}")
