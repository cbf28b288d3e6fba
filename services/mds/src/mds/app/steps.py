"""Runs a model's steps on one batch: pre-processing, inference, post-processing, and the checks between them.

Everything here runs in a worker thread, off the event loop, but for what the batcher knows to be cheaper in
place.
"""

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

import numpy as np
from chassis import errors

from mds.app.ports import Session
from mds.domain.signature import Signature, TensorSpec
from mds.domain.tensors import Array, DataType, shape_matches, shape_text
from mds.sdk.context import BadInput

Tensors = Mapping[str, Array]


class ModelFault(Exception):
    """The model's own code or file failed; the text is for the server's log, not for callers."""


@dataclass(frozen=True, slots=True)
class Timings:
    """When each step of a run ended, in `time.perf_counter_ns`; `begin` is when the first began."""

    begin: int
    preprocessed: int
    inferred: int
    end: int


class Step:
    """A method of a serving class, called with tensors by the names of its parameters."""

    def __init__(self, method: Callable[..., Any], kind: str) -> None:
        self._method = method
        self._kind = kind
        self._name = getattr(method, "__qualname__", str(method))
        self.is_async = inspect.iscoroutinefunction(method)
        parameters = list(inspect.signature(method).parameters.values())
        self._takes_all = len(parameters) == 1 and parameters[0].name == "inputs"
        self._takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
        self._names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        self._required = [
            p.name
            for p in parameters
            if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        ]

    def check(self, signature: Signature) -> None:
        """Checks at load that a first step can be called with the declared inputs. Raises InvalidArgument."""
        if self._takes_all or (len(self._required) <= 1 and len(signature.inputs) == 1):
            return
        unknown = [name for name in self._required if name not in signature.input_by_name]
        if unknown:
            raise errors.InvalidArgument(
                f"@{self._kind} method {self._name} has the parameter {unknown[0]!r}, which is no "
                "input; inputs are "
                f"{', '.join(signature.input_by_name)}. Name parameters like inputs, or take one "
                "called `inputs`",
                reason="SERVING_CLASS_INVALID",
            )

    def call(self, given: Any) -> Any:
        """Calls the method with what the step before gave: a mapping, one array, or a tuple."""
        if self._takes_all and isinstance(given, Mapping):
            return self._method(given)
        if isinstance(given, Mapping):
            return self._by_name(given)
        if isinstance(given, tuple):
            return self._method(*given)
        return self._method(given)

    def _by_name(self, given: Tensors) -> Any:
        if self._takes_any:
            return self._method(**given)
        if len(given) == 1 and len(self._required) <= 1 and len(self._names) >= 1:
            return self._method(next(iter(given.values())))
        missing = [name for name in self._required if name not in given]
        if missing:
            raise ModelFault(
                f"@{self._kind} method {self._name} needs {missing[0]!r}, and the step before gives "
                f"{', '.join(given)}"
            )
        return self._method(**{name: given[name] for name in self._names if name in given})


class Steps:
    """The steps of one instance of a model, in order. Not thread-safe: each instance has a thread of its
    own.
    """

    def __init__(
        self,
        signature: Signature,
        *,
        preprocess: Step | None = None,
        inference: Step | None = None,
        session: Session | None = None,
        postprocess: Step | None = None,
    ) -> None:
        self._signature = signature
        self._preprocess = preprocess
        self._inference = inference
        self._session = session
        self._postprocess = postprocess
        self._outputs = [(spec.name, spec, spec.dtype.numpy) for spec in signature.outputs]
        self._runner: asyncio.Runner | None = None
        first = preprocess or (None if session is not None else inference)
        if first is not None:
            first.check(signature)

    @property
    def concurrent(self) -> bool:
        """Whether any thread may run them at any time: no modeler's code, and a session that allows it."""
        own_code = self._preprocess or self._inference or self._postprocess
        return own_code is None and self._session is not None and self._session.concurrent

    def run(self, inputs: Tensors) -> tuple[Tensors, Timings]:
        """Outputs by name, checked against the signature.

        Raises `errors.InvalidArgument` where the caller's data is at fault, anything else where the model is.
        """
        begin = perf_counter_ns()
        value: Any = inputs
        if self._preprocess is not None:
            value = self._call(self._preprocess, value)
        preprocessed = perf_counter_ns()
        if self._session is not None:
            value = self._session.run(self._fed(self._session, value))
        elif self._inference is not None:
            value = self._call(self._inference, value)
        inferred = perf_counter_ns()
        if self._postprocess is not None:
            value = self._call(self._postprocess, value)
        outputs = self._checked(value)
        return outputs, Timings(begin, preprocessed, inferred, perf_counter_ns())

    def close(self) -> None:
        """Frees the session and the loop of asynchronous steps."""
        if self._session is not None:
            self._session.close()
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    def _call(self, step: Step, value: Any) -> Any:
        try:
            result = step.call(value)
            if step.is_async:
                if self._runner is None:
                    self._runner = asyncio.Runner()
                result = self._runner.run(_awaited(result))
            return result
        except BadInput as error:
            raise errors.InvalidArgument(
                str(error) or "the model refuses these inputs", reason="INPUT_REFUSED"
            ) from error

    def _fed(self, session: Session, value: Any) -> Tensors:
        names = session.input_names
        if isinstance(value, Mapping):
            if len(value) == 1 and len(names) == 1:
                return {names[0]: next(iter(value.values()))}
            return value
        values = value if isinstance(value, tuple) else (value,)
        if len(values) != len(names):
            raise ModelFault(
                f"the model file takes {len(names)} inputs ({', '.join(names)}), and pre-processing "
                f"gives {len(values)}"
            )
        return dict(zip(names, values, strict=True))

    def _checked(self, value: Any) -> Tensors:
        if not isinstance(value, Mapping):
            values: Sequence[Any] = value if isinstance(value, tuple | list) else (value,)
            if len(values) != len(self._outputs):
                raise ModelFault(
                    f"the model gives {len(values)} outputs, and {len(self._outputs)} are declared"
                )
            value = {name: item for (name, _, _), item in zip(self._outputs, values, strict=True)}
        checked: dict[str, Array] = {}
        for name, spec, dtype in self._outputs:
            if name not in value:
                raise ModelFault(
                    f"the model does not give the declared output {name!r}, only {', '.join(value)}"
                )
            array = value[name]
            if type(array) is not np.ndarray or array.dtype != dtype:
                array = _converted(array, spec, dtype)
            if not shape_matches(array.shape, spec.shape):
                raise ModelFault(
                    f"output {name!r} has shape {shape_text(array.shape)}, declared is "
                    f"{shape_text(spec.shape)}"
                )
            checked[name] = array
        return checked


async def _awaited(value: Any) -> Any:
    return await value


def _converted(value: Any, spec: TensorSpec, dtype: "np.dtype[Any]") -> Array:
    if hasattr(value, "detach"):  # a torch tensor, told without importing torch
        value = value.detach().cpu().numpy()
    array = np.asarray(value)
    if spec.dtype is DataType.BYTES:
        return _bytes_array(array)
    if array.dtype == dtype:
        return array
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise ModelFault(
            f"output {spec.name!r} has type {array.dtype}, declared is {spec.dtype.value}; convert it "
            "in the model"
        )
    return array.astype(dtype)


def _bytes_array(array: Array) -> Array:
    result = np.empty(array.size, dtype=object)
    for index, item in enumerate(array.ravel()):
        result[index] = item.encode() if isinstance(item, str) else bytes(item)
    return result.reshape(array.shape)
