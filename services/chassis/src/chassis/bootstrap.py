"""Runs a service: builds it, listens, keeps its tasks, and ends it without losing a call.

`serve` is the whole life of one instance inside a running loop; `main` is the process around it: settings,
uvloop, signals, exit code. A service's entry point is `sys.exit(main("aigw", AigwSettings, build))`.

Exit codes: 0 ended on purpose, 1 failed while running, 2 wrong settings or an address that cannot be had.
"""

import asyncio
import contextlib
import gc
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from chassis import errors
from chassis.auth import Authenticator
from chassis.clock import Clock, SystemClock
from chassis.host import Host
from chassis.server.grpc_face import GrpcFace
from chassis.server.rest_face import RestFace
from chassis.settings import ListenSettings, ServiceSettings, load
from chassis.telemetry import Telemetry, create, logs

__all__ = ["Host", "Service", "build_version", "main", "serve"]

S = TypeVar("S", bound=ServiceSettings)
Build = Callable[[Host, S], Awaitable[None]]


class Service:
    """One running instance, between `started` and the end of that context."""

    def __init__(self, host: Host, settings: ServiceSettings) -> None:
        self.host = host
        self._settings = settings
        self._grpc: GrpcFace | None = None
        self._rest: RestFace | None = None

    async def listen(self) -> None:
        """Opens the faces. Raises when listening would be unsafe or the address cannot be had."""
        settings, host = self._settings, self.host
        _refuse_open_listening(settings, host.authenticator)
        face = GrpcFace(host, settings)
        if settings.grpc.enabled:
            port = await face.start()
            self._grpc = face
            host.grpc_address = settings.grpc.model_copy(update={"port": port}).address
        if settings.rest.enabled:
            self._rest = RestFace(host, settings, face.handlers)
            port = await self._rest.start()
            host.rest_address = settings.rest.model_copy(update={"port": port}).address

    def announce(self) -> None:
        """Says that the service serves: in the log, and in the addresses file when one is wanted."""
        host, settings = self.host, self._settings
        addresses = {"grpc": host.grpc_address, "rest": self.rest_url, "pid": os.getpid()}
        if settings.addresses_file is not None:
            _write_whole(settings.addresses_file, json.dumps(addresses) + "\n")
        host.log.info("serving", version=host.version, **addresses)

    @property
    def rest_url(self) -> str:
        """Where the REST face is; empty when it is off."""
        if not self.host.rest_address:
            return ""
        return f"{'https' if self._settings.tls.enabled else 'http'}://{self.host.rest_address}"

    async def drain(self) -> None:
        """Deregisters, says NOT_SERVING, takes no new calls and waits for those in flight."""
        host, settings = self.host, self._settings
        host.log.info("draining", limit=settings.drain.limit)
        for callback in host.drain_callbacks:
            try:
                await asyncio.wait_for(callback(), settings.drain.limit or None)
            except Exception as error:
                host.log.error("a drain callback failed", exc_info=error)
        faces = [face for face in (self._grpc, self._rest) if face is not None]
        for face in faces:
            await face.not_serving()
        if settings.drain.settle:
            await host.clock.sleep(settings.drain.settle)
        await self.close_faces(settings.drain.limit)

    async def close_faces(self, grace: float) -> None:
        """Stops both faces at once, each within the limit."""
        faces = [face for face in (self._grpc, self._rest) if face is not None]
        await asyncio.gather(*(face.stop(grace) for face in faces))
        self._grpc = self._rest = None


@contextlib.asynccontextmanager
async def started(
    name: str,
    version: str,
    settings: S,
    build: Build[S],
    *,
    telemetry: Telemetry | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Service]:
    """A service from built to ended. Leaving the context drains it.

    When a background task fails, whoever waits inside the context is cancelled and the context ends with an
    exception group that holds the failure.
    """
    own_telemetry = telemetry or create(settings.telemetry, name, version)
    async with AsyncExitStack() as last:
        if telemetry is None:
            last.push_async_callback(own_telemetry.shutdown)
        resources = await last.enter_async_context(AsyncExitStack())
        host = Host(
            name,
            version,
            settings,
            telemetry=own_telemetry,
            authenticator=Authenticator(settings.auth, mutual_tls=settings.tls.mutual),
            clock=clock or SystemClock(),
            resources=resources,
        )
        service = Service(host, settings)
        await build(host, settings)
        failure: Exception | None = None
        try:
            await service.listen()
            async with asyncio.TaskGroup() as group:
                host.start_tasks(group)
                service.announce()
                try:
                    yield service
                except Exception as error:  # noqa: BLE001 - raised again below, after the drain
                    failure = error
                await service.drain()
                await host.stop_tasks()
        finally:
            await service.close_faces(0)
        if failure is not None:
            raise failure


async def serve(
    name: str,
    version: str,
    settings: S,
    build: Build[S],
    *,
    stop: asyncio.Event | None = None,
    telemetry: Telemetry | None = None,
    clock: Clock | None = None,
) -> None:
    """Serves until `stop` is set or, without one, until SIGTERM or SIGINT; a second signal exits at once."""
    ended = stop or asyncio.Event()
    with contextlib.nullcontext() if stop is not None else _signals(ended, name):
        async with started(name, version, settings, build, telemetry=telemetry, clock=clock) as service:
            if stop is None:
                _rest_collector()
            await ended.wait()
        service.host.log.info("stopped")


def main(
    name: str,
    settings_cls: type[S],
    build: Build[S],
    *,
    version: str | None = None,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> int:
    """Runs a service as this process and gives its exit code."""
    try:
        settings = load(
            settings_cls,
            config=config,
            environ=os.environ if environ is None else environ,
            overrides=overrides,
        )
    except errors.Error as error:
        _complain(name, error)
        return 2
    logs.configure(settings.telemetry, service=name)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(name, version or build_version(name), settings, build))
    except (errors.InvalidArgument, errors.FailedPrecondition) as error:
        _complain(name, error)
        return 2
    except BaseExceptionGroup as group:
        for failure in _leaves(group):
            logs.get_logger(f"penstock.{name}").critical("the service failed", exc_info=failure)
        return 1
    except Exception as failure:  # noqa: BLE001 - the last line of the process: told in the log and the exit code
        logs.get_logger(f"penstock.{name}").critical("the service failed", exc_info=failure)
        return 1
    return 0


def build_version(name: str) -> str:
    """The version of the distribution `penstock-NAME`, `0` where it is not installed."""
    try:
        return metadata.version(f"penstock-{name}")
    except metadata.PackageNotFoundError:
        return "0"


@contextlib.contextmanager
def _signals(stop: asyncio.Event, name: str) -> Any:
    loop = asyncio.get_running_loop()

    def received(number: signal.Signals) -> None:
        if stop.is_set():
            sys.stderr.write(f"{name}: second {number.name}, exiting at once\n")
            sys.stderr.flush()
            os._exit(128 + number)
        stop.set()

    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, received, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _rest_collector() -> None:
    """Spares the garbage collector what lives as long as the process, and lets it look less often.

    With Python's defaults it looks at all that was imported again and again: measured on the gateway's hop at
    concurrency 32, that is 30-40 µs of CPU a call. Calls leave few cycles behind.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def _refuse_open_listening(settings: ServiceSettings, authenticator: Authenticator) -> None:
    if authenticator.enabled or settings.insecure_listen:
        return
    prefix = str(type(settings).model_config.get("env_prefix", ""))
    faces: dict[str, ListenSettings] = {"grpc": settings.grpc, "rest": settings.rest}
    for name, listen in faces.items():
        if listen.enabled and not listen.is_loopback:
            raise errors.FailedPrecondition(
                f"refusing to listen on {listen.address} ({name}) without authentication: anybody who "
                f"reaches this machine could call it. Set {prefix}AUTH__TOKENS_FILE or mutual TLS "
                f"({prefix}TLS__CLIENT_CA_FILE), or say {prefix}INSECURE_LISTEN=true if that is meant",
                reason="LISTEN_UNAUTHENTICATED",
                metadata={"address": listen.address},
            )


def _write_whole(path: Path, text: str) -> None:
    """Written beside and renamed, so that nobody reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def _complain(name: str, error: errors.Error) -> None:
    lines = [f"{name}: {error.message}", *(f"  {v.field}: {v.description}" for v in error.violations)]
    sys.stderr.write("\n".join(lines) + "\n")


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
