"""The file by which a client finds an API server and says who it is."""

from __future__ import annotations

import json
from pathlib import Path


def kubeconfig(server: str, certificate: Path, user: str, token: str) -> str:
    """Return a configuration with one cluster, one user and one context; JSON, which is YAML too."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [
                {"name": "test", "cluster": {"server": server, "certificate-authority": str(certificate)}}
            ],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [
                {"name": "test", "context": {"cluster": "test", "user": user, "namespace": "default"}}
            ],
        },
        indent=1,
    )
