"""What every tool is to the command: a name, a version, whether it is here, and how to bring it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from deploy.tools.cache import Cache

Report = Callable[[str], None]
"""Takes one short text about the step that is running, for the progress line."""


class ToolError(Exception):
    """A tool cannot be brought here; the text says what failed and what would help."""


class Tool(Protocol):
    """One real server or program that tests use."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def summary(self) -> str: ...

    def present(self, cache: Cache) -> bool:
        """Tell, quickly and without the network, whether nothing needs doing."""

    def install(self, cache: Cache, report: Report) -> None:
        """Bring it here; running it again after a kill goes on from what was done. Raises ToolError."""

    def command(self, cache: Cache, name: str) -> Path:
        """Return the path of one of its programs. Raises ToolError when it is not here."""


def tail(text: str, lines: int = 40) -> str:
    """Return the last lines of a log, for an error message."""
    return "\n".join(text.splitlines()[-lines:])
