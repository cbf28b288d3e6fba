"""Reads `penstock.yaml`, in which a modeler says what goes into a package. Every error names file, line
and field.
"""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from chassis import errors

from mds.domain.declaration import Declaration
from mds.domain.execution import Accelerator, Batching, Execution
from mds.domain.signature import OutputTolerance, Signature, TensorSpec

FILE = "penstock.yaml"
T = TypeVar("T")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s)")
_SCALE = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


class _Node:
    """A YAML node with its place; reading it wrongly raises an error that names the place."""

    def __init__(self, node: yaml.Node, file: Path, path: str) -> None:
        self._node = node
        self._file = file
        self._path = path

    def wrong(self, why: str) -> errors.InvalidArgument:
        line = self._node.start_mark.line + 1
        where = f"{self._file}:{line}: {self._path or 'the file'}"
        return errors.InvalidArgument(
            f"{where}: {why}",
            reason="DECLARATION_INVALID",
            metadata={"file": str(self._file), "line": str(line), "field": self._path},
            violations=[errors.FieldViolation(self._path, why)],
        )

    def fields(self, known: Sequence[str]) -> dict[str, "_Node"]:
        """The fields of a mapping; unknown and repeated ones are errors."""
        found = self.entries()
        for name, node in found.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
                raise node.wrong(f"unknown field; {hint}")
        return found

    def entries(self) -> dict[str, "_Node"]:
        if not isinstance(self._node, yaml.MappingNode):
            raise self.wrong("must be a mapping (name: value)")
        found: dict[str, _Node] = {}
        for key, value in self._node.value:
            name = str(key.value)
            path = f"{self._path}.{name}" if self._path else name
            if name in found:
                raise _Node(key, self._file, path).wrong("is given twice")
            found[name] = _Node(value, self._file, path)
        return found

    def items(self) -> list["_Node"]:
        if not isinstance(self._node, yaml.SequenceNode):
            raise self.wrong("must be a list")
        return [_Node(n, self._file, f"{self._path}[{i}]") for i, n in enumerate(self._node.value)]

    @property
    def is_text(self) -> bool:
        return isinstance(self._node, yaml.ScalarNode)

    def scalar(self) -> Any:
        if not isinstance(self._node, yaml.ScalarNode):
            raise self.wrong("must be a single value")
        return yaml.SafeLoader("").construct_object(self._node)

    def text(self) -> str:
        """A text; numbers are taken as they are written, so that `version: 1.10` stays 1.10."""
        if not isinstance(self._node, yaml.ScalarNode) or self.scalar() is None:
            raise self.wrong("must be a text")
        return str(self._node.value)

    def whole(self) -> int:
        value = self.scalar()
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.wrong(f"must be a whole number, not {value!r}")
        return value

    def number(self) -> float:
        value = self.scalar()
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self.wrong(f"must be a number, not {value!r}")
        return float(value)

    def truth(self) -> bool:
        value = self.scalar()
        if not isinstance(value, bool):
            raise self.wrong(f"must be true or false, not {value!r}")
        return value

    def seconds(self) -> float:
        text = self.text()
        match = _DURATION.fullmatch(text)
        if match is None:
            raise self.wrong(f"must be a duration such as 5ms or 0.2s, not {text!r}")
        return float(match[1]) * _SCALE[match[2]]

    def made(self, make: Callable[[], T]) -> T:
        """Makes a value; what it finds wrong is told with this place."""
        try:
            return make()
        except ValueError as error:
            raise self.wrong(str(error)) from error


_FIELDS: Mapping[str, Callable[[_Node], Any]] = {
    "model": _Node.text,
    "version": _Node.text,
    "description": _Node.text,
    "framework": _Node.text,
    "entry": _Node.text,
    "model_file": _Node.text,
    "code": lambda node: _texts(node),
    "model_files": lambda node: _model_files(node),
    "requirements": lambda node: _texts(node),
    "python": _Node.text,
    "base_image": _Node.text,
    "signature": lambda node: _signature(node),
    "batching": lambda node: _batching(node),
    "execution": lambda node: _execution(node),
    "labels": lambda node: {name: value.text() for name, value in node.entries().items()},
    "allow_pickles": _Node.truth,
}


def read_declaration(file: Path) -> Declaration:
    """Reads a declaration. Raises NotFound, InvalidArgument."""
    try:
        text = file.read_text("utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except FileNotFoundError as error:
        raise errors.NotFound(f"there is no {file}", reason="DECLARATION_MISSING") from error
    except UnicodeDecodeError as error:
        raise errors.InvalidArgument(f"{file} is not UTF-8", reason="DECLARATION_INVALID") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + 1 if mark else 0
        raise errors.InvalidArgument(
            f"{file}:{line}: this is no YAML: {error.problem}",
            reason="DECLARATION_INVALID",
            metadata={"file": str(file), "line": str(line)},
        ) from error
    if root is None:
        return Declaration()
    fields = _Node(root, file, "").fields(list(_FIELDS))
    return Declaration(**{name: _FIELDS[name](node) for name, node in fields.items()})


def _texts(node: _Node) -> tuple[str, ...]:
    return tuple(item.text() for item in node.items())


def _model_files(node: _Node) -> Mapping[str, str]:
    """A list of globs, or a mapping of name in the package to path."""
    if node.is_text:
        return {node.text(): ""}
    try:
        return {item.text(): "" for item in node.items()}
    except errors.InvalidArgument:
        return {value.text(): name for name, value in node.entries().items()}


def _signature(node: _Node) -> Signature:
    fields = node.fields(["inputs", "outputs"])
    for name in ("inputs", "outputs"):
        if name not in fields:
            raise node.wrong(f"{name} is missing")
    inputs = tuple(_tensor(item) for item in fields["inputs"].items())
    outputs = tuple(_tensor(item) for item in fields["outputs"].items())
    return node.made(lambda: Signature(inputs, outputs))


def _tensor(node: _Node) -> TensorSpec:
    fields = node.fields(
        ["name", "dtype", "shape", "optional", "tolerance", "top_k", "description", "labels"]
    )
    for name in ("name", "dtype", "shape"):
        if name not in fields:
            raise node.wrong(f"{name} is missing; a tensor has name, dtype and shape")
    shape = [size.whole() for size in fields["shape"].items()]
    tolerance = _tolerance(fields["tolerance"]) if "tolerance" in fields else None
    return node.made(
        lambda: TensorSpec(
            fields["name"].text(),
            fields["dtype"].text(),
            shape,
            optional="optional" in fields and fields["optional"].truth(),
            tolerance=tolerance,
            top_k=fields["top_k"].whole() if "top_k" in fields else 0,
            description=fields["description"].text() if "description" in fields else "",
            labels=_texts(fields["labels"]) if "labels" in fields else (),
        )
    )


def _tolerance(node: _Node) -> OutputTolerance:
    if node.is_text:
        return node.made(lambda: OutputTolerance(absolute=node.number()))
    fields = node.fields(["absolute", "relative"])
    values = {name: value.number() for name, value in fields.items()}
    return node.made(lambda: OutputTolerance(**values))  # type: ignore[arg-type]  # names were checked above


def _batching(node: _Node) -> Batching:
    fields = node.fields(["max_items", "max_delay", "max_queue"])
    items = fields["max_items"].whole() if "max_items" in fields else 0
    delay = fields["max_delay"].seconds() if "max_delay" in fields else 0.0
    queue = fields["max_queue"].whole() if "max_queue" in fields else 0
    return node.made(lambda: Batching(items, delay, queue))


def _execution(node: _Node) -> Execution:
    fields = node.fields(["instances", "threads", "accelerator", "gpu_memory_bytes", "options"])
    accelerator = fields["accelerator"].text() if "accelerator" in fields else "cpu"
    known = [value.value for value in Accelerator]
    if accelerator not in known:
        raise fields["accelerator"].wrong(f"must be one of {', '.join(known)}, not {accelerator!r}")
    whole = {
        name: fields[name].whole() for name in ("instances", "threads", "gpu_memory_bytes") if name in fields
    }
    options = {k: v.text() for k, v in fields["options"].entries().items()} if "options" in fields else {}
    return node.made(lambda: Execution(accelerator=Accelerator(accelerator), options=options, **whole))
