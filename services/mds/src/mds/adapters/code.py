"""Imports a package's serving class from a folder of code."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chassis import errors

from mds.sdk.decorators import DeclarationError, ServingClass, serving_class


def import_serving_class(code: Path, entry: str) -> ServingClass:
    """The decorated class `module:Class` of a folder. Raises InvalidArgument that says what is wrong and
    where.

    Modules stay imported. A module that is already imported from elsewhere is an error, not a silent mix-up.
    """
    module_name, _, class_name = entry.partition(":")
    with _importing_from(code):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            raise _missing(error, module_name, entry, code) from error
        except DeclarationError as error:
            raise _wrong(f"{entry} in {code}: {error}") from error
        except Exception as error:  # any error of the modeler's code
            raise _wrong(
                f"importing {module_name!r} from {code} failed: {type(error).__name__}: {error}"
            ) from error
    _check_origin(module.__file__, code, module_name)
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        names = [
            name
            for name, value in vars(module).items()
            if isinstance(value, type) and value.__module__ == module_name
        ]
        have = f"it has {', '.join(names)}" if names else "it has no class"
        raise _wrong(f"module {module_name!r} in {code} has no class {class_name!r}; {have}")
    try:
        return serving_class(found)
    except DeclarationError as error:
        raise _wrong(str(error)) from error


@contextmanager
def _importing_from(code: Path) -> Iterator[None]:
    bytecode = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # the folder must stay what the manifest says it is
    if str(code) not in sys.path:
        sys.path.insert(0, str(code))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.dont_write_bytecode = bytecode


def forget_modules(code: Path) -> None:
    """Takes a folder out of the import system again, for a process that goes on with other packages."""
    if str(code) in sys.path:
        sys.path.remove(str(code))
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and Path(file).is_relative_to(code):
            del sys.modules[name]


def _check_origin(file: str | None, code: Path, name: str) -> None:
    if file is None or not Path(file).resolve().is_relative_to(code.resolve()):
        raise _wrong(
            f"module {name!r} was imported from {file}, not from {code}; give the module another name"
        )


def _missing(error: ModuleNotFoundError, module: str, entry: str, code: Path) -> errors.Error:
    if error.name and module.split(".")[0] == error.name.split(".")[0]:
        return _wrong(f"there is no module {error.name!r} in {code} (wanted for the serving class {entry})")
    return errors.FailedPrecondition(
        f"the package's code needs the module {error.name!r}, which is not installed here: install "
        "what the package "
        "requires (see `mds inspect`)",
        reason="REQUIREMENT_MISSING",
        metadata={"module": error.name or ""},
    )


def _wrong(message: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(message, reason="SERVING_CLASS_INVALID")
