"""Runtimes by the `framework` of a package: one file each. An unknown name is an error."""

from chassis import errors

from mds.adapters.runtimes.onnx import OnnxRuntime
from mds.adapters.runtimes.python import PythonRuntime
from mds.app.ports import Runtime

_RUNTIMES: dict[str, type[Runtime]] = {"onnx": OnnxRuntime, "python": PythonRuntime}
_SUFFIXES = {".onnx": "onnx"}


def runtime(framework: str) -> Runtime:
    """The runtime of a framework. Raises InvalidArgument that names the known ones."""
    kind = _RUNTIMES.get(framework)
    if kind is None:
        raise errors.InvalidArgument(
            f"there is no runtime for the framework {framework!r}; there are "
            f"{', '.join(sorted(_RUNTIMES))}. A "
            "package of another framework brings a class with its own @load and @inference "
            "(framework: python)",
            reason="FRAMEWORK_UNKNOWN",
            metadata={"framework": framework},
        )
    return kind()


def framework_of(model_file: str) -> str | None:
    """The framework that a model file's name tells, if it does."""
    return next((name for suffix, name in _SUFFIXES.items() if model_file.lower().endswith(suffix)), None)


def installed() -> dict[str, str]:
    """Versions of the runtimes that are installed, by framework."""
    found = {name: kind().version() for name, kind in _RUNTIMES.items()}
    return {name: version for name, version in found.items() if version is not None}
