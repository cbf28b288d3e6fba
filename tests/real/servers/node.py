"""One Kubernetes node: kubelet, containerd and runc in a process and mount namespace of their own.

The namespaces are what makes stopping certain: when their first process dies, the kernel kills every shim
and container in them, and all their mounts (overlays, secrets, network namespaces) go with the last process.
Only control groups outlive that, and are removed here. Pods have addresses of their own on a point-to-point
link to this machine (CNI `ptp`), or use its network when they ask for `hostNetwork`. There is no kube-proxy:
cluster addresses of services are not routed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.tools import catalogue
from deploy.tools.cache import Cache
from tests.real.servers.process import (
    Server,
    ServerError,
    free_port,
    identity,
    is_alive,
    program,
    run,
    running,
)

NAME = "penstock-node"
_CGROUPS = Path("/sys/fs/cgroup")
_GROUP = "penstock-node-"
_KERNEL_SETTINGS = (
    "vm/overcommit_memory",
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/ipv4/ip_forward",
)
"""What the kubelet and the CNI plugin set for the whole machine; put back at the end."""
KERNEL_SETTINGS = "kernel.json"

_INIT = r"""
set -eu
# Mounts of the kubelet must reach the containers; this namespace is cut off from the machine already.
mount --make-rshared /
# Folders whose paths are compiled in; what is written there must not outlive the node.
for folder in /run/containerd /var/lib/cni /var/lib/kubelet /var/log/containers; do
  mkdir -p "$folder"
  mount -t tmpfs -o mode=0755 tmpfs "$folder"
done
"$CONTAINERD" --config "$FOLDER/containerd.toml" >"$FOLDER/containerd.log" 2>&1 &
tries=0
until "$CTR" --address "$SOCKET" version >/dev/null 2>&1; do
  tries=$((tries + 1))
  [ "$tries" -lt 300 ] || { echo "containerd does not answer:"; tail -n 40 "$FOLDER/containerd.log"; exit 1; }
  sleep 0.1
done
"$CTR" --address "$SOCKET" --namespace k8s.io images import "$FOLDER/pause.tar"
"$KUBELET" --config "$FOLDER/kubelet.json" --kubeconfig "$KUBECONFIG" --root-dir "$FOLDER/kubelet" \
  --cert-dir "$FOLDER/kubelet/pki" --hostname-override "$NODE_NAME" --v=2 &
wait $!
echo "the kubelet ended with status $?"
tail -n 20 "$FOLDER/containerd.log"
exit 1
"""


@contextmanager
def node(folder: Path, kubeconfig: Path, callers: Path) -> Iterator[Server]:
    """Start a node that joins the cluster of `kubeconfig` and trusts the clients that `callers` certifies."""
    if os.geteuid() != 0:
        raise ServerError(
            "a node needs root: the kubelet makes control groups, mounts and network namespaces"
        )
    folder.mkdir(parents=True)
    group = f"{_GROUP}{identity(os.getpid())}-{free_port()}"
    kernel = folder / KERNEL_SETTINGS
    kernel.write_text(json.dumps({name: Path("/proc/sys", name).read_text() for name in _KERNEL_SETTINGS}))
    _write_configuration(folder, group, callers)
    _make_groups(group)
    namespaces = ["--pid", "--fork", "--kill-child=KILL", "--mount", "--mount-proc", "--propagation=private"]
    command = ["unshare", *namespaces, "sh", "-c", _INIT]
    env = {
        "FOLDER": str(folder),
        "SOCKET": str(folder / "containerd.sock"),
        "KUBECONFIG": str(kubeconfig),
        "NODE_NAME": NAME,
        "CONTAINERD": program("containerd"),
        "CTR": program("containerd", "ctr"),
        "KUBELET": program("kubernetes", "kubelet"),
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    }
    try:
        with running("kubelet", command, folder, env=env, patience=0.2) as server:
            yield server
    finally:
        _remove_groups(group)
        restore_kernel_settings(kernel)


def _write_configuration(folder: Path, group: str, callers: Path) -> None:
    network = folder / "cni"
    network.mkdir()
    (network / "10-pods.conflist").write_text(json.dumps(_pod_network(folder)))
    (folder / "pause.tar").write_bytes(catalogue.PAUSE.archive(Cache.of_user()))
    (folder / "kubelet.json").write_text(json.dumps(_kubelet(folder, group, callers), indent=1))
    (folder / "containerd.toml").write_text(_containerd(folder))


def _pod_network(folder: Path) -> dict[str, object]:
    return {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": _free_subnet()}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "dataDir": str(folder / "addresses"),
                },
            }
        ],
    }


def _free_subnet() -> str:
    """Return a private /24 that no route of this machine touches."""
    routes = run(["ip", "-4", "route", "show", "table", "all"])
    for third in range(os.getpid() % 200, 256):
        if f"10.244.{third}." not in routes:
            return f"10.244.{third}.0/24"
    raise ServerError("every subnet of 10.244.0.0/16 is in use on this machine")


def _kubelet(folder: Path, group: str, callers: Path) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{folder / 'containerd.sock'}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{group}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "port": free_port(),
        "healthzPort": 0,
        "readOnlyPort": 0,
        "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": str(callers)}},
        "podLogsDir": str(folder / "pod-logs"),
        "volumePluginDir": str(folder / "volume-plugins"),
        "staticPodPath": "",
        # The disk belongs to whoever works here: pods are not evicted for how full it is.
        "evictionHard": {"memory.available": "50Mi"},
        "imageGCHighThresholdPercent": 100,
        "localStorageCapacityIsolation": False,
        "nodeStatusUpdateFrequency": "2s",
        "syncFrequency": "5s",
        "shutdownGracePeriod": "0s",
    }


def _containerd(folder: Path) -> str:
    return f"""version = 2
root = "{folder}/containerd"
state = "{folder}/state"
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{catalogue.PAUSE.reference}"
  netns_mounts_under_state_dir = true
  disable_apparmor = true
  # Where root lacks CAP_SYS_RESOURCE (in many sandboxes) nobody may ask to be killed last.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{Path(program("containerd", "ptp")).parent}"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""


def _hierarchies() -> list[Path]:
    """Return the roots of the control groups: one for each controller (v1), or the only one (v2)."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return [path for path in _CGROUPS.iterdir() if path.is_dir() and not path.is_symlink()]


def _make_groups(group: str) -> None:
    for root in _hierarchies():
        (root / group).mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            if root.name == "cpuset":
                (root / group / name).write_text((root / name).read_text())


def restore_kernel_settings(saved: Path) -> None:
    """Put back what the kubelet changed, from the file that its node wrote before."""
    for name, value in json.loads(saved.read_text()).items():
        Path("/proc/sys", name).write_text(value)


def remove_stale_groups() -> None:
    """Remove the control groups of nodes whose test run was killed."""
    for root in _hierarchies():
        for path in root.glob(f"{_GROUP}*-*-*"):
            if not is_alive("-".join(path.name.removeprefix(_GROUP).split("-")[:2])):
                _remove_groups(path.name)


def _remove_groups(group: str) -> None:
    """Remove the node's control groups, deepest first; each is free shortly after its last process."""
    deadline = time.monotonic() + 10
    for root in _hierarchies():
        folders = [Path(path) for path, _, _ in os.walk(root / group, topdown=False)]
        for path in folders:
            while path.exists():
                try:
                    path.rmdir()
                except OSError as error:
                    if time.monotonic() > deadline:
                        raise ServerError(f"the control group {path} cannot be removed: {error}") from error
                    time.sleep(0.05)
