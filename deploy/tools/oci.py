"""One-layer OCI images from files, byte for byte the same each time; no engine and no root needed.

Formats: OCI image specification 1.1 (manifest, configuration, layout); registries take the same blobs.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_EPOCH = "1970-01-01T00:00:00Z"


@dataclass(frozen=True)
class Blob:
    """Content with its media type; the digest is its name everywhere."""

    media_type: str
    content: bytes

    @property
    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(self.content).hexdigest()

    def descriptor(self) -> dict[str, object]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.content)}


@dataclass(frozen=True)
class Image:
    """The three blobs of an image of one layer."""

    manifest: Blob
    config: Blob
    layer: Blob

    def archive(self, reference: str) -> bytes:
        """Return an OCI layout as a tar file, which `ctr image import` and skopeo read, with its name."""
        index = {
            "schemaVersion": 2,
            "manifests": [
                self.manifest.descriptor()
                | {
                    "annotations": {
                        "io.containerd.image.name": reference,
                        "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
                    },
                    "platform": {"os": "linux", "architecture": "amd64"},
                }
            ],
        }
        files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": _json(index)}
        for blob in (self.manifest, self.config, self.layer):
            files["blobs/" + blob.digest.replace(":", "/")] = blob.content
        return _tar(files)


def image(files: Mapping[str, bytes], entrypoint: Sequence[str], architecture: str = "amd64") -> Image:
    """Make an image that holds `files` (path without leading slash, executable) and runs `entrypoint`."""
    plain = _tar(files)
    layer = Blob(LAYER, gzip.compress(plain, mtime=0))
    config = Blob(
        CONFIG,
        _json(
            {
                "created": _EPOCH,
                "architecture": architecture,
                "os": "linux",
                "config": {"Entrypoint": list(entrypoint), "Env": ["PATH=/bin"], "WorkingDir": "/"},
                "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(plain).hexdigest()]},
                "history": [{"created": _EPOCH, "created_by": "penstock deploy.tools"}],
            }
        ),
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.descriptor(),
        "layers": [layer.descriptor()],
    }
    return Image(Blob(MANIFEST, _json(manifest)), config, layer)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _tar(files: Mapping[str, bytes]) -> bytes:
    """Pack files and the folders above them in sorted order, without times or owners of this machine."""
    folders = {"/".join(path.split("/")[:depth]) for path in files for depth in range(1, path.count("/") + 1)}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(folders | set(files)):
            entry = tarfile.TarInfo(name)
            entry.mode = 0o755
            if name in folders:
                entry.type = tarfile.DIRTYPE
                tar.addfile(entry)
            else:
                entry.size = len(files[name])
                tar.addfile(entry, io.BytesIO(files[name]))
    return buffer.getvalue()
