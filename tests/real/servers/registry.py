"""OCI registry: Debian's docker-registry over plain HTTP on loopback, with deletion allowed."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.tools.oci import MANIFEST, Blob, Image
from tests.real.servers.process import free_port, program, running


@dataclass(frozen=True)
class Registry:
    """A registry at `url`, or an existing one that REGISTRY_URL names."""

    url: str

    @property
    def host(self) -> str:
        """The part of image references before the repository."""
        return self.url.partition("://")[2].rstrip("/")

    @property
    def environ(self) -> dict[str, str]:
        return {"REGISTRY_URL": self.url}

    def push(self, image: Image, repository: str, tag: str) -> str:
        """Push an image by the distribution API (blobs, then manifest); return its reference with digest."""
        for blob in (image.config, image.layer):
            self._push_blob(repository, blob)
        self._send("PUT", f"/v2/{repository}/manifests/{tag}", image.manifest.content, MANIFEST)
        return f"{self.host}/{repository}@{image.manifest.digest}"

    def _push_blob(self, repository: str, blob: Blob) -> None:
        upload = self._send("POST", f"/v2/{repository}/blobs/uploads/", b"", "application/octet-stream")
        target = upload if "://" in upload else self.url + upload
        target += ("&" if "?" in target else "?") + f"digest={blob.digest}"
        self._send("PUT", target.removeprefix(self.url), blob.content, "application/octet-stream")

    def _send(self, method: str, path: str, body: bytes, media_type: str) -> str:
        headers = {"Content-Type": media_type, "Content-Length": str(len(body))}
        request = urllib.request.Request(self.url + path, body, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return str(answer.headers.get("Location", ""))


@contextmanager
def registry(folder: Path) -> Iterator[Registry]:
    """Start an empty registry that keeps its content under `folder`."""
    port = free_port()
    config = {
        "version": "0.1",
        "log": {"level": "info", "formatter": "text"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "content")}, "delete": {"enabled": True}},
        # The host is not fixed, so that answers name the address by which the caller came.
        "http": {"addr": f"127.0.0.1:{port}", "relativeurls": True, "secret": "penstock-test"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    found = Registry(f"http://127.0.0.1:{port}")
    with running("registry", [program("registry", "docker-registry"), "serve", path], folder) as server:
        server.wait_until_listening(port)
        server.wait_until(
            "serving", lambda: urllib.request.urlopen(found.url + "/v2/", timeout=2).status == 200
        )
        yield found
