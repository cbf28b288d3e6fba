"""Steps of a model: how tensors reach methods by name, and what a model may not give."""

from typing import Any

import numpy as np
import pytest
from chassis import errors
from mds import BadInput, TensorSpec
from mds.app.steps import ModelFault, Step, Steps
from mds.domain.signature import Signature

A, B = np.ones((2, 3), np.float32), np.full((2, 3), 2, np.float32)
TWO = Signature(
    (TensorSpec("a", "FP32", [-1, 3]), TensorSpec("b", "FP32", [-1, 3], optional=True)),
    (TensorSpec("y", "FP32", [-1, 3]), TensorSpec("n", "INT64", [-1])),
)
N = np.array([1, 2])


def run(signature: Signature = TWO, inputs: dict[str, Any] | None = None, **steps: Any) -> Any:
    made = {kind: Step(method, kind) for kind, method in steps.items()}
    runner = Steps(signature, **made)
    try:
        return runner.run(inputs if inputs is not None else {"a": A, "b": B})[0]
    finally:
        runner.close()


async def asynchronous(a: Any, b: Any) -> Any:
    return a + b, N


GOOD = {
    "by name": lambda a, b: {"y": a + b, "n": N},
    "names in another order": lambda b, a: {"y": a + b, "n": N},
    "all inputs": lambda inputs: {"y": inputs["a"] + inputs["b"], "n": N},
    "any names": lambda **given: (given["a"] + given["b"], N),
    "a tuple in declared order": lambda a, b: (a + b, N),
    "lists become arrays": lambda a, b: ((a + b).astype(float).tolist(), [1, 2]),
    "more than declared": lambda a, b: {"y": a + b, "n": N, "extra": a},
    "asynchronous": asynchronous,
}


@pytest.mark.parametrize("name", GOOD)
def test_tensors_reach_methods_by_name(name: str) -> None:
    method = GOOD[name]
    outputs = run(inference=method)
    assert (outputs["y"] == 3).all()
    assert outputs["n"].tolist() == [1, 2]


def test_an_optional_input_may_be_missing() -> None:
    outputs = run(inputs={"a": A}, inference=lambda a, b=None: (a, N) if b is None else None)
    assert (outputs["y"] == 1).all()


def test_each_step_gets_what_the_step_before_gives() -> None:
    outputs = run(
        preprocess=lambda a, b: {"x": a, "z": b},
        inference=lambda z, x: (x - z, N),
        postprocess=lambda d, n: {"y": d * 10, "n": n},
    )
    assert (outputs["y"] == -10).all()


class Doubling:
    """A model file that doubles."""

    device, providers = "cpu", ("Test",)

    def __init__(self, *names: str) -> None:
        self.input_names = names

    def run(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return {f"{name}2": inputs[name] * 2 for name in self.input_names}

    def close(self) -> None: ...


@pytest.mark.parametrize(
    "given", [{"x": A}, {"other": A}, A, (A,)], ids=["named", "misnamed", "array", "tuple"]
)
def test_the_model_file_runs_between_the_steps(given: Any) -> None:
    runner = Steps(
        TWO,
        preprocess=Step(lambda a, b: given, "preprocess"),
        session=Doubling("x"),
        postprocess=Step(lambda x2: (x2, N), "postprocess"),
    )
    assert (runner.run({"a": A, "b": B})[0]["y"] == 2).all()


FAULTS = {
    "an output is missing": (lambda a, b: {"y": a}, "does not give the declared output 'n'"),
    "too few outputs": (lambda a, b: a, "gives 1 outputs, and 2 are declared"),
    "another type": (lambda a, b: {"y": a, "n": np.array([1.5, 2])}, "type float64, declared is INT64"),
    "another shape": (lambda a, b: {"y": a[:, :2], "n": N}, "shape [2, 2], declared is [-1, 3]"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_does_not_keep_the_signature_is_the_models_fault(name: str) -> None:
    method, text = FAULTS[name]
    with pytest.raises(ModelFault) as caught:
        run(inference=method)
    assert text in str(caught.value)


def test_a_narrower_type_of_the_same_kind_is_converted() -> None:
    assert run(inference=lambda a, b: (a.astype(np.float64), N.astype(np.int32)))["y"].dtype == np.float32


def test_bad_input_is_the_callers_fault() -> None:
    def refuse(a: Any, b: Any) -> Any:
        raise BadInput("too dark")

    with pytest.raises(errors.InvalidArgument, match="too dark"):
        run(inference=refuse)


def test_a_parameter_that_is_no_input_is_told_when_the_model_is_loaded() -> None:
    with pytest.raises(errors.InvalidArgument, match="parameter 'image', which is no input; inputs are a, b"):
        run(inference=lambda image, b: None)


def test_steps_that_do_not_fit_each_other_are_told() -> None:
    with pytest.raises(ModelFault, match="needs 'q', and the step before gives x, z"):
        run(preprocess=lambda a, b: {"x": a, "z": b}, inference=lambda q, x: None)
