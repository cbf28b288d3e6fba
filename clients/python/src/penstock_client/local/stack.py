"""The stack as a whole: `start`, `stop` and `status`, each of which may be called at any time and again."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from penstock_client.errors import Aborted, DeadlineExceeded, FailedPrecondition, InvalidArgument
from penstock_client.local import processes, state
from penstock_client.local.services import DEFAULT_FIRST_PORT, STAGES, ServiceSpec
from penstock_client.local.state import ServiceState, StackState

Tell = Callable[[str, str], None]
"""Called with a service's name and what happens to it."""

_HOST = "127.0.0.1"
_READY_LIMIT = 60.0
_STOP_LIMIT = 20.0
_GONE_LIMIT = 5.0
_STRIDE = 30


@dataclass(frozen=True)
class StackOptions:
    """How a stack is started."""

    folder: Path
    first_port: int = DEFAULT_FIRST_PORT
    """0 takes any free ports."""
    traces: str = "off"
    """`off`, `file` (spans of each process into `traces/` of the folder) or `otlp:HOST:PORT`."""
    sample_ratio: float = 1.0
    """Share of the traces begun by callers that do not trace that is recorded; traced calls always are."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to what each service is given."""

    def __post_init__(self) -> None:
        kind, _, where = self.traces.partition(":")
        if kind not in {"off", "file", "otlp"} or (kind == "otlp") != bool(where):
            raise InvalidArgument(
                f"traces {self.traces!r} are none of off, file, otlp:HOST:PORT", reason="SETTINGS_INVALID"
            )


@dataclass(frozen=True)
class ServiceStatus:
    """One service now."""

    name: str
    title: str
    state: ServiceState
    running: bool
    ready: bool


def start(options: StackOptions, tell: Tell) -> StackState:
    """Starts what does not run yet, waits until all are ready, and leaves them running."""
    options.folder.mkdir(parents=True, exist_ok=True)
    with _locked(options.folder):
        stack = state.read(options.folder)
        if stack is not None and not any(map(processes.is_running, stack.services.values())):
            # A stack that ended without `down`, or a machine that was started anew: nothing of it must stay.
            processes.stop_processes(processes.marked(stack.id), limit=_STOP_LIMIT)
            stack = None
        if stack is None:
            stack = StackState(secrets.token_hex(8), options.folder, {})
        kept = {name: entry for name, entry in stack.services.items() if processes.is_running(entry)}
        try:
            return _start_missing(stack, kept, options, tell)
        except BaseException:
            if not kept:
                _stop(state.read(options.folder) or stack, lambda name, what: None)
            raise


def stop(folder: Path, tell: Tell) -> bool:
    """Ends every process of the stack, model replicas included. False when there was none."""
    if not folder.exists():
        return False
    with _locked(folder):
        stack = state.read(folder)
        if stack is None:
            return False
        return _stop(stack, tell)


def status(folder: Path) -> list[ServiceStatus]:
    """The services of the stack, running or not; empty when none was started."""
    stack = state.read(folder)
    if stack is None:
        return []
    found = []
    for spec in (spec for stage in STAGES for spec in stage):
        if spec.name in stack.services:
            entry = stack.services[spec.name]
            running = processes.is_running(entry)
            found.append(ServiceStatus(spec.name, spec.title, entry, running, running and _ready(entry.rest)))
    return found


def _start_missing(
    stack: StackState, kept: Mapping[str, ServiceState], options: StackOptions, tell: Tell
) -> StackState:
    specs = [spec for stage in STAGES for spec in stage]
    missing = [spec for spec in specs if spec.name not in kept]
    first = _first_port(options.first_port)
    ports = {spec.name: _ports(spec, first, stack.services.get(spec.name)) for spec in missing}
    commands = {spec.name: spec.command() for spec in missing}
    for spec in missing:
        _check_ports(spec, ports[spec.name], patience=_GONE_LIMIT if spec.name in stack.services else 0.0)
    services = dict(kept)
    for stage in STAGES:
        begun = []
        for spec in stage:
            if spec.name in services:
                tell(spec.name, f"already running (process {services[spec.name].pid})")
                continue
            tell(spec.name, "starting")
            begun.append(
                (spec, _begin(spec, commands[spec.name], ports[spec.name], stack.id, options, services))
            )
            # Written at once, so that a launcher that is killed now leaves nothing that `down` cannot find.
            draft = {s.name: entry for s, entry in begun}
            state.write(StackState(stack.id, options.folder, {**services, **draft}))
        for spec, entry in begun:
            services[spec.name] = _await_ready(spec, entry, options.folder)
            tell(spec.name, f"ready, gRPC {services[spec.name].grpc}, REST {services[spec.name].rest}")
    result = StackState(stack.id, options.folder, services)
    state.write(result)
    return result


def _begin(
    spec: ServiceSpec,
    command: list[str],
    ports: tuple[int, int],
    stack_id: str,
    options: StackOptions,
    known: Mapping[str, ServiceState],
) -> ServiceState:
    prefix = spec.name.upper()
    log = options.folder / "logs" / f"{spec.name}.log"
    log.parent.mkdir(exist_ok=True)
    _addresses_file(options.folder, spec).unlink(missing_ok=True)
    own = {
        f"{prefix}_GRPC__PORT": str(ports[0]),
        f"{prefix}_REST__PORT": str(ports[1]),
        f"{prefix}_ADDRESSES_FILE": str(_addresses_file(options.folder, spec)),
        **_telemetry(spec, options),
        **spec.environment(options.folder, known),
        processes.MARKER: stack_id,
    }
    inherited = {name: value for name, value in os.environ.items() if not _is_service_setting(name)}
    pid = processes.spawn(command, {**inherited, **own, **options.environment}, log)
    grpc, rest = f"{_HOST}:{ports[0]}", f"http://{_HOST}:{ports[1]}"
    return ServiceState(pid, processes.started_at(pid), grpc, rest, str(log))


def _is_service_setting(name: str) -> bool:
    """The stack says itself how its services are set up; what is meant for others must not leak in."""
    return name.startswith(("AIGW_", "DPLO_", "MDS_")) or name == processes.MARKER


def _telemetry(spec: ServiceSpec, options: StackOptions) -> dict[str, str]:
    kind, _, where = options.traces.partition(":")
    if kind == "off":
        return {}
    traces = options.folder / "traces"
    traces.mkdir(exist_ok=True)
    given: dict[str, str] = {}
    # DPLO hands the model server's settings on to its replicas. In a folder each process has a file of its
    # own.
    for prefix in ("DPLO", "MDS") if spec.name == "dplo" else (spec.name.upper(),):
        group = f"{prefix}_TELEMETRY__"
        if kind == "file":
            given |= {f"{group}EXPORTER": "file", f"{group}FILE": str(traces)}
        else:
            given |= {f"{group}EXPORTER": "otlp", f"{group}ENDPOINT": f"http://{where}"}
        given |= {f"{group}SAMPLE_RATIO": str(options.sample_ratio)}
    return given


def _first_port(wanted: int) -> int:
    """The first port of the stack. Any free ones are looked for below those that the system gives to
    connections: a service that is started again has to get its port back.
    """
    if wanted:
        return wanted
    for _ in range(100):
        first = 20_000 + _STRIDE * secrets.randbelow(12_000 // _STRIDE)
        needed = [first + spec.offset + face for stage in STAGES for spec in stage for face in (0, 1)]
        if not any(processes.port_owner(_HOST, port) for port in needed):
            return first
    raise FailedPrecondition("no free ports between 20000 and 32000", reason="PORT_IN_USE")


def _ports(spec: ServiceSpec, first: int, before: ServiceState | None) -> tuple[int, int]:
    if before is not None:
        return int(before.grpc.rpartition(":")[2]), int(before.rest.rpartition(":")[2])
    return first + spec.offset, first + spec.offset + 1


def _check_ports(spec: ServiceSpec, ports: tuple[int, int], *, patience: float) -> None:
    """Refuses ports that are taken. A service that was killed just now may hold its own a moment longer."""
    deadline = time.monotonic() + patience
    for face, port in zip(("gRPC", "REST"), ports, strict=True):
        while owner := processes.port_owner(_HOST, port):
            if time.monotonic() >= deadline:
                raise FailedPrecondition(
                    f"port {port}, which {spec.title} needs for {face}, is taken by {owner}; "
                    "stop that, or choose other ports with --first-port (0: any free ones)",
                    reason="PORT_IN_USE",
                )
            processes.pause()


def _await_ready(spec: ServiceSpec, entry: ServiceState, folder: Path) -> ServiceState:
    deadline = time.monotonic() + _READY_LIMIT
    while time.monotonic() < deadline:
        found = _bound(entry, folder, spec)
        if found is not None and _ready(found.rest):
            return found
        if not processes.is_running(entry):
            code = processes.exit_code(entry.pid)
            raise FailedPrecondition(
                f"{spec.title} ended while starting"
                + (f" (exit code {code})" if code is not None else "")
                + ". "
                f"The end of its log, {entry.log}:\n{processes.log_tail(Path(entry.log))}",
                reason="SERVICE_FAILED_TO_START",
            )
        processes.pause()
    raise DeadlineExceeded(
        f"{spec.title} was not ready within {_READY_LIMIT:g} s. "
        f"The end of its log, {entry.log}:\n{processes.log_tail(Path(entry.log))}",
        reason="SERVICE_NOT_READY",
    )


def _bound(entry: ServiceState, folder: Path, spec: ServiceSpec) -> ServiceState | None:
    """With the addresses that it really listens at."""
    try:
        addresses = json.loads(_addresses_file(folder, spec).read_text(encoding="utf-8"))
        return ServiceState(entry.pid, entry.started, addresses["grpc"], _url(addresses["rest"]), entry.log)
    except (OSError, ValueError, KeyError):
        return None


def _addresses_file(folder: Path, spec: ServiceSpec) -> Path:
    return folder / f"{spec.name}.addresses.json"


def _url(address: str) -> str:
    return address if "://" in address else f"http://{address}"


def _ready(url: str) -> bool:
    connection = http.client.HTTPConnection(url.rpartition("//")[2], timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _stop(stack: StackState, tell: Tell) -> bool:
    before = bool(processes.marked(stack.id))
    for number, stage in enumerate(reversed(STAGES)):
        entries = {spec.name: stack.services[spec.name] for spec in stage if spec.name in stack.services}
        for name in entries:
            tell(name, "stopping")
        killed = processes.stop(entries.values(), limit=_STOP_LIMIT)
        for name, entry in entries.items():
            tell(name, "killed, it did not end in time" if entry.pid in killed else "stopped")
        if number == 0:
            # With DPLO gone nobody starts replicas again; they say good-bye to the gateway while it still
            # runs.
            services = {entry.pid for entry in stack.services.values()}
            replicas = [process for process in processes.marked(stack.id) if process.pid not in services]
            if replicas:
                tell("replicas", f"stopping {len(replicas)}")
                processes.stop_processes(replicas, limit=_STOP_LIMIT)
                tell("replicas", "stopped")
    processes.stop_processes(processes.marked(stack.id), limit=_STOP_LIMIT)
    state.remove(stack.folder)
    return before


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One launcher at a time per folder."""
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Aborted(
                f"another `penstock up` or `penstock down` is at work in {folder}; wait for it and try again",
                reason="STACK_LOCKED",
            ) from error
        yield
