"""Finds the files of a package in a folder."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from chassis import errors

from mds.domain.declaration import Declaration

_NEVER = {"__pycache__", "node_modules", "venv", "site-packages"}
_NEVER_SUFFIXES = {".pyc", ".pyo", ".mdspkg"}


@dataclass(frozen=True)
class Sources:
    """Files by their path in the package, and the main model file, a path below `model/`, if there is one."""

    files: Mapping[str, Path]
    model_file: str | None


def collect(root: Path, said: Declaration, framework_of: Callable[[str], str | None]) -> Sources:
    """Finds code and model files. Raises NotFound for what is named and not there, InvalidArgument."""
    root = root.resolve()
    models = _models(root, said, framework_of)
    model_file = _main(models, said, framework_of)
    files = {f"model/{name}": path for name, path in models.items()}
    code = said.code if said.code is not None else (("**/*.py",) if said.entry else ())
    taken = set(models.values())
    for pattern in code:
        found = [path for path in _matches(root, pattern) if path not in taken]
        if not found and said.code is not None:
            raise _nothing(root, "code", pattern)
        files.update({f"code/{path.relative_to(root).as_posix()}": path for path in found})
    return Sources(files, model_file)


def _models(root: Path, said: Declaration, framework_of: Callable[[str], str | None]) -> dict[str, Path]:
    if said.model_files is None and said.model_file is None:
        found = [path for path in _matches(root, "**/*") if framework_of(path.name)]
        if len(found) > 1:
            names = ", ".join(str(path.relative_to(root)) for path in found)
            raise errors.InvalidArgument(
                f"{root} has several model files ({names}): say which belong to the package, with "
                "model_files",
                reason="MODEL_FILES_AMBIGUOUS",
            )
        return _named(root, found)
    wanted = dict(said.model_files or {})
    if said.model_files is None and said.model_file is not None:
        wanted = {said.model_file: ""}
    files: dict[str, Path] = {}
    for pattern, name in wanted.items():
        given = (root / pattern).resolve()
        found = [given] if given.is_file() else _matches(root, pattern)
        if not found:
            raise _nothing(root, "model_files", pattern)
        if name and len(found) > 1:
            raise errors.InvalidArgument(
                f"model_files: {pattern} is {len(found)} files, which cannot all be called {name}",
                reason="MODEL_FILES_AMBIGUOUS",
            )
        files.update({name: found[0]} if name else _named(root, found))
    return files


def _named(root: Path, paths: Iterable[Path]) -> dict[str, Path]:
    """Names in the package: the path below the root, or only the last part for files from elsewhere."""
    return {
        (path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name): path
        for path in paths
    }


def _main(
    models: Mapping[str, Path], said: Declaration, framework_of: Callable[[str], str | None]
) -> str | None:
    if said.model_file is not None:
        if said.model_file not in models:
            raise errors.InvalidArgument(
                f"model_file {said.model_file!r} is not among the model files: {', '.join(models) or 'none'}",
                reason="MODEL_FILE_MISSING",
            )
        return said.model_file
    known = [name for name in models if framework_of(name)]
    if len(known) == 1:
        return known[0]
    return next(iter(models)) if len(models) == 1 else None


def _matches(root: Path, pattern: str) -> list[Path]:
    if pattern.startswith("/") or ".." in pattern.split("/"):
        raise errors.NotFound(
            f"{pattern!r} is no file, and a pattern must stay below {root}", reason="SOURCE_MISSING"
        )
    found = []
    for path in sorted(root.glob(pattern)):
        parts = path.relative_to(root).parts
        if not path.is_file() or path.suffix in _NEVER_SUFFIXES:
            continue
        if any(part.startswith(".") or part in _NEVER for part in parts):
            continue
        if not path.resolve().is_relative_to(root):
            raise errors.InvalidArgument(
                f"{path} is a link that leads out of {root}; copy the file there instead",
                reason="SOURCE_OUTSIDE",
                metadata={"path": str(path)},
            )
        found.append(path)
    return found


def _nothing(root: Path, field: str, pattern: str) -> errors.NotFound:
    return errors.NotFound(
        f"{field}: there is no file {pattern!r} in {root}",
        reason="SOURCE_MISSING",
        metadata={"pattern": pattern, "field": field},
    )
