"""Kubernetes: API server, controller manager and scheduler on etcd, and a node that really runs pods."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.real.servers import node
from tests.real.servers.kubeconfig import kubeconfig
from tests.real.servers.process import Server, free_port, program, run, running

ADMIN = "penstock-admin"
_USERS = {
    # user → groups; the roles of the system users are those that the API server makes at its first start
    ADMIN: "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
    f"system:node:{node.NAME}": "system:nodes",
}


@dataclass(frozen=True)
class Kubernetes:
    """A cluster of one node, or an existing one that KUBECONFIG names."""

    kubeconfig: Path
    external: bool = False

    @property
    def environ(self) -> dict[str, str]:
        return {"KUBECONFIG": str(self.kubeconfig)}

    def kubectl(self, *arguments: str, timeout: float = 60.0) -> str:
        """Run kubectl as the administrator and return its output."""
        kubectl = program("kubernetes", "kubectl")
        return run([kubectl, "--kubeconfig", self.kubeconfig, *arguments], timeout=timeout)


@dataclass(frozen=True)
class _ControlPlane:
    """Where the parts find one another."""

    folder: Path
    port: int
    tokens: dict[str, str]

    @property
    def client_certificate(self) -> Path:
        """The certificate with which the API server calls the kubelet; it vouches for itself."""
        return self.folder / "api-server-client.crt"

    def kubeconfig(self, user: str) -> Path:
        """Write and return the configuration with which one user reaches the API server."""
        certificate = self.folder / "certificates" / "apiserver.crt"
        path = self.folder / f"{user.replace(':', '-')}.kubeconfig"
        path.write_text(kubeconfig(f"https://127.0.0.1:{self.port}", certificate, user, self.tokens[user]))
        path.chmod(0o600)
        return path


@contextmanager
def kubernetes(folder: Path) -> Iterator[Kubernetes]:
    """Start a cluster under `folder` and wait until its node is ready and new pods get a service account."""
    with ExitStack() as stack:
        plane = _ControlPlane(folder, free_port(), {user: secrets.token_hex(16) for user in _USERS})
        etcd_port = _start_etcd(folder, stack)
        api = _start_api_server(plane, etcd_port, stack)
        cluster = Kubernetes(plane.kubeconfig(ADMIN))
        for name, user in (
            ("kube-controller-manager", "system:kube-controller-manager"),
            ("kube-scheduler", "system:kube-scheduler"),
        ):
            _start_controller(plane, name, user, stack)
        identity = plane.kubeconfig(f"system:node:{node.NAME}")
        kubelet = stack.enter_context(node.node(folder / "node", identity, plane.client_certificate))
        kubelet.wait_until("registered", lambda: _node_ready(cluster), 120)
        api.wait_until(
            "giving service accounts", lambda: bool(cluster.kubectl("get", "serviceaccount", "default")), 60
        )
        yield cluster


def _node_ready(cluster: Kubernetes) -> bool:
    path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
    return cluster.kubectl("get", "node", node.NAME, "-o", path) == "True"


def _start_etcd(folder: Path, stack: ExitStack) -> int:
    client, peer = free_port(), free_port()
    urls = {
        "listen-client-urls": f"http://127.0.0.1:{client}",
        "advertise-client-urls": f"http://127.0.0.1:{client}",
        "listen-peer-urls": f"http://127.0.0.1:{peer}",
        "initial-advertise-peer-urls": f"http://127.0.0.1:{peer}",
        "initial-cluster": f"default=http://127.0.0.1:{peer}",
        "data-dir": str(folder / "etcd"),
        "unsafe-no-fsync": "true",
        "logger": "zap",
    }
    command = [program("etcd"), *(f"--{key}={value}" for key, value in urls.items())]
    etcd = stack.enter_context(running("etcd", command, folder))
    etcd.wait_until_listening(client)
    return client


def _make_keys(plane: _ControlPlane) -> tuple[Path, Path]:
    """Make the key that signs service accounts, and that of the certificate for calls to the kubelet."""
    key = plane.folder / "service-accounts.key"
    run(["openssl", "genrsa", "-out", key, "2048"])
    client_key = plane.client_certificate.with_suffix(".key")
    subject = "/O=system:masters/CN=kube-apiserver-kubelet-client"
    request = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "30", "-subj", subject]
    run([*request, "-keyout", str(client_key), "-out", str(plane.client_certificate)])
    return key, client_key


def _start_api_server(plane: _ControlPlane, etcd_port: int, stack: ExitStack) -> Server:
    key, client_key = _make_keys(plane)
    tokens = plane.folder / "tokens.csv"
    tokens.write_text("".join(f'{plane.tokens[user]},{user},{user},"{_USERS[user]}"\n' for user in _USERS))
    tokens.chmod(0o600)
    flags = {
        "etcd-servers": f"http://127.0.0.1:{etcd_port}",
        "bind-address": "127.0.0.1",
        "advertise-address": "127.0.0.1",
        "endpoint-reconciler-type": "none",
        "secure-port": str(plane.port),
        "cert-dir": str(plane.folder / "certificates"),
        "service-cluster-ip-range": "10.96.0.0/16",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": str(key),
        "service-account-signing-key-file": str(key),
        "token-auth-file": str(tokens),
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "kubelet-preferred-address-types": "InternalIP",
        "kubelet-client-certificate": str(plane.client_certificate),
        "kubelet-client-key": str(client_key),
        "shutdown-delay-duration": "0s",
    }
    command = [program("kubernetes", "kube-apiserver"), *(f"--{k}={v}" for k, v in flags.items())]
    server = stack.enter_context(running("kube-apiserver", command, plane.folder))
    certificate = plane.folder / "certificates" / "apiserver.crt"
    server.wait_until("certified", certificate.exists, 120)
    server.wait_until_listening(plane.port, 120)
    admin = Kubernetes(plane.kubeconfig(ADMIN))
    server.wait_until("ready", lambda: admin.kubectl("get", "--raw", "/readyz") == "ok", 120)
    return server


def _start_controller(plane: _ControlPlane, name: str, user: str, stack: ExitStack) -> None:
    config = plane.kubeconfig(user)
    port = free_port()
    options = [
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        f"--cert-dir={plane.folder / name}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        "--leader-elect=false",
    ]
    if name == "kube-controller-manager":
        options += [
            f"--service-account-private-key-file={plane.folder / 'service-accounts.key'}",
            f"--root-ca-file={plane.folder / 'certificates' / 'apiserver.crt'}",
            "--use-service-account-credentials=true",
        ]
    server = stack.enter_context(running(name, [program("kubernetes", name), *options], plane.folder))
    server.wait_until_listening(port)
