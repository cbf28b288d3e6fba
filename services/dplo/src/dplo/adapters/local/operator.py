"""ClusterOperator `local`: starts, watches, restarts and stops model servers on this machine.

Level-triggered as everything here: the record on disk says what should be, `tick` compares it with the
processes. Replicas are sessions of their own, with logs that they write themselves, so they live on when this
service dies; the next one finds them by process id and start time and goes on looking after them.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from chassis import errors
from chassis.clock import Clock

from dplo.adapters.local import logs, supervision
from dplo.adapters.local.capacity import Machine, admit, choose_ports
from dplo.adapters.local.launch import HELD
from dplo.adapters.local.probe import Addresses, is_ready, read_addresses
from dplo.adapters.local.process import ProcessIdentity, read_identity
from dplo.adapters.local.record import ReplicaFiles, ReplicaRecord, read_record, write_record
from dplo.adapters.local.supervision import ProcessFacts, RestartPolicy, replica_state, supervise
from dplo.app.ports import ClusterFacts, LogTail, Placement
from dplo.domain.names import DeploymentName
from dplo.domain.observed import Replica, ReplicaState
from dplo.domain.spec import VersionSpec

NAME = "clusters/local"
_LAUNCH = Path(__file__).with_name("launch.py")
_TICK = 0.2
_STOPPED_LOGS_KEPT = 50

OnChange = Callable[[DeploymentName], None]
Environment = Callable[[Placement], Mapping[str, str]]
PackagePath = Callable[[str], Path]


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """How replicas are run. Times in seconds, sizes in bytes.

    `command` comes before `serve PACKAGE`. `ports` is the range that replicas listen in; None: any free
    ports.
    """

    state_dir: Path
    command: tuple[str, ...] = (sys.executable, "-m", "mds")
    host: str = "127.0.0.1"
    ports: range | None = None
    log_bytes: int = 10 * 1024 * 1024
    logs_kept: int = 2
    probe_interval: float = 1.0
    probe_timeout: float = 3.0
    unhealthy_limit: float = 60.0
    stop_on_exit: bool = False
    restart: RestartPolicy = field(default_factory=RestartPolicy)


@dataclass(slots=True)
class _Managed:
    """A replica in memory: its record, and what is only seen and not kept."""

    record: ReplicaRecord
    files: ReplicaFiles
    child: "subprocess.Popen[bytes] | None" = None
    identity: ProcessIdentity | None = None
    seen_alive: bool = False
    addresses: Addresses | None = None
    healthy: bool = False
    was_healthy: bool = False
    unhealthy_since: float | None = None
    probed_at: float = 0.0
    state: ReplicaState = ReplicaState.PENDING
    message: str = ""


class LocalCluster:
    """The processes of this machine. An async context manager: adopts what is there, and at the end lets it
    be.
    """

    def __init__(
        self,
        options: LocalOptions,
        machine: Machine,
        clock: Clock,
        *,
        package_path: PackagePath,
        environment: Environment,
        on_change: OnChange = lambda name: None,
        report: Callable[[str, BaseException], None] = lambda replica, error: None,
        fault: Callable[[str], None] = lambda point: None,
    ) -> None:
        self._options = options
        self._machine = machine
        self._clock = clock
        self._package_path = package_path
        self._environment = environment
        self._on_change = on_change
        self._report = report
        self._fault = fault
        self._managed: dict[str, _Managed] = {}
        self._wake = asyncio.Event()
        self._lock: int | None = None
        self._ticking = asyncio.Lock()

    async def __aenter__(self) -> "LocalCluster":
        self._folder.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        for folder in sorted(self._folder.iterdir()):
            files = self._files(folder.name)
            record = read_record(files)
            if record is None:
                shutil.rmtree(folder, ignore_errors=True)
            else:
                self._managed[record.replica] = _Managed(record, files)
        await self.tick()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._options.stop_on_exit:
            await self._end_all()
        for item in self._managed.values():
            if item.child is not None and item.child.poll() is None:
                item.child.returncode = (
                    0  # it lives on by intention: Popen shall not complain that nobody waits
                )
        if self._lock is not None:
            os.close(self._lock)

    async def run(self) -> None:
        """Looks after the replicas until cancelled."""
        while True:
            self._wake.clear()
            await self.tick()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK):
                    await self._wake.wait()

    async def place(self, placement: Placement) -> None:
        """See ClusterOperator."""
        present = self._managed.get(placement.replica)
        if present is not None:
            if present.record.stopping:
                raise errors.Unavailable(
                    f"replica {placement.replica} is still draining",
                    reason="REPLICA_DRAINING",
                    retry_after=0.5,
                )
            return
        files = self._files(placement.replica)
        record = write_record(files, self._new_record(placement))
        self._fault("recorded_replica")
        self._managed[placement.replica] = _Managed(record, files)
        self._wake.set()

    async def stop(self, deployment: DeploymentName, replica: str, drain_timeout: float) -> None:
        """See ClusterOperator."""
        managed = self._managed.get(replica)
        if managed is None or managed.record.stopping or managed.record.deployment != str(deployment):
            return
        asked = replace(managed.record, stop_requested_at=self._clock.time(), drain_timeout=drain_timeout)
        managed.record = write_record(managed.files, asked)
        managed.state = ReplicaState.DRAINING
        self._wake.set()

    async def observe(self, deployment: DeploymentName) -> Sequence[Replica]:
        """See ClusterOperator."""
        return [self._replica(m) for m in self._managed.values() if m.record.deployment == str(deployment)]

    async def logs(self, deployment: DeploymentName, replica: str, lines: int) -> LogTail:
        """See ClusterOperator."""
        log = self._log(str(deployment), replica)
        if replica not in self._managed and not log.exists():
            raise errors.NotFound(
                f"{deployment.replica(replica)} does not exist, nor is its log kept",
                reason="REPLICA_NOT_FOUND",
                metadata={"replica": deployment.replica(replica)},
            )
        return await asyncio.to_thread(logs.tail, log, lines)

    async def facts(self) -> ClusterFacts:
        """See ClusterOperator."""
        records = [managed.record for managed in self._managed.values()]
        return ClusterFacts(
            NAME,
            self._machine.cpu,
            self._machine.memory_bytes,
            self._machine.accelerators,
            self._machine.replicas,
            sum(record.cpu for record in records),
            sum(record.memory_bytes for record in records),
            sum(len(record.accelerators) for record in records),
            len(records),
        )

    async def tick(self) -> None:
        """Looks once at every replica and does what is due."""
        async with self._ticking:
            managed = list(self._managed.values())
            for item in managed:
                self._see(item)
            await asyncio.gather(*(self._probe(item) for item in managed))
            for item in managed:
                try:
                    await self._step(item)
                except (
                    OSError
                ) as error:  # a full disk must not keep the other replicas from being looked after
                    self._report(item.record.replica, error)

    # How one replica is looked at.

    def _see(self, item: _Managed) -> None:
        """Which process it is now."""
        if item.child is not None:
            item.child.poll()
        if item.identity is not None and item.identity.alive and item.addresses is not None:
            return
        item.identity = read_identity(item.files.process)
        item.seen_alive = item.seen_alive or (item.identity is not None and item.identity.alive)
        addresses = read_addresses(item.files.addresses)
        known = item.identity.pid if item.identity else None
        item.addresses = addresses if addresses is not None and addresses.pid in (0, known) else None

    async def _probe(self, item: _Managed) -> None:
        now = self._clock.time()
        if not self._alive(item) or item.addresses is None:
            item.healthy = False
            item.unhealthy_since = None
            return
        if item.healthy and now - item.probed_at < self._options.probe_interval:
            return
        item.healthy = await is_ready(item.addresses, self._options.probe_timeout)
        item.probed_at = now
        if item.healthy:
            item.was_healthy, item.unhealthy_since = True, None
        elif item.was_healthy and item.unhealthy_since is None:
            item.unhealthy_since = now

    def _alive(self, item: _Managed) -> bool:
        """Whether its process runs, or is on its way to telling who it is."""
        if item.identity is not None:
            return item.identity.alive
        return item.child is not None and item.child.returncode is None

    def _facts(self, item: _Managed) -> ProcessFacts:
        known = item.identity is not None or item.child is not None
        ours = item.child is not None and item.identity is not None and item.child.pid == item.identity.pid
        code = item.child.returncode if item.child is not None and (ours or item.identity is None) else None
        return ProcessFacts(
            self._alive(item), known, code, item.healthy, item.was_healthy, item.unhealthy_since
        )

    async def _step(self, item: _Managed) -> None:
        """What is due for one replica."""
        facts = self._facts(item)
        if item.identity is None and facts.exit_code == HELD:
            item.child = None  # the process of a service before us is on its way to telling who it is
            return
        record, step = supervise(
            item.record, facts, self._clock.time(), self._options.restart, self._options.unhealthy_limit
        )
        if step is supervision.Terminate and item.identity is None:
            return  # just started: it can be asked to end once it has told who it is
        ended = record.last_exit != item.record.last_exit
        if record != item.record:
            item.record = write_record(item.files, record)
        if ended:
            self._clear(item)
        elif step is supervision.Start:
            self._start(item)
        elif step is supervision.Terminate and item.identity is not None:
            item.identity.signal(signal.SIGTERM)
        elif step is supervision.Kill:
            self._kill(item)
        elif step is supervision.Remove:
            self._remove(item)
        log = self._log_of(item)
        if logs.is_larger(log, self._options.log_bytes):
            await asyncio.to_thread(logs.rotate, log, self._options.logs_kept)
        await self._tell(item)

    async def _tell(self, item: _Managed) -> None:
        """Wakes whoever watches, if the replica is in another state."""
        gone = item.record.replica not in self._managed
        state = replica_state(item.record, self._facts(item), self._options.restart)
        if not gone and state is item.state:
            return
        message = await self._explain(item, state)
        item.state, item.message = state, message
        self._on_change(DeploymentName.parse(item.record.deployment))

    async def _explain(self, item: _Managed, state: ReplicaState) -> str:
        """Why it is not healthy; for one that ends again and again with the end of its log."""
        if state is ReplicaState.HEALTHY or item.record.last_exit is None:
            return ""
        text = supervision.describe_end(item.record)
        if state is not ReplicaState.CRASH_LOOPING:
            return text
        last = await asyncio.to_thread(logs.tail, self._log_of(item), 5)
        return f"{text}; the end of its log: " + " | ".join(last.lines) if last.lines else text

    # What is done.

    def _start(self, item: _Managed) -> None:
        files, record = item.files, item.record
        item.record = write_record(files, replace(record, started_at=self._clock.time()))
        self._fault("starting_replica")
        log = os.open(self._log_of(item), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        # The child's environment holds what it should know and nothing of this service's own settings.
        try:
            item.child = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    str(_LAUNCH),
                    str(files.lock),
                    str(files.process),
                    str(files.addresses),
                    *record.command,
                ],
                env=dict(record.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=files.folder,
            )
        finally:
            os.close(log)
        item.identity, item.addresses = None, None
        item.healthy, item.was_healthy, item.unhealthy_since = False, False, None
        self._fault("started_replica")

    def _clear(self, item: _Managed) -> None:
        """Makes room for the next start: what the last process left behind goes."""
        self._kill(item)
        if read_identity(item.files.process) == item.identity:  # else the next has come in the meantime
            item.files.process.unlink(missing_ok=True)
        item.child, item.identity, item.addresses, item.seen_alive = None, None, None, False
        item.healthy, item.was_healthy, item.unhealthy_since = False, False, None

    def _kill(self, item: _Managed) -> None:
        if item.identity is not None and item.seen_alive:
            item.identity.kill_group()

    def _remove(self, item: _Managed) -> None:
        self._kill(item)
        shutil.rmtree(item.files.folder, ignore_errors=True)
        self._managed.pop(item.record.replica, None)
        self._prune_logs()

    async def _end_all(self) -> None:
        """Ends every replica, and lets the records say that they should run: they do at the next start."""
        for item in self._managed.values():
            self._see(item)
            if item.identity is not None:
                item.identity.signal(signal.SIGTERM)
        limit = (
            max((m.record.drain_timeout for m in self._managed.values()), default=0.0)
            + supervision.KILL_GRACE
        )
        deadline = self._clock.monotonic() + limit
        while any(self._alive(m) for m in self._managed.values()) and self._clock.monotonic() < deadline:
            await self._clock.sleep(0.05)
            for item in self._managed.values():
                self._see(item)
        for item in self._managed.values():
            self._kill(item)
            item.files.process.unlink(missing_ok=True)

    # Where things are.

    def _new_record(self, placement: Placement) -> ReplicaRecord:
        version = placement.version
        accelerators = admit(self._machine, (m.record for m in self._managed.values()), version.resources)
        environment = dict(self._environment(placement))
        ports = choose_ports(self._options.ports, self._taken_ports(), self._options.host)
        environment |= {
            "MDS_GRPC__HOST": self._options.host,
            "MDS_REST__HOST": self._options.host,
            "MDS_GRPC__PORT": str(ports[0]),
            "MDS_REST__PORT": str(ports[1]),
            "MDS_ADDRESSES_FILE": str(self._files(placement.replica).addresses),
        }
        if accelerators:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, accelerators))
        return ReplicaRecord(
            replica=placement.replica,
            deployment=str(placement.deployment),
            version=version.version,
            fingerprint=version.fingerprint,
            ordinal=placement.ordinal,
            cluster=version.cluster,
            command=self._command(version),
            environment=tuple(sorted(environment.items())),
            drain_timeout=version.drain_timeout,
            cpu=version.resources.cpu,
            memory_bytes=version.resources.memory_bytes,
            accelerators=accelerators,
        )

    def _command(self, version: VersionSpec) -> tuple[str, ...]:
        return (*self._options.command, "serve", str(self._package_path(version.package.digest)))

    def _taken_ports(self) -> set[int]:
        names = ("MDS_GRPC__PORT", "MDS_REST__PORT")
        return {int(v) for m in self._managed.values() for k, v in m.record.environment if k in names}

    def _replica(self, item: _Managed) -> Replica:
        record = item.record
        state = replica_state(record, self._facts(item), self._options.restart)
        if state is ReplicaState.CRASH_LOOPING and item.state is not state:
            state = ReplicaState.PENDING  # until it can be told why: a rollout ends with that text
        return Replica(
            record.replica,
            record.version,
            record.fingerprint,
            state,
            record.ordinal,
            message=item.message,
            grpc_address=item.addresses.grpc if item.addresses else "",
            http_address=item.addresses.rest if item.addresses else "",
            cluster=record.cluster,
            restarts=record.restarts,
            started_at=record.started_at,
            reference=f"pid {item.identity.pid}" if item.identity else "",
        )

    @property
    def _folder(self) -> Path:
        return self._options.state_dir / "replicas"

    @property
    def _logs(self) -> Path:
        return self._options.state_dir / "logs"

    def _files(self, replica: str) -> ReplicaFiles:
        return ReplicaFiles(self._folder / replica, self._logs)

    def _log(self, deployment: str, replica: str) -> Path:
        name = DeploymentName.parse(deployment)
        return self._logs / f"{name.project}.{name.deployment}.{replica}.log"

    def _log_of(self, item: _Managed) -> Path:
        return self._log(item.record.deployment, item.record.replica)

    def _prune_logs(self) -> None:
        """Keeps the logs of the replicas that were stopped last."""
        running = {self._log_of(item) for item in self._managed.values()}
        stopped = [log for log in self._logs.glob("*.log") if log not in running]
        stopped.sort(key=lambda log: log.stat().st_mtime, reverse=True)
        for log in stopped[_STOPPED_LOGS_KEPT:]:
            logs.remove(log, self._options.logs_kept)

    def _take_lock(self) -> None:
        """One service per folder: two would each restart what the other stops."""
        self._lock = os.open(self._options.state_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise errors.FailedPrecondition(
                f"another DPLO looks after the replicas in {self._options.state_dir}; stop it, or give "
                "this one a folder of its own (DPLO_LOCAL__STATE_DIR)",
                reason="STATE_DIR_IN_USE",
            ) from error
