"""A model being served: loaded from a package, answering through its batcher, unloaded again."""

import asyncio
import enum
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from chassis import errors

from mds.app.batcher import Batcher, Result
from mds.app.ports import Runtime, Session
from mds.app.statistics import Statistics
from mds.app.steps import Step, Steps
from mds.domain.execution import Batching, Execution
from mds.domain.manifest import Manifest
from mds.domain.signature import TensorSpec
from mds.domain.tensors import Array, DataType
from mds.sdk.context import LoadContext
from mds.sdk.decorators import ServingClass


class State(enum.Enum):
    """Whether a model can answer; the value is its name in Triton's repository index."""

    LOADING = "LOADING"
    READY = "READY"
    DRAINING = "UNLOADING"
    UNLOADED = "UNAVAILABLE"
    FAILED = "FAILED"


# An input that fits, with the size of its raw contents in bytes (0 for BYTES, of any size) and its numpy
# type.
AcceptedInput = tuple[TensorSpec, int, "np.dtype[Any]"]


class Log(Protocol):
    """A structured logger."""

    def error(self, event: str, **fields: Any) -> Any:
        """Something went wrong."""
        ...

    def info(self, event: str, **fields: Any) -> Any:
        """Something happened."""
        ...


@dataclass(frozen=True)
class ModelTools:
    """What serving needs from outside."""

    runtime: Callable[[str], Runtime]
    import_class: Callable[[Path, str], ServingClass]
    forget_code: Callable[[Path], None]
    log: Log


@dataclass(frozen=True, slots=True)
class Instance:
    """One copy of the model: its steps, and what its session runs on."""

    steps: Steps
    device: str
    providers: Sequence[str]


class ServedModel:
    """One version of one model.

    `names` are what callers may call it. The batcher exists while the model is loaded.
    """

    def __init__(
        self,
        manifest: Manifest,
        digest: str,
        folder: Path,
        tools: ModelTools,
        *,
        project: str | None = None,
        batching: Batching | None = None,
        execution: Execution | None = None,
    ) -> None:
        self.manifest = manifest
        self.digest = digest
        self.project = project
        self.name = manifest.model
        self.version = manifest.version
        self.signature = manifest.signature
        self.joins = manifest.signature.batches  # whether requests may share a run
        self.execution = execution or manifest.execution
        self.accepted: dict[tuple[str, str, tuple[int, ...]], AcceptedInput] = {}
        self.statistics = Statistics()
        self.instances: list[Instance] = []
        self.state = State.UNLOADED
        self.reason = "not loaded yet"
        self.load_time = 0.0
        self.load_seconds = 0.0
        self.in_flight = 0
        self.on_change: Callable[[], None] = lambda: None  # told when it can answer, or no longer can
        self.batcher: Batcher | None = None
        self._batching = batching or manifest.batching
        self._folder = folder
        self._tools = tools
        self._changing = asyncio.Lock()

    @property
    def batching(self) -> Batching:
        """How requests are put together now."""
        return self._batching

    def answers_to(self, name: str) -> bool:
        """Whether callers may call it so: `model`, or `project/model`; any project if the server knows
        none.
        """
        if name == self.name:
            return True
        project, slash, model = name.partition("/")
        return bool(slash) and model == self.name and (self.project in (None, project))

    async def load(self) -> None:
        """Loads the model, all instances, and runs it once. Raises what is wrong; then the state is
        FAILED.
        """
        async with self._changing:
            if self.state is State.READY:
                return
            self.state, self.reason = State.LOADING, ""
            started = time.monotonic()
            try:
                self.instances = await asyncio.to_thread(self._open_instances)
            except BaseException as error:
                self.state, self.reason = State.FAILED, str(error) or type(error).__name__
                raise
            self.statistics = Statistics()
            self.batcher = Batcher(
                self._batching,
                [instance.steps for instance in self.instances],
                self.statistics,
                joins=self.joins,
                name=f"{self.name}-{self.version}",
                on_fault=self._on_fault,
                loop=asyncio.get_running_loop(),
            )
            self.load_time, self.load_seconds = time.time(), time.monotonic() - started
            self.state, self.reason = State.READY, ""
            self.on_change()
            self._tools.log.info(
                "model loaded",
                model=self.name,
                version=self.version,
                digest=self.digest,
                seconds=round(self.load_seconds, 3),
                instances=len(self.instances),
                device=self.instances[0].device,
                providers=list(self.instances[0].providers),
            )

    async def unload(self) -> None:
        """Takes nothing new, finishes what waits and runs, and frees the model."""
        async with self._changing:
            if self.batcher is None:
                return
            self.state, self.reason = State.DRAINING, "unloading"
            batcher, self.batcher = self.batcher, None
            self.on_change()
            await batcher.close()
            self.instances = []
            self._tools.forget_code(self._folder / "code")
            self.state, self.reason = State.UNLOADED, "unloaded"

    async def infer(self, inputs: Mapping[str, Array], items: int, deadline: float | None) -> Result:
        """Runs one checked request. Raises Unavailable while the model is not loaded, and as
        `Batcher.run`.
        """
        batcher = self.batcher
        if batcher is None or self.state is not State.READY:
            raise errors.Unavailable(
                f"model {self.name!r} is not ready: {self.reason or self.state.name.lower()}",
                reason="MODEL_NOT_READY",
                metadata={"model": self.name, "state": self.state.name},
            )
        self.in_flight += 1
        try:
            return await batcher.run(inputs, items, deadline)
        finally:
            self.in_flight -= 1

    def tune(self, batching: Batching) -> None:
        """Changes how requests are put together. Raises InvalidArgument if this model cannot batch."""
        if batching.max_items > 1 and not self.joins:
            raise errors.InvalidArgument(
                "this model cannot batch: not every input and output has -1 as its first dimension",
                reason="BATCHING_IMPOSSIBLE",
            )
        self._batching = batching
        if self.batcher is not None:
            self.batcher.tune(batching)

    def _on_fault(self, error: BaseException) -> None:
        self._tools.log.error(
            "the model failed on a request", model=self.name, version=self.version, exc_info=error
        )

    def _open_instances(self) -> list[Instance]:
        opened: list[Instance] = []
        try:
            for index in range(self.execution.instances):
                opened.append(self._open_instance(index))
            for instance in opened:
                self._warm_up(instance)
        except BaseException:
            for instance in opened:
                instance.steps.close()
            raise
        return opened

    def _open_instance(self, index: int) -> Instance:
        manifest = self.manifest
        declared: ServingClass | None = None
        code = self._folder / "code"
        if manifest.entry_class:
            declared = self._tools.import_class(code, manifest.entry_class)
        model_file = self._folder / "model" / manifest.model_file if manifest.model_file else None
        session: Session | None = None
        if declared is None or "inference" not in declared.steps:
            runtime = self._tools.runtime(manifest.framework)
            if model_file is None:
                raise errors.InvalidArgument(
                    "the package has neither a model file nor an @inference method",
                    reason="INFERENCE_MISSING",
                )
            session = runtime.open(model_file, self.execution, instance=index)
        device = session.device if session is not None else "cpu"
        providers = session.providers if session is not None else ()
        steps = self._steps(declared, session, model_file, code, device, index)
        return Instance(steps, device, providers)

    def _steps(
        self,
        declared: ServingClass | None,
        session: Session | None,
        model_file: Path | None,
        code: Path,
        device: str,
        index: int,
    ) -> Steps:
        if declared is None:
            return Steps(self.signature, session=session)
        threads = self.execution.threads or 1
        context = LoadContext(
            self._folder / "model", model_file, code, device, index, threads, self.signature
        )
        model = _constructed(declared, context)
        methods = {
            kind: Step(getattr(model, name), kind) for kind, name in declared.steps.items() if kind != "load"
        }
        return Steps(
            self.signature,
            preprocess=methods.get("preprocess"),
            inference=methods.get("inference"),
            session=session,
            postprocess=methods.get("postprocess"),
        )

    def _warm_up(self, instance: Instance) -> None:
        """Runs one item of zeros, so that the first caller does not pay for it; a model may refuse zeros."""
        inputs: dict[str, Array] = {}
        for spec in self.signature.inputs:
            shape = [1 if size < 0 else size for size in spec.shape]
            if spec.dtype is DataType.BYTES:
                inputs[spec.name] = np.full(shape, b"", dtype=object)
            else:
                inputs[spec.name] = np.zeros(shape, dtype=spec.dtype.numpy)
        with suppress(Exception):
            instance.steps.run(inputs)


def _constructed(declared: ServingClass, context: LoadContext) -> Any:
    """The object of a serving class, with its `@load` method run. Raises FailedPrecondition for its
    faults.
    """
    try:
        model = declared.type()
        name = declared.steps.get("load")
        if name is not None:
            Step(getattr(model, name), "load")
            _run_load(getattr(model, name), context)
        return model
    except errors.Error:
        raise
    except Exception as error:
        raise errors.FailedPrecondition(
            f"loading {declared.type.__name__} failed: {type(error).__name__}: {error}",
            reason="LOAD_FAILED",
            metadata={"class": declared.type.__name__},
        ) from error


def _run_load(method: Callable[..., Any], context: LoadContext) -> None:
    import inspect

    takes_context = bool(inspect.signature(method).parameters)
    result = method(context) if takes_context else method()
    if inspect.iscoroutine(result):
        asyncio.run(result)


def with_overrides(
    batching: Batching,
    execution: Execution,
    *,
    max_items: int | None,
    instances: int | None,
    threads: int | None,
) -> tuple[Batching, Execution]:
    """A package's settings with those of the server's operator on top."""
    if max_items is not None:
        batching = replace(
            batching, max_items=max_items, max_delay=batching.max_delay if max_items > 1 else 0.0
        )
    if instances is not None:
        execution = replace(execution, instances=instances)
    if threads is not None:
        execution = replace(execution, threads=threads)
    return batching, execution
