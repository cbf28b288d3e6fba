"""The pause image, which holds each pod's namespaces: built here, as none can be pulled where tests run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deploy.tools import oci
from deploy.tools.cache import Cache
from deploy.tools.go import GoTool
from deploy.tools.tool import Report


@dataclass(frozen=True)
class PauseImage:
    """A Go program without dependencies, wrapped into an OCI archive that containerd imports."""

    program: GoTool
    summary: str
    reference: str

    @property
    def name(self) -> str:
        return self.program.name

    @property
    def version(self) -> str:
        return self.program.version

    def present(self, cache: Cache) -> bool:
        return self.program.present(cache)

    def install(self, cache: Cache, report: Report) -> None:
        self.program.install(cache, report)

    def command(self, cache: Cache, name: str) -> Path:
        return self.program.command(cache, name)

    def archive(self, cache: Cache) -> bytes:
        """Return the image as a tar file for `ctr image import`."""
        program = self.program.command(cache, "pause").read_bytes()
        return oci.image({"pause": program}, ["/pause"]).archive(self.reference)
