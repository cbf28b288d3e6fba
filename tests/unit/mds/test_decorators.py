"""The modeler's decorators: what they keep, and what they refuse in words a modeler understands."""

import subprocess
import sys

import numpy as np
import pytest
from mds import (
    Batching,
    DataType,
    DeclarationError,
    TensorSpec,
    inference,
    load,
    postprocess,
    preprocess,
    serving,
)
from mds.sdk.decorators import serving_class

X, Y = TensorSpec("x", "FP32", [-1, 4]), TensorSpec("y", np.float32, (-1, 2), tolerance=0.1, top_k=1)


def test_a_class_keeps_its_configuration_and_steps() -> None:
    @serving(inputs=[X], outputs=[Y], batching=Batching(max_items=4), model="m", version="1")
    class Model:
        @load
        def open(self) -> None: ...

        @preprocess
        def before(self, x: object) -> object:
            return x

        @inference
        async def run(self, x: object) -> object:
            return x

        @postprocess
        def after(self, y: object) -> object:
            return y

    declared = serving_class(Model)
    assert declared.steps == {
        "load": "open", "preprocess": "before", "inference": "run", "postprocess": "after"
    }  # fmt: skip
    assert declared.config.batching == Batching(4)
    assert declared.config.signature is not None
    assert declared.config.signature.outputs[0].tolerance is not None
    assert declared.config.signature.outputs[0].tolerance.top_k == 1
    assert Model().before(3) == 3


def test_importing_mds_needs_neither_grpc_nor_a_framework() -> None:
    code = (
        "import sys, mds; bad = "
        "{'grpc', 'google', 'onnxruntime', 'torch', 'sklearn', 'pydantic', 'starlette'} "
        "& {name.split('.')[0] for name in sys.modules}; sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def twice() -> None:
    @serving(inputs=[X], outputs=[Y])
    class Model:
        @inference
        def one(self, x: object) -> object: ...

        @inference
        def two(self, x: object) -> object: ...


def both_steps() -> None:
    @inference
    @preprocess
    def method(self: object) -> None: ...


def on_a_property() -> None:
    class Model:
        @inference  # type: ignore[arg-type]
        @property
        def run(self) -> None: ...


def with_parentheses() -> None:
    class Model:
        @inference()
        def run(self) -> None: ...


def without_parentheses() -> None:
    @serving  # type: ignore[arg-type]
    class Model: ...


def on_a_function() -> None:
    @serving(inputs=[X], outputs=[Y])  # type: ignore[type-var]
    def model() -> None: ...


def a_generator() -> None:
    @inference
    def run(self: object) -> object:
        yield 1


def needs_arguments() -> None:
    @serving(inputs=[X], outputs=[Y])
    class Model:
        def __init__(self, path: str) -> None: ...

        @inference
        def run(self, x: object) -> object: ...


def steps_without_signature() -> None:
    @serving(model="m")
    class Model:
        @preprocess
        def run(self, x: object) -> object: ...


MISUSES = {
    "two methods of a step": (twice, "two @inference methods"),
    "two steps on a method": (both_steps, "both @preprocess and @inference"),
    "a property": (on_a_property, "directly above a method"),
    "a step called": (with_parentheses, "without parentheses"),
    "serving not called": (without_parentheses, "keyword arguments"),
    "a function": (on_a_function, "goes on a class"),
    "a generator": (a_generator, "must return"),
    "a constructor with arguments": (needs_arguments, "needs path"),
    "steps without signature": (steps_without_signature, "needs inputs="),
    "half a signature": (lambda: serving(inputs=[X]), "belong together"),
    "one spec, not a list": (lambda: serving(inputs=X, outputs=[Y]), "must be a list of TensorSpec"),  # type: ignore[arg-type]
    "a wrong model id": (lambda: serving(model="My Model"), "model 'My Model' must be"),
    "requirements as text": (lambda: serving(requirements="numpy"), "must be a list"),
    "batching as a number": (lambda: serving(batching=8), "must be a Batching"),  # type: ignore[arg-type]
    "an unknown accelerator": (lambda: serving(accelerator="tpu"), "tpu"),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_is_told_where_it_happens(name: str) -> None:
    misuse, text = MISUSES[name]
    with pytest.raises(TypeError) as caught:
        misuse()
    assert text in str(caught.value)
    assert isinstance(caught.value, DeclarationError)


SPECS = {
    "empty name": (lambda: TensorSpec("", "FP32", []), "needs a name"),
    "unknown type": (lambda: TensorSpec("x", "FLOAT", []), "use one of BOOL"),
    "complex numbers": (lambda: TensorSpec("x", np.complex64, []), "no tensor type"),
    "shape as a number": (lambda: TensorSpec("x", "FP32", 4), "must be a list"),  # type: ignore[arg-type]
    "size below -1": (lambda: TensorSpec("x", "FP32", [-2]), "-1 for any"),
    "negative tolerance": (lambda: TensorSpec("x", "FP32", [], tolerance=-1), "at least 0"),
    "delay without batching": (lambda: Batching(max_delay=0.1), "needs max_items"),
    "too long a delay": (lambda: Batching(4, 100), "0 to 60"),
}


@pytest.mark.parametrize("name", SPECS)
def test_wrong_values_say_what_would_be_right(name: str) -> None:
    make, text = SPECS[name]
    with pytest.raises(ValueError, match=r".") as caught:
        make()
    assert text in str(caught.value)


TYPES = [
    ("fp32", DataType.FP32), (np.int64, DataType.INT64), ("uint8", DataType.UINT8), (bool, DataType.BOOL),
    (str, DataType.BYTES), (object, DataType.BYTES), (">f4", DataType.FP32), (float, DataType.FP64),
]  # fmt: skip


@pytest.mark.parametrize(("given", "expected"), TYPES, ids=str)
def test_types_are_known_by_protocol_and_numpy_names(given: object, expected: DataType) -> None:
    assert DataType.of(given) is expected  # type: ignore[arg-type]
