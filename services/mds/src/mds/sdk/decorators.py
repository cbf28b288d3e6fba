"""Decorators that turn a plain class into a model that Penstock packages and serves.

    @serving(
        inputs=[TensorSpec("image", "FP32", [-1, 64])],
        outputs=[TensorSpec("scores", "FP32", [-1, 10])],
        batching=Batching(max_items=32),
    )
    class Digits:
        @load
        def open(self, context): ...
        @preprocess
        def scale(self, image): return {"x": image / 16}
        @inference
        def run(self, x): ...
        @postprocess
        def name(self, y): ...

A step gets the tensors of the step before by name, or all of them as one mapping if its only parameter is
called `inputs`. It returns a mapping of names to arrays, one array, or a tuple in the order of the next
step's parameters (the last step: of the declared outputs). Arrays hold all items of a batch along their first
dimension. Steps may be `async def`. Without an `@inference` method the package's model file is run by its
framework's runtime.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mds.domain.execution import Accelerator, Batching, Execution
from mds.domain.names import ID_RULE, VERSION_RULE, is_id, is_version
from mds.domain.signature import Signature, TensorSpec

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)
STEP = "__mds_step__"
SERVING = "__mds_serving__"
_NO_METHOD: Any = None  # what a step gets that is written with parentheses; it says so
STEPS = ("load", "preprocess", "inference", "postprocess")


class DeclarationError(TypeError):
    """A decorator is used in a way that cannot work; the text says what would be right."""


@dataclass(frozen=True, slots=True)
class ServingConfig:
    """What `@serving` was told. None means: not said here, see penstock.yaml or the model file."""

    signature: Signature | None
    model: str | None = None
    version: str | None = None
    description: str | None = None
    framework: str | None = None
    model_file: str | None = None
    requirements: tuple[str, ...] = ()
    base_image: str | None = None
    batching: Batching | None = None
    execution: Execution | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServingClass:
    """A decorated class: its configuration and the names of its methods by step."""

    type: type
    config: ServingConfig
    steps: Mapping[str, str]


def _step(kind: str) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        if not inspect.isfunction(function):
            hint = " (write it without parentheses)" if function is None else ""
            raise DeclarationError(
                f"@{kind} goes directly above a method, not on {function!r}{hint}; "
                "put it below @staticmethod, @classmethod or @property, or better leave those out"
            )
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise DeclarationError(
                f"@{kind} method {function.__qualname__} yields; it must return: models that stream "
                "their answers are not available in this version"
            )
        earlier = getattr(function, STEP, None)
        if earlier:
            raise DeclarationError(
                f"{function.__qualname__} is both @{earlier} and @{kind}; make it two methods"
            )
        setattr(function, STEP, kind)
        return function

    decorate.__name__ = kind
    return decorate


def load(method: F = _NO_METHOD) -> F:
    """Marks the method that reads the model, once per instance, before the first request.

    It may take a `context` (`LoadContext`): where the model files lie and which device to use.
    """
    return _step("load")(method)


def preprocess(method: F = _NO_METHOD) -> F:
    """Marks the method that turns a request's inputs into what the model takes."""
    return _step("preprocess")(method)


def inference(method: F = _NO_METHOD) -> F:
    """Marks the method that runs the model."""
    return _step("inference")(method)


def postprocess(method: F = _NO_METHOD) -> F:
    """Marks the method that turns what the model gives into the declared outputs."""
    return _step("postprocess")(method)


def serving(
    *arguments: Any,
    inputs: Sequence[TensorSpec] | None = None,
    outputs: Sequence[TensorSpec] | None = None,
    model: str | None = None,
    version: str | None = None,
    description: str | None = None,
    framework: str | None = None,
    model_file: str | None = None,
    requirements: Sequence[str] = (),
    base_image: str | None = None,
    batching: Batching | None = None,
    instances: int = 1,
    threads: int = 0,
    accelerator: Accelerator | str = Accelerator.CPU,
    options: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Callable[[C], C]:
    """Declares a class as a servable model; see the module for what its methods get and give.

    `inputs` and `outputs` are the signature, needed unless the model file says it and there are no pre- and
    post-processing steps. Raises DeclarationError for what cannot work.
    """
    if arguments:
        raise DeclarationError(
            "write @serving(...) with keyword arguments, for example @serving(inputs=[…], outputs=[…])"
        )
    try:
        config = ServingConfig(
            signature=_signature(inputs, outputs),
            model=_checked(model, "model", is_id, ID_RULE),
            version=_checked(version, "version", is_version, VERSION_RULE),
            description=description,
            framework=framework,
            model_file=model_file,
            requirements=_texts("requirements", requirements),
            base_image=base_image,
            batching=_instance("batching", batching, Batching),
            execution=Execution(instances, threads, Accelerator(accelerator), options=dict(options or {})),
            labels=dict(labels or {}),
        )
    except ValueError as error:
        raise DeclarationError(f"@serving: {error}") from error

    def decorate(cls: C) -> C:
        if not inspect.isclass(cls):
            raise DeclarationError(f"@serving goes on a class, not on {cls!r}")
        steps = _steps_of(cls)
        if config.signature is None and (set(steps) - {"load"}):
            raise DeclarationError(
                f"@serving on {cls.__name__} needs inputs=[TensorSpec(…)] and outputs=[TensorSpec(…)]: "
                "with steps of its own the model file cannot tell them"
            )
        setattr(cls, SERVING, ServingClass(cls, config, steps))
        return cls

    return decorate


def serving_class(cls: type) -> ServingClass:
    """What was declared of a class. Raises DeclarationError if nothing was."""
    declared = cls.__dict__.get(SERVING)
    if not isinstance(declared, ServingClass):
        raise DeclarationError(f"{cls.__module__}.{cls.__name__} is not decorated with @serving(...)")
    return declared


def _steps_of(cls: type) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, member in inspect.getmembers(cls):
        kind = getattr(member, STEP, None) if inspect.isfunction(member) else None
        if kind is None:
            continue
        if kind in found:
            raise DeclarationError(
                f"{cls.__name__} has two @{kind} methods, {found[kind]} and {name}; there can be one"
            )
        found[kind] = name
    _check_constructor(cls)
    return found


def _check_constructor(cls: type) -> None:
    if cls.__init__ is object.__init__:  # type: ignore[misc]  # only compared, never called on an instance
        return
    required = [
        p.name
        for p in list(inspect.signature(cls.__init__).parameters.values())[1:]  # type: ignore[misc]  # as above
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if required:
        raise DeclarationError(
            f"{cls.__name__}.__init__ needs {', '.join(required)}; the server makes it without arguments: "
            "give defaults, or read what is needed in a @load method"
        )


def _signature(inputs: Sequence[TensorSpec] | None, outputs: Sequence[TensorSpec] | None) -> Signature | None:
    if inputs is None and outputs is None:
        return None
    if inputs is None or outputs is None:
        raise ValueError("inputs and outputs belong together; one is missing")
    for kind, specs in (("inputs", inputs), ("outputs", outputs)):
        if isinstance(specs, TensorSpec) or not all(isinstance(spec, TensorSpec) for spec in specs):
            raise ValueError(f"{kind} must be a list of TensorSpec(name, dtype, shape), not {specs!r}")
    return Signature(tuple(inputs), tuple(outputs))


def _checked(value: str | None, name: str, valid: Callable[[str], bool], rule: str) -> str | None:
    if value is not None and not (isinstance(value, str) and valid(value)):
        raise ValueError(f"{name} {value!r} must be {rule}")
    return value


def _texts(name: str, values: Sequence[str]) -> tuple[str, ...]:
    if isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{name} must be a list of texts, not {values!r}")
    return tuple(values)


T = TypeVar("T")


def _instance(name: str, value: T | None, kind: type[T]) -> T | None:
    if value is not None and not isinstance(value, kind):
        raise ValueError(f"{name} must be a {kind.__name__}(…), not {value!r}")
    return value
