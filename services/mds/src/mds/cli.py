"""The `mds` command: build, inspect and serve packages, and run the package service."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from chassis import errors

    from mds.domain.packages import PackageInfo

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Package models and serve them.",
)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE.yaml", help="Settings file; MDS_... variables win over it."),
]
OutputOption = Annotated[str, typer.Option("-o", "--output", metavar="text|json", help="Form of the output.")]


@app.command()
def build(
    source: Annotated[
        str, typer.Argument(metavar="DIR|MODULE:CLASS", help="Folder with penstock.yaml, or a serving class.")
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="PATH", help="Package file, or folder to put it in.")
    ] = Path(),
    model: Annotated[str | None, typer.Option(help="Id of the model.")] = None,
    version: Annotated[str | None, typer.Option(help="Version of the model.")] = None,
    model_files: Annotated[
        list[str] | None,
        typer.Option("--model-files", metavar="PATH[=NAME]", help="Model file, or pattern; may be repeated."),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="Label; may be repeated.")
    ] = None,
    allow_pickles: Annotated[
        bool, typer.Option("--allow-pickles", help="Let pickles in, which run code when they are read.")
    ] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Show no progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Build a package: one file with model, code and all that is known of them."""
    from chassis import errors

    from mds.domain.declaration import Declaration
    from mds.packaging import build_package

    try:
        said = Declaration(
            model=model,
            version=version,
            model_files=dict(_pair(text, swap=False) for text in model_files) if model_files else None,
            labels=dict(_pair(text) for text in label or ()),
            allow_pickles=allow_pickles,
        )
        with _progress(enabled=not quiet and sys.stderr.isatty()) as progress:
            info, path = build_package(source, out, said, progress=progress)
    except errors.Error as error:
        _fail(error)
    if as_json:
        typer.echo(json.dumps({"path": str(path), **_facts(info)}, indent=2))
    else:
        typer.echo(
            f"{path}  {info.manifest.model} {info.manifest.version}  {_size(info.size)}  {info.digest}"
        )


@app.command()
def inspect(
    package: Annotated[Path, typer.Argument(metavar="PACKAGE", help="Package file.")],
    output: OutputOption = "text",
    verify: Annotated[bool, typer.Option(help="Read all files and check their digests.")] = True,
) -> None:
    """Show what a package says of itself, and check its content."""
    from chassis import errors

    from mds import packaging

    try:
        info = packaging.verify(package) if verify else packaging.read_manifest(package)
    except errors.Error as error:
        _fail(error)
    if output == "json":
        typer.echo(json.dumps(_facts(info), indent=2))
    else:
        _show(info)


@app.command()
def serve(
    package: Annotated[Path, typer.Argument(metavar="PACKAGE", help="Package file.")],
    config: ConfigOption = None,
    project: Annotated[str | None, typer.Option(help="Project of the model (MDS_PROJECT).")] = None,
    instance_id: Annotated[str | None, typer.Option(help="Name of this replica (MDS_INSTANCE_ID).")] = None,
    digest: Annotated[str | None, typer.Option(help="Digest it must have (MDS_DIGEST).")] = None,
    registry: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Gateway to register with (MDS_REGISTRY__ADDRESS)."),
    ] = None,
    grpc_port: Annotated[int | None, typer.Option(help="gRPC port (MDS_GRPC__PORT); 0 takes any.")] = None,
    rest_port: Annotated[int | None, typer.Option(help="REST port (MDS_REST__PORT); 0 takes any.")] = None,
    max_items: Annotated[int | None, typer.Option(help="Items of a batch (MDS_MODEL__MAX_ITEMS).")] = None,
    allow_pickles: Annotated[
        bool, typer.Option("--allow-pickles", help="Serve packages with pickles.")
    ] = False,
) -> None:
    """Serve a package over the Open Inference Protocol (gRPC and REST) until told to stop."""
    from chassis.bootstrap import build_version
    from chassis.bootstrap import main as run_service

    from mds.bootstrap import MODEL_SERVER, build_model_server
    from mds.settings import ModelServerSettings, PackageServiceSettings

    given: dict[str, Any] = {
        "package": package,
        "project": project,
        "instance_id": instance_id,
        "digest": digest,
        "allow_pickles": allow_pickles or None,
        "registry": {"address": registry} if registry is not None else None,
        "grpc": {"port": grpc_port} if grpc_port is not None else None,
        "rest": {"port": rest_port} if rest_port is not None else None,
        "model": {"max_items": max_items} if max_items is not None else None,
    }
    raise typer.Exit(
        run_service(
            MODEL_SERVER,
            ModelServerSettings,
            build_model_server,
            version=build_version("mds"),
            config=config,
            environ=_environ_without(
                set(PackageServiceSettings.model_fields) - set(ModelServerSettings.model_fields)
            ),
            overrides={name: value for name, value in given.items() if value is not None},
        )
    )


@app.command()
def run(config: ConfigOption = None) -> None:
    """Run the package service until it is told to stop (SIGTERM or Ctrl-C), then drain."""
    from chassis.bootstrap import build_version
    from chassis.bootstrap import main as run_service

    from mds.bootstrap import PACKAGE_SERVER, build_package_service
    from mds.settings import ModelServerSettings, PackageServiceSettings

    raise typer.Exit(
        run_service(
            PACKAGE_SERVER,
            PackageServiceSettings,
            build_package_service,
            version=build_version("mds"),
            config=config,
            environ=_environ_without(
                set(ModelServerSettings.model_fields) - set(PackageServiceSettings.model_fields)
            ),
        )
    )


def _environ_without(foreign: set[str]) -> dict[str, str]:
    """The environment without settings of the other command, which has the same prefix."""
    heads = {
        name: name.removeprefix("MDS_").lower().split("__")[0]
        for name in os.environ
        if name.startswith("MDS_")
    }
    return {name: value for name, value in os.environ.items() if heads.get(name) not in foreign}


def _pair(text: str, *, swap: bool = True) -> tuple[str, str]:
    """`KEY=VALUE`; for model files `PATH=NAME`, where the name may be missing."""
    key, separator, value = text.partition("=")
    if swap and not separator:
        from chassis import errors

        raise errors.InvalidArgument(f"{text!r} must be KEY=VALUE", reason="LABEL_INVALID")
    return key, value


def _progress(*, enabled: bool) -> Any:
    from mds.progress import shown

    return shown(enabled=enabled)


def _facts(info: "PackageInfo") -> dict[str, Any]:
    from mds.domain.manifest_json import to_json

    facts: dict[str, Any] = {"digest": info.digest, "size_bytes": info.size}
    if info.archive_digest:
        facts["archive_digest"] = info.archive_digest
    return {**facts, "manifest": to_json(info.manifest)}


def _show(info: "PackageInfo") -> None:
    from rich.console import Console
    from rich.table import Table

    manifest = info.manifest
    console = Console(highlight=False)
    console.print(f"[bold]{manifest.model}[/bold] {manifest.version}   {manifest.description}")
    rows = Table(box=None, show_header=False, pad_edge=False)
    rows.add_column(no_wrap=True)
    rows.add_column(overflow="fold")
    batching = manifest.batching
    facts = {
        "digest": info.digest,
        "size": _size(info.size),
        "framework": manifest.framework,
        "serving class": manifest.entry_class or "none: the model file is served as it is",
        "model file": manifest.model_file,
        "python": manifest.python_version,
        "requirements": ", ".join(manifest.requirements),
        "base image": manifest.base_image,
        "batching": f"up to {batching.max_items} items" if batching.max_items > 1 else "off",
        "instances": str(manifest.execution.instances),
        "pickles": "yes: serve with --allow-pickles" if manifest.has_pickles else "",
        "labels": ", ".join(f"{key}={value}" for key, value in manifest.labels.items()),
    }
    for name, value in facts.items():
        if value:
            rows.add_row(name, value)
    console.print(rows)
    tensors = Table("", "tensor", "type", "shape", "compared by", box=None, pad_edge=False)
    for kind, specs in (("input", manifest.signature.inputs), ("output", manifest.signature.outputs)):
        for spec in specs:
            tolerance = spec.tolerance
            compared = ""
            if tolerance is not None:
                compared = f"top {tolerance.top_k}" if tolerance.top_k else f"±{tolerance.absolute:g}"
            tensors.add_row(kind, spec.name, spec.dtype.value, str(list(spec.shape)), compared)
    console.print(tensors)
    files = Table("file", "size", "sha256", box=None, pad_edge=False)
    for file in manifest.files:
        files.add_row(file.path, _size(file.size), file.digest.removeprefix("sha256:")[:16])
    console.print(files)


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def _fail(error: "errors.Error") -> NoReturn:
    typer.echo(f"mds: {error.message}", err=True)
    raise typer.Exit(1)


def main() -> None:
    """Entry point of the `mds` command."""
    app()
