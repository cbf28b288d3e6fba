"""Slurm: controller, munge and several virtual nodes, each a slurmd of its own on this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import gethostname

from tests.real.servers.process import Server, free_port, program, run, running

NODES = ("n1", "n2")


@dataclass(frozen=True)
class Slurm:
    """A cluster as the configuration file that all its commands read; or the one SLURM_CONF names."""

    conf: Path

    @property
    def environ(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.conf)}

    def run(self, command: str, *arguments: str | Path, timeout: float = 60.0) -> str:
        """Run one of Slurm's commands (sbatch, squeue, scontrol …) and return its output."""
        return run([program("slurm", command), *arguments], env=self.environ, timeout=timeout)


@contextmanager
def slurm(folder: Path, nodes: Sequence[str] = NODES) -> Iterator[Slurm]:
    """Start a cluster and wait until every node is idle; needs root."""
    folder.mkdir(parents=True, exist_ok=True)
    controller = free_port()
    ports = {node: free_port() for node in nodes}
    conf = folder / "slurm.conf"
    conf.write_text(_configuration(folder, controller, ports))
    (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
    found = Slurm(conf)
    with ExitStack() as stack:
        _start_munge(folder, stack)
        server = stack.enter_context(_daemon("slurmctld", ["-D", "-i", "-f", str(conf)], folder))
        server.wait_until_listening(controller)
        for node in nodes:
            (folder / f"spool-{node}").mkdir()
            # In a process namespace of its own, so that the jobs of a node end with it.
            daemon = stack.enter_context(_daemon("slurmd", ["-D", "-N", node, "-f", str(conf)], folder, node))
            daemon.wait_until_listening(ports[node])
        server.wait_until("serving idle nodes", lambda: _idle(found) == len(nodes))
        yield found


def _idle(cluster: Slurm) -> int:
    states = cluster.run("sinfo", "--noheader", "--Node", "--format=%T").split()
    return states.count("idle")


def _daemon(
    name: str, arguments: Sequence[str], folder: Path, node: str = ""
) -> AbstractContextManager[Server]:
    own_processes = ["unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"] if node else []
    command = [*own_processes, program("slurm", name), *arguments]
    return running(f"{name}-{node}" if node else name, command, folder, patience=0.2 if node else 5)


def _start_munge(folder: Path, stack: ExitStack) -> None:
    home = folder / "munge"
    home.mkdir(mode=0o755)
    (home / "key").write_bytes(os.urandom(1024))
    (home / "key").chmod(0o400)
    user = "munge" if os.geteuid() == 0 else None
    if user:
        for path in (home, home / "key"):
            shutil.chown(path, user, user)
    options = {
        "socket": "socket",
        "key-file": "key",
        "pid-file": "pid",
        "log-file": "log",
        "seed-file": "seed",
    }
    flags = [f"--{option}={home / name}" for option, name in options.items()]
    command = [program("slurm", "munged"), "--foreground", "--force", *flags]
    server = stack.enter_context(running("munged", command, home, user=user))
    server.wait_until("listening", (home / "socket").exists)


def _configuration(folder: Path, controller: int, ports: dict[str, int]) -> str:
    host = gethostname()
    nodes = "\n".join(
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=500"
        for node, port in ports.items()
    )
    return f"""ClusterName=penstock-test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=30
KillWait=2
MailProg=/bin/true
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""
