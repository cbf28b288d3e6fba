"""Builds a package: finds what goes in, asks class and model file for the rest, and has it written."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from chassis import errors

from mds.app.ports import Runtime
from mds.app.sources import Sources, collect
from mds.domain.declaration import Declaration
from mds.domain.execution import Batching, Execution
from mds.domain.manifest import Manifest, PackageFile, Role
from mds.domain.packages import PackageInfo
from mds.domain.pickles import pickle_reason
from mds.domain.signature import Signature
from mds.sdk.decorators import ServingClass, ServingConfig

T = TypeVar("T")
CHUNK = 1 << 20


class BuildProgress(Protocol):
    """Is told how far a build is."""

    def step(self, text: str) -> None:
        """Something begins."""
        ...

    def bytes(self, path: str, count: int) -> None:
        """So many more bytes of a file were read or written."""
        ...


@dataclass(frozen=True)
class BuildTools:
    """What a build needs from outside."""

    runtime: Callable[[str], Runtime]
    framework_of: Callable[[str], str | None]
    import_class: Callable[[Path, str], ServingClass]
    write: Callable[[Path, Manifest, dict[str, Path], Callable[[str, int], None]], PackageInfo]


def build(
    source: Path, said: Declaration, output: Path, tools: BuildTools, progress: BuildProgress
) -> tuple[PackageInfo, Path]:
    """Builds the package of a folder; `output` is a file, or a folder to name it in. Answers it and where it
    lies.

    What is said wins over what the class says, and that over what the model file tells. Raises
    InvalidArgument, NotFound, FailedPrecondition, ResourceExhausted.
    """
    if not source.is_dir():
        raise errors.NotFound(f"there is no folder {source}", reason="SOURCE_MISSING")
    progress.step("reading code")
    declared = tools.import_class(source, said.entry) if said.entry else None
    said = _completed(said, declared.config if declared else None)
    progress.step("collecting files")
    sources = collect(source, said, tools.framework_of)
    framework = said.framework or tools.framework_of(sources.model_file or "") or "python"
    _check_steps(declared, framework, sources)
    signature = said.signature or _signature_of(sources, framework, tools)
    progress.step("hashing files")
    files = tuple(_hash(name, path, progress) for name, path in sorted(sources.files.items()))
    manifest = _manifest(said, sources, framework, signature, files, _has_pickles(sources, said))
    target = output / f"{manifest.model}-{manifest.version}.mdspkg" if output.is_dir() else output
    progress.step("writing package")
    return tools.write(target, manifest, dict(sources.files), progress.bytes), target


def _completed(said: Declaration, config: ServingConfig | None) -> Declaration:
    """What was said, with what only the class says filled in. Raises InvalidArgument if they contradict."""
    if config is None:
        return said
    if said.signature is not None and config.signature is not None and said.signature != config.signature:
        raise errors.InvalidArgument(
            "the signature in penstock.yaml is not that of @serving; declare it in one place only",
            reason="SIGNATURE_AMBIGUOUS",
        )
    filled: dict[str, Any] = {
        name: getattr(config, name)
        for name in (
            "signature",
            "model",
            "version",
            "description",
            "framework",
            "model_file",
            "base_image",
            "batching",
            "execution",
        )
        if getattr(said, name) is None
    }
    if said.requirements is None:
        filled["requirements"] = config.requirements
    return dataclasses.replace(said, **filled, labels={**config.labels, **said.labels})


def _check_steps(declared: ServingClass | None, framework: str, sources: Sources) -> None:
    if declared is None or "inference" in declared.steps:
        return
    if framework == "python":
        raise errors.InvalidArgument(
            f"{declared.type.__name__} has no @inference method, and there is no model file whose "
            "framework is "
            f"known (.onnx) to run instead; files found: {', '.join(sources.files) or 'none'}",
            reason="INFERENCE_MISSING",
        )


def _signature_of(sources: Sources, framework: str, tools: BuildTools) -> Signature:
    if sources.model_file is None:
        raise errors.InvalidArgument(
            "the package's inputs and outputs are not declared: use @serving(inputs=[…], outputs=[…]) or "
            "`signature:` in penstock.yaml",
            reason="SIGNATURE_MISSING",
        )
    return tools.runtime(framework).signature(sources.files["model/" + sources.model_file])


def _hash(name: str, path: Path, progress: BuildProgress) -> PackageFile:
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
            progress.bytes(name, len(chunk))
    role = next(role for role in Role if name.startswith(role.folder))
    return PackageFile(name, size, f"sha256:{digest.hexdigest()}", role)


def _has_pickles(sources: Sources, said: Declaration) -> bool:
    for name, path in sorted(sources.files.items()):
        with path.open("rb") as file:
            reason = pickle_reason(name, file)
        if not reason:
            continue
        if not said.allow_pickles:
            raise errors.FailedPrecondition(
                f"{path} is a pickle, which runs code when it is read: {reason}. Export the model to ONNX, "
                "safetensors or skops, or allow pickles (--allow-pickles, or allow_pickles: true in "
                "penstock.yaml); "
                "whoever serves the package must allow them too",
                reason="PICKLE_REFUSED",
                metadata={"path": str(path)},
            )
        return True
    return False


def _manifest(
    said: Declaration,
    sources: Sources,
    framework: str,
    signature: Signature,
    files: tuple[PackageFile, ...],
    has_pickles: bool,
) -> Manifest:
    missing = [name for name in ("model", "version") if getattr(said, name) is None]
    if missing:
        raise errors.InvalidArgument(
            f"the package's {' and '.join(missing)} must be said: in penstock.yaml (`{missing[0]}: …`), "
            f"in @serving({missing[0]}=…), or with --{missing[0]}",
            reason="DECLARATION_INCOMPLETE",
            violations=[errors.FieldViolation(name, "is missing") for name in missing],
        )
    labels: Mapping[str, str] = said.labels
    try:
        return Manifest(
            model=_known(said.model),
            version=_known(said.version),
            signature=signature,
            framework=framework,
            files=files,
            description=said.description or "",
            python_version=said.python or "",
            requirements=tuple(sorted(said.requirements or ())),
            base_image=said.base_image or "",
            entry_class=said.entry or "",
            model_file=sources.model_file or "",
            batching=said.batching or Batching(),
            execution=said.execution or Execution(),
            has_pickles=has_pickles,
            labels=labels,
        )
    except ValueError as error:
        raise errors.InvalidArgument(
            f"the package cannot be built: {error}", reason="DECLARATION_INVALID"
        ) from error


def _known(value: T | None) -> T:
    assert value is not None  # checked by the caller, who names what is missing
    return value
