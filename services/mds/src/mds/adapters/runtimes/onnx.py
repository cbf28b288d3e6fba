"""ONNX Runtime: runs `.onnx` files.

ONNX Runtime falls back to the CPU without a word when a GPU provider cannot start (a library of CUDA is
missing); here the providers that a session really has are compared with those that were asked for.
"""

import importlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from chassis import errors

from mds.app.ports import Session
from mds.domain.execution import Accelerator, Execution
from mds.domain.signature import Signature, TensorSpec
from mds.domain.tensors import DYNAMIC, Array, DataType

_TYPES = {
    "tensor(bool)": DataType.BOOL,
    "tensor(uint8)": DataType.UINT8,
    "tensor(uint16)": DataType.UINT16,
    "tensor(uint32)": DataType.UINT32,
    "tensor(uint64)": DataType.UINT64,
    "tensor(int8)": DataType.INT8,
    "tensor(int16)": DataType.INT16,
    "tensor(int32)": DataType.INT32,
    "tensor(int64)": DataType.INT64,
    "tensor(float16)": DataType.FP16,
    "tensor(float)": DataType.FP32,
    "tensor(double)": DataType.FP64,
    "tensor(bfloat16)": DataType.BF16,
    "tensor(string)": DataType.BYTES,
}
_OPTIMIZATION = {"disable": 0, "basic": 1, "extended": 2, "all": 99}
_OPTIONS = ("graph_optimization", "execution_mode", "memory_arena", "spinning")


def _library() -> Any:
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise errors.FailedPrecondition(
            "this package needs ONNX Runtime, which is not installed: pip install 'penstock-mds[onnx]', or "
            "'penstock-mds[onnx-gpu]' for an NVIDIA GPU",
            reason="FRAMEWORK_MISSING",
            metadata={"framework": "onnx", "extra": "onnx"},
        ) from error


class OnnxRuntime:
    """Opens `.onnx` files with ONNX Runtime."""

    name = "onnx"

    def version(self) -> str | None:
        """Version of ONNX Runtime; None if it is not installed."""
        for name in ("onnxruntime", "onnxruntime-gpu"):
            try:
                return importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
        return None

    def signature(self, model_file: Path) -> Signature:
        """Inputs and outputs as the file says them; named dimensions are dynamic."""
        session = _open(model_file, Execution(), ["CPUExecutionProvider"])
        return Signature(
            tuple(_spec(value, model_file) for value in session.get_inputs()),
            tuple(_spec(value, model_file) for value in session.get_outputs()),
        )

    def open(self, model_file: Path, execution: Execution, *, instance: int) -> Session:
        """Loads a model file. Raises FailedPrecondition if a required GPU is not there."""
        providers = _wanted_providers(execution, instance)
        session = _open(model_file, execution, providers)
        have = session.get_providers()
        names = [name if isinstance(name, str) else name[0] for name in providers]
        if have[0] != names[0] and execution.accelerator is Accelerator.GPU_REQUIRED:
            raise errors.FailedPrecondition(
                f"ONNX Runtime could not start {names[0]} and fell back to {have[0]}; see its "
                "messages above for the "
                "library that is missing",
                reason="ACCELERATOR_MISSING",
                metadata={"wanted": names[0], "got": have[0]},
            )
        return OnnxSession(session, instance)


def _wanted_providers(execution: Execution, instance: int) -> list[Any]:
    if execution.accelerator is Accelerator.CPU:
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" in _library().get_available_providers():
        return [("CUDAExecutionProvider", {"device_id": "0"}), "CPUExecutionProvider"]
    if execution.accelerator is Accelerator.GPU_REQUIRED:
        raise errors.FailedPrecondition(
            "the package requires a GPU, and this ONNX Runtime has none to use: pip install "
            "'penstock-mds[onnx-gpu]' "
            "on a machine with an NVIDIA GPU",
            reason="ACCELERATOR_MISSING",
            metadata={"wanted": "CUDAExecutionProvider"},
        )
    return ["CPUExecutionProvider"]


def _open(model_file: Path, execution: Execution, providers: list[Any]) -> Any:
    library = _library()
    options = library.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = execution.threads or 1
    options.inter_op_num_threads = 1
    _apply(options, execution.options, library)
    try:
        return library.InferenceSession(str(model_file), options, providers=providers)
    except Exception as error:  # ONNX Runtime raises many unrelated types for a bad file
        raise errors.InvalidArgument(
            f"ONNX Runtime cannot load {model_file.name}: {_first_line(error)}",
            reason="MODEL_INVALID",
            metadata={"file": model_file.name},
        ) from error


def _apply(options: Any, settings: Mapping[str, str], library: Any) -> None:
    for name, value in settings.items():
        if name == "graph_optimization" and value in _OPTIMIZATION:
            options.graph_optimization_level = library.GraphOptimizationLevel(_OPTIMIZATION[value])
        elif name == "execution_mode" and value in ("sequential", "parallel"):
            mode = library.ExecutionMode
            options.execution_mode = mode.ORT_PARALLEL if value == "parallel" else mode.ORT_SEQUENTIAL
        elif name == "memory_arena" and value in ("on", "off"):
            options.enable_cpu_mem_arena = value == "on"
        elif name == "spinning" and value in ("on", "off"):
            options.add_session_config_entry("session.intra_op.allow_spinning", "1" if value == "on" else "0")
        else:
            raise errors.InvalidArgument(
                f"the option {name}={value!r} is not known to the onnx runtime; known are "
                f"{', '.join(_OPTIONS)}",
                reason="RUNTIME_OPTION_INVALID",
                metadata={"option": name},
            )


def _spec(value: Any, model_file: Path) -> TensorSpec:
    kind = _TYPES.get(value.type)
    if kind is None:
        hint = (
            "; export the classifier with options={'zipmap': False} to get plain arrays"
            if value.type.startswith("seq(")
            else ""
        )
        raise errors.InvalidArgument(
            f"{model_file.name} has {value.name!r} of type {value.type}, which is no tensor that can "
            f"be served{hint}",
            reason="SIGNATURE_INVALID",
            metadata={"tensor": value.name, "type": value.type},
        )
    shape = [size if isinstance(size, int) and size >= 0 else DYNAMIC for size in value.shape]
    return TensorSpec(value.name, kind, shape)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:500]


class OnnxSession:
    """A session of ONNX Runtime with its inputs fed by name."""

    def __init__(self, session: Any, instance: int) -> None:
        self._session = session
        self._run = session.run
        self._inputs = {value.name: value.type for value in session.get_inputs()}
        self._outputs = [value.name for value in session.get_outputs()]
        self._strings = {name for name, kind in self._inputs.items() if kind == "tensor(string)"}
        self._string_outputs = {v.name for v in session.get_outputs() if v.type == "tensor(string)"}
        # bfloat16 has no numpy type that ONNX Runtime takes: it goes through OrtValue as 16-bit words.
        self._plain = not any("bfloat16" in kind for kind in self._inputs.values()) and not any(
            "bfloat16" in v.type for v in session.get_outputs()
        )
        self._instance = instance
        self._rejected = _library().capi.onnxruntime_pybind11_state.InvalidArgument

    @property
    def device(self) -> str:
        """`cuda:0` if the first provider is CUDA, else `cpu`."""
        return "cuda:0" if self._session.get_providers()[0].startswith("CUDA") else "cpu"

    @property
    def concurrent(self) -> bool:
        """On the CPU: ONNX Runtime's `Run` is thread-safe, and a GPU would be waited for."""
        return self.device == "cpu"

    @property
    def providers(self) -> Sequence[str]:
        """Execution providers in use."""
        return tuple(self._session.get_providers())

    @property
    def input_names(self) -> Sequence[str]:
        """Names of its inputs, in order."""
        return tuple(self._inputs)

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """All outputs by name. Raises InvalidArgument for shapes that the model cannot take."""
        try:
            return self._run_any(inputs)
        except self._rejected as error:
            raise errors.InvalidArgument(
                f"the model cannot take these inputs: {_first_line(error)}", reason="INPUT_REFUSED"
            ) from error

    def _run_any(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        if self._strings:
            inputs = {
                name: _to_text(value) if name in self._strings else value for name, value in inputs.items()
            }
        if not self._plain:
            return self._run_bfloat16(inputs)
        values = dict(zip(self._outputs, self._run(None, inputs), strict=True))
        for name in self._string_outputs:
            values[name] = _to_bytes(values[name])
        return values

    def _run_bfloat16(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        library = _library()
        element = DataType.BF16.numpy
        feeds = {
            name: library.OrtValue.ortvalue_from_numpy_with_onnx_type(value.view(np.uint16), 16)
            if value.dtype == element
            else library.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value))
            for name, value in inputs.items()
        }
        results = self._session.run_with_ort_values(None, feeds)
        found: dict[str, Array] = {}
        for name, value in zip(self._outputs, results, strict=True):
            is_bf16 = value.data_type() == "tensor(bfloat16)"
            array = _bfloat16(value) if is_bf16 else value.numpy()
            found[name] = array
        return found

    def close(self) -> None:
        """Drops the session; its memory goes with the last reference."""
        self._session = self._run = None


def _bfloat16(value: Any) -> Array:
    import ctypes

    shape = tuple(value.shape())
    size = int(np.prod(shape)) * 2
    raw = ctypes.string_at(value.data_ptr(), size) if size else b""
    return np.frombuffer(raw, DataType.BF16.numpy).reshape(shape)


def _to_text(value: Array) -> Array:
    try:
        texts = [item.decode("utf-8") if isinstance(item, bytes) else str(item) for item in value.ravel()]
    except UnicodeDecodeError as error:
        raise errors.InvalidArgument(
            f"the model takes text, and the bytes are not UTF-8: {error}", reason="INPUT_NOT_TEXT"
        ) from error
    return np.array(texts, dtype=object).reshape(value.shape)


def _to_bytes(value: Array) -> Array:
    items = [item.encode() if isinstance(item, str) else bytes(item) for item in value.ravel()]
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array.reshape(value.shape)
