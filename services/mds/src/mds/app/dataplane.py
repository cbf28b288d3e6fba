"""The one data plane behind gRPC and REST: which model a request means, whether its tensors fit, and
running it.
"""

import time
from collections.abc import Mapping, Sequence
from time import monotonic, perf_counter_ns, time_ns

from chassis import errors
from opentelemetry import trace
from opentelemetry.trace import Tracer

from mds.app.batcher import Result
from mds.app.model import ServedModel
from mds.app.steps import Timings
from mds.domain.signature import TensorSpec
from mds.domain.tensors import Array, DataType, shape_matches, shape_text

_SPANS = ("queue", "preprocess", "inference", "postprocess")


class DataPlane:
    """Serves the models of one process. Speaks numpy; the faces convert."""

    def __init__(self, models: Sequence[ServedModel], tracer: Tracer | None) -> None:
        self.models = tuple(models)
        self._tracer = tracer
        self._known: dict[tuple[str, str], ServedModel] = {}

    @property
    def ready(self) -> bool:
        """Whether all models can answer."""
        return all(model.batcher is not None for model in self.models)

    def find(self, name: str, version: str) -> ServedModel:
        """The model that a caller means. Raises NotFound that names what there is."""
        found = self._known.get((name, version))
        if found is not None:
            return found
        named = [model for model in self.models if model.answers_to(name)]
        if not named:
            have = ", ".join(model.name for model in self.models)
            raise errors.NotFound(
                f"this server has no model {name[:128]!r}; it serves {have}",
                reason="MODEL_UNKNOWN",
                metadata={"model": name[:128]},
            )
        for model in named:
            if version in ("", model.version):
                if len(self._known) < 64:  # callers choose names: keep the few that are used
                    self._known[name, version] = model
                return model
        raise errors.NotFound(
            f"this server has no version {version[:64]!r} of model {name!r}; it serves {named[0].version}",
            reason="VERSION_UNKNOWN",
            metadata={"model": name, "version": version[:64]},
        )

    async def infer(
        self, model: ServedModel, inputs: Mapping[str, Array], items: int, deadline: float | None
    ) -> Result:
        """Runs inputs that were checked with `input_spec` and `check_inputs`; `items` as the latter said."""
        started = perf_counter_ns()
        try:
            result = await model.infer(inputs, items, deadline)
        except errors.Error as error:
            model.statistics.refused(error.code.name, perf_counter_ns() - started, time.time())
            raise
        ended = perf_counter_ns()
        model.statistics.answered(ended - started, time.time())
        if self._tracer is not None and trace.get_current_span().is_recording():
            self._trace(self._tracer, model, result)
        return result

    def _trace(self, tracer: Tracer, model: ServedModel, result: Result) -> None:
        """Child spans of what happened in the queue and the worker, made after the fact from its times."""
        epoch = time_ns() - perf_counter_ns()
        timings: Timings = result.timings
        edges = (result.enqueued, timings.begin, timings.preprocessed, timings.inferred, timings.end)
        for index, name in enumerate(_SPANS):
            span = tracer.start_span(name, start_time=edges[index] + epoch)
            span.set_attribute("mds.model", model.name)
            span.set_attribute("mds.version", model.version)
            if name == "inference":
                span.set_attribute("mds.batch.items", result.batch_items)
            span.end(edges[index + 1] + epoch)


def deadline_with(deadline: float | None, timeout_us: int) -> float | None:
    """The earlier of a call's deadline and the request's own `timeout` parameter (microseconds, as
    Triton's).
    """
    if timeout_us <= 0:
        return deadline
    own = monotonic() + timeout_us * 1e-6
    return own if deadline is None else min(deadline, own)


def input_spec(model: ServedModel, name: str, datatype: str) -> TensorSpec:
    """The declaration of an input that a request brings. Raises InvalidArgument for a wrong name or type."""
    spec = model.signature.input_by_name.get(name)
    if spec is None:
        raise _bad(
            f"model {model.name!r} has no input {name[:128]!r}; it takes {_names(model.signature.inputs)}",
            "INPUT_UNKNOWN",
            name,
        )
    if datatype != spec.dtype.value:
        known = "" if datatype in DataType.__members__ else " (no such type)"
        raise _bad(
            f"input {name!r} has type {datatype[:32]!r}{known}; the model takes {spec.dtype.value}",
            "INPUT_TYPE_WRONG",
            name,
        )
    return spec


def check_shape(spec: TensorSpec, shape: Sequence[int]) -> None:
    """Raises InvalidArgument for a shape that the declaration does not allow."""
    if not shape_matches(shape, spec.shape) or any(size < 0 for size in shape):
        raise _bad(
            f"input {spec.name!r} has shape {shape_text(shape[:16])}; the model takes "
            f"{shape_text(spec.shape)}",
            "INPUT_SHAPE_WRONG",
            spec.name,
        )


def check_inputs(model: ServedModel, inputs: Mapping[str, Array], given: int) -> int:
    """Number of items of a request, 1 for models that do not batch.

    `given` is how many inputs the request had, to find one given twice. Raises InvalidArgument for inputs
    that are missing or disagree about the number of items.
    """
    if given != len(inputs):
        raise _bad("an input is given twice", "INPUT_DUPLICATE", "")
    specs = model.signature.inputs
    if len(inputs) != len(specs):
        for spec in specs:
            if spec.name not in inputs and not spec.optional:
                raise _bad(
                    f"input {spec.name!r} is missing; the model takes {_names(specs)}",
                    "INPUT_MISSING",
                    spec.name,
                )
    if not model.joins:
        return 1
    items = -1
    for name, array in inputs.items():
        count = array.shape[0]
        if items == -1:
            items = count
        elif count != items:
            raise _bad(
                f"input {name!r} has {count} items and another has {items}; the first dimension must "
                "be the same",
                "INPUT_ITEMS_DIFFER",
                name,
            )
    if items < 1:
        raise _bad("the request has no items: its first dimension is 0", "INPUT_EMPTY", "")
    return items


def wanted_outputs(model: ServedModel, names: Sequence[str]) -> Sequence[TensorSpec]:
    """Declarations of the outputs that a request asks for; all if it names none. Raises InvalidArgument."""
    if not names:
        return model.signature.outputs
    known = model.signature.output_by_name
    for name in names:
        if name not in known:
            raise _bad(
                f"model {model.name!r} has no output {name[:128]!r}; it gives "
                f"{_names(model.signature.outputs)}",
                "OUTPUT_UNKNOWN",
                name,
            )
    if len(set(names)) != len(names):
        raise _bad("an output is asked for twice", "OUTPUT_DUPLICATE", "")
    return [known[name] for name in names]


def _names(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(map(str, specs))


def _bad(message: str, reason: str, tensor: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(
        message, reason=reason, metadata={"tensor": tensor[:128]} if tensor else None
    )


def bad_contents(message: str, tensor: str) -> errors.InvalidArgument:
    """The error for elements that do not fit an input's type and shape."""
    return _bad(message, "INPUT_CONTENTS_WRONG", tensor)
