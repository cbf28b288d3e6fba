"""The JSON form of a manifest, as proto3 JSON of `penstock.mds.v1.PackageManifest` would be, without
protobuf; and its canonical form, whose SHA-256 is the package's content digest.

The canonical form has 64-bit integers as strings, enum values by name, defaults left out, sorted keys, no
spaces, in UTF-8. A contract test holds this form and the contract together.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, TypeVar

from mds.domain.execution import Accelerator, Batching, Execution
from mds.domain.manifest import FORMAT_VERSION, Manifest, PackageFile, Role
from mds.domain.signature import OutputTolerance, Signature, TensorSpec
from mds.domain.tensors import DataType

Json = dict[str, Any]
T = TypeVar("T")
_ACCELERATORS = {
    Accelerator.CPU: "ACCELERATOR_UNSPECIFIED",
    Accelerator.GPU_PREFERRED: "ACCELERATOR_GPU_PREFERRED",
    Accelerator.GPU_REQUIRED: "ACCELERATOR_GPU_REQUIRED",
}


def canonical(manifest: Manifest) -> bytes:
    """The canonical form."""
    tree = to_json(manifest)
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(manifest: Manifest) -> str:
    """The content digest, `sha256:` and 64 hexadecimal digits."""
    return "sha256:" + hashlib.sha256(canonical(manifest)).hexdigest()


def parse(data: bytes) -> Manifest:
    """Reads a canonical form. Raises ValueError for anything else, also if only the order of keys differs."""
    try:
        tree = json.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"it is no JSON: {error}") from error
    manifest = from_json(tree)
    if canonical(manifest) != data:
        raise ValueError("it is not in canonical form")
    return manifest


def to_json(manifest: Manifest) -> Json:
    """The JSON form, defaults left out."""
    return _filled(
        formatVersion=1,
        model=manifest.model,
        version=manifest.version,
        description=manifest.description,
        signature=_signature(manifest.signature),
        framework=manifest.framework,
        pythonVersion=manifest.python_version,
        requirements=list(manifest.requirements),
        baseImage=manifest.base_image,
        entryClass=manifest.entry_class,
        modelFile=manifest.model_file,
        files=[
            _filled(path=f.path, sizeBytes=_int64(f.size), digest=f.digest, role=f.role.value)
            for f in manifest.files
        ],
        batching=_batching(manifest.batching),
        execution=_execution(manifest.execution),
        hasPickles=manifest.has_pickles,
        labels=dict(manifest.labels),
    )


def _filled(**fields: Any) -> Json:
    return {name: value for name, value in fields.items() if value not in (None, "", 0, False, [], {})}


def _int64(value: int) -> str:
    return str(value) if value else ""


def _signature(signature: Signature) -> Json:
    return _filled(
        inputs=[_tensor(spec) for spec in signature.inputs],
        outputs=[_tensor(spec) for spec in signature.outputs],
        tolerances=[
            _filled(
                output=spec.name,
                absolute=float(spec.tolerance.absolute),
                relative=float(spec.tolerance.relative),
                topK=spec.tolerance.top_k,
            )
            for spec in signature.outputs
            if spec.tolerance is not None
        ],
    )


def _tensor(spec: TensorSpec) -> Json:
    return _filled(
        name=spec.name,
        dataType=f"DATA_TYPE_{spec.dtype.value}",
        shape=[str(size) for size in spec.shape],
        optional=spec.optional,
        description=spec.description,
        labels=list(spec.labels),
    )


def duration_text(seconds: float) -> str:
    """A duration as proto3 JSON writes it: `0.005s`, with 0, 3, 6 or 9 digits after the point."""
    nanos = round(seconds * 1_000_000_000)
    whole, rest = divmod(nanos, 1_000_000_000)
    if not rest:
        return f"{whole}s"
    digits = f"{rest:09d}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f"{whole}.{digits}s"


def _batching(batching: Batching) -> Json:
    return _filled(
        maxItems=batching.max_items,
        maxDelay=duration_text(batching.max_delay) if batching.max_delay else None,
        maxQueue=batching.max_queue,
    )


def _execution(execution: Execution) -> Json:
    accelerator = execution.accelerator
    return _filled(
        instances=execution.instances if execution.instances != 1 else 0,
        intraOpThreads=execution.threads,
        accelerator=None if accelerator is Accelerator.CPU else _ACCELERATORS[accelerator],
        gpuMemoryBytes=_int64(execution.gpu_memory_bytes),
        runtimeOptions=dict(execution.options),
    )


class _Reader:
    """Takes typed fields out of a JSON object; what is left over at the end is an error."""

    def __init__(self, tree: Any, where: str) -> None:
        if not isinstance(tree, dict):
            raise ValueError(f"{where} must be an object")
        self._tree = dict(tree)
        self._where = where

    def take(self, name: str, kind: type[T], default: T) -> T:
        value = self._tree.pop(name, default)
        if type(value) is not kind:
            raise ValueError(
                f"{self._where}.{name} must be of type {kind.__name__}, not {type(value).__name__}"
            )
        return value

    def take_int64(self, name: str) -> int:
        text = self.take(name, str, "0")
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise ValueError(f"{self._where}.{name} must be a whole number as text, not {text!r}")
        return int(text)

    def take_texts(self, name: str) -> tuple[str, ...]:
        values = self.take(name, list, [])
        if not all(isinstance(value, str) for value in values):
            raise ValueError(f"{self._where}.{name} must be a list of texts")
        return tuple(values)

    def take_map(self, name: str) -> Mapping[str, str]:
        values = self.take(name, dict, {})
        if not all(isinstance(value, str) for value in values.values()):
            raise ValueError(f"{self._where}.{name} must map texts to texts")
        return values

    def take_each(self, name: str, read: Callable[[Any, str], T]) -> tuple[T, ...]:
        values = self.take(name, list, [])
        return tuple(read(value, f"{self._where}.{name}[{i}]") for i, value in enumerate(values))

    def end(self) -> None:
        if self._tree:
            raise ValueError(f"{self._where} has the unknown field {next(iter(self._tree))!r}")


def from_json(tree: Any) -> Manifest:
    """Reads a JSON form strictly. Raises ValueError that names the field."""
    reader = _Reader(tree, "manifest")
    version = reader.take("formatVersion", int, 0)
    if version != FORMAT_VERSION:
        raise ValueError(
            f"format version {version} is not known to this version of Penstock, which reads {FORMAT_VERSION}"
        )
    manifest = Manifest(
        model=reader.take("model", str, ""),
        version=reader.take("version", str, ""),
        description=reader.take("description", str, ""),
        signature=_read_signature(reader.take("signature", dict, {}), "manifest.signature"),
        framework=reader.take("framework", str, ""),
        python_version=reader.take("pythonVersion", str, ""),
        requirements=reader.take_texts("requirements"),
        base_image=reader.take("baseImage", str, ""),
        entry_class=reader.take("entryClass", str, ""),
        model_file=reader.take("modelFile", str, ""),
        files=reader.take_each("files", _read_file),
        batching=_read_batching(reader.take("batching", dict, {}), "manifest.batching"),
        execution=_read_execution(reader.take("execution", dict, {}), "manifest.execution"),
        has_pickles=reader.take("hasPickles", bool, False),
        labels=reader.take_map("labels"),
    )
    reader.end()
    return manifest


def _read_file(tree: Any, where: str) -> Any:
    reader = _Reader(tree, where)
    role = reader.take("role", str, "")
    if role not in {r.value for r in Role}:
        raise ValueError(f"{where}.role {role!r} is not known")
    file = PackageFile(
        path=reader.take("path", str, ""),
        size=reader.take_int64("sizeBytes"),
        digest=reader.take("digest", str, ""),
        role=Role(role),
    )
    reader.end()
    return file


def _read_signature(tree: Json, where: str) -> Signature:
    reader = _Reader(tree, where)
    tolerances = dict(reader.take_each("tolerances", _read_tolerance))
    inputs = reader.take_each("inputs", lambda t, w: _read_tensor(t, w, {}))
    outputs = reader.take_each("outputs", lambda t, w: _read_tensor(t, w, tolerances))
    unknown = set(tolerances) - {spec.name for spec in outputs}
    if unknown:
        raise ValueError(f"{where}.tolerances names {min(unknown)!r}, which is no output")
    reader.end()
    return Signature(inputs, outputs)


def _read_tensor(tree: Any, where: str, tolerances: Mapping[str, OutputTolerance]) -> TensorSpec:
    reader = _Reader(tree, where)
    kind = reader.take("dataType", str, "").removeprefix("DATA_TYPE_")
    if kind not in DataType.__members__:
        raise ValueError(f"{where}.dataType {kind!r} is not known")
    shape = reader.take_texts("shape")
    if not all(size == "-1" or (size.isascii() and size.isdigit() and len(size) < 20) for size in shape):
        raise ValueError(f"{where}.shape must have whole numbers, or -1, as texts")
    name = reader.take("name", str, "")
    spec = TensorSpec(
        name,
        DataType[kind],
        [int(size) for size in shape],
        optional=reader.take("optional", bool, False),
        tolerance=tolerances.get(name),
        description=reader.take("description", str, ""),
        labels=reader.take_texts("labels"),
    )
    reader.end()
    return spec


def _read_tolerance(tree: Any, where: str) -> tuple[str, OutputTolerance]:
    reader = _Reader(tree, where)
    output = reader.take("output", str, "")
    tolerance = OutputTolerance(
        reader.take("absolute", float, 0.0), reader.take("relative", float, 0.0), reader.take("topK", int, 0)
    )
    reader.end()
    return output, tolerance


def _read_batching(tree: Json, where: str) -> Batching:
    reader = _Reader(tree, where)
    delay = reader.take("maxDelay", str, "0s")
    try:
        seconds = float(Decimal(delay.removesuffix("s")))
    except ArithmeticError:
        raise ValueError(f"{where}.maxDelay {delay!r} is no duration such as 0.005s") from None
    batching = Batching(reader.take("maxItems", int, 0), seconds, reader.take("maxQueue", int, 0))
    reader.end()
    return batching


def _read_execution(tree: Json, where: str) -> Execution:
    reader = _Reader(tree, where)
    name = reader.take("accelerator", str, "ACCELERATOR_UNSPECIFIED")
    accelerator = {text: value for value, text in _ACCELERATORS.items()}.get(name)
    if accelerator is None:
        raise ValueError(f"{where}.accelerator {name!r} is not known")
    execution = Execution(
        instances=reader.take("instances", int, 1),
        threads=reader.take("intraOpThreads", int, 0),
        accelerator=accelerator,
        gpu_memory_bytes=reader.take_int64("gpuMemoryBytes"),
        options=reader.take_map("runtimeOptions"),
    )
    reader.end()
    return execution
