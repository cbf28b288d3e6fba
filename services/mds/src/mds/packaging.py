"""Building and reading packages with everything wired: what the commands, tests and examples call."""

import dataclasses
from pathlib import Path

from mds.adapters import archive, runtimes
from mds.adapters.code import forget_modules, import_serving_class
from mds.adapters.declaration import FILE, read_declaration
from mds.app.build import BuildProgress, BuildTools, build
from mds.domain.declaration import Declaration
from mds.domain.packages import PackageInfo
from mds.sdk.decorators import ServingClass

SUFFIX = archive.SUFFIX
read_manifest = archive.read_manifest
verify = archive.verify


class Quiet:
    """Progress that nobody sees."""

    def step(self, text: str) -> None:
        """Something begins."""

    def bytes(self, path: str, count: int) -> None:
        """So many more bytes."""


def build_package(
    source: Path | str,
    output: Path,
    said: Declaration | None = None,
    *,
    progress: BuildProgress | None = None,
) -> tuple[PackageInfo, Path]:
    """Builds the package of a folder, or of `module:Class` in the working folder; what is `said` here wins.

    `output` is a file, or a folder to name it in. Answers the package and where it lies. Raises
    `chassis.errors`.
    """
    said = said or Declaration()
    folder = Path(source)
    if isinstance(source, str) and ":" in source and not folder.exists():
        folder = Path.cwd()
        said = dataclasses.replace(said, entry=source, code=said.code or _module_files(folder, source))
    if (folder / FILE).is_file():
        said = _merged(read_declaration(folder / FILE), said)
    tools = BuildTools(runtimes.runtime, runtimes.framework_of, _import_class, archive.write)
    try:
        return build(folder, said, output, tools, progress or Quiet())
    finally:
        forget_modules(folder.resolve())


def _module_files(folder: Path, entry: str) -> tuple[str, ...]:
    """The files of the top module of `module:Class`: a package's folder, or the one file."""
    top = entry.partition(":")[0].partition(".")[0]
    return (f"{top}/**/*.py",) if (folder / top).is_dir() else (f"{top}.py",)


def _import_class(code: Path, entry: str) -> ServingClass:
    return import_serving_class(code.resolve(), entry)


def _merged(file: Declaration, over: Declaration) -> Declaration:
    given = {
        field.name: value
        for field in dataclasses.fields(over)
        if (value := getattr(over, field.name)) not in (None, False, {})
    }
    if "labels" in given:
        given["labels"] = {**file.labels, **over.labels}
    return dataclasses.replace(file, **given)
