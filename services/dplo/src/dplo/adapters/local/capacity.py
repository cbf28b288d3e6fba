"""What this machine can hold. Replicas are admitted by what they declare; nothing is enforced afterwards."""

import os
import re
import socket
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from chassis import errors

from dplo.adapters.local.record import ReplicaRecord
from dplo.domain.spec import Resources


@dataclass(frozen=True, slots=True)
class Machine:
    """Cores, bytes of memory, NVIDIA devices, replicas."""

    cpu: float
    memory_bytes: int
    accelerators: int
    replicas: int


def find_machine(replicas: int) -> Machine:
    """What there is."""
    memory = 0
    if "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    devices = [p for p in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", p.name)]
    return Machine(float(os.cpu_count() or 1), memory, len(devices), replicas)


def admit(machine: Machine, running: Iterable[ReplicaRecord], wanted: Resources) -> tuple[int, ...]:
    """The accelerators for one more replica. Raises ResourceExhausted where there is no room for it."""
    present = list(running)
    if len(present) >= machine.replicas:
        raise _full("replicas", machine.replicas, len(present), 1, "raise DPLO_LOCAL__MAX_REPLICAS")
    cpu = sum(record.cpu for record in present)
    if wanted.cpu and cpu + wanted.cpu > machine.cpu:
        raise _full("cores", machine.cpu, cpu, wanted.cpu, "declare fewer, or fewer replicas")
    memory = sum(record.memory_bytes for record in present)
    if wanted.memory_bytes and memory + wanted.memory_bytes > machine.memory_bytes:
        raise _full("bytes of memory", machine.memory_bytes, memory, wanted.memory_bytes, "declare less")
    if wanted.accelerator is None:
        return ()
    used = {index for record in present for index in record.accelerators}
    free = [index for index in range(machine.accelerators) if index not in used]
    count = wanted.accelerator.count
    if len(free) < count:
        raise _full("accelerators", machine.accelerators, len(used), count, "use another cluster")
    return tuple(free[:count])


def choose_ports(ports: range | None, taken: Collection[int], host: str) -> tuple[int, int]:
    """Two free ports of a range, or (0, 0): the model server takes any. Raises ResourceExhausted."""
    if ports is None:
        return 0, 0
    free = (port for port in ports if port not in taken and _is_free(host, port))
    found = [port for port, _ in zip(free, range(2), strict=False)]
    if len(found) < 2:
        raise errors.ResourceExhausted(
            f"no two free ports are left in {ports.start}-{ports.stop - 1}; widen DPLO_LOCAL__PORTS",
            reason="NO_PORT",
            metadata={"ports": f"{ports.start}-{ports.stop - 1}"},
        )
    return found[0], found[1]


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _full(what: str, there: float, used: float, wanted: float, cure: str) -> errors.ResourceExhausted:
    return errors.ResourceExhausted(
        f"clusters/local has {there:g} {what}, {used:g} are given away, the replica needs {wanted:g}; {cure}",
        reason="NO_CAPACITY",
        metadata={"resource": what},
    )
