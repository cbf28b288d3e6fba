"""How the demo tells what it does, on a terminal and without one, and keeps count of its checks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from penstock.dplo.v1 import deployment_service_pb2
from penstock_client.cli import deployment_view
from penstock_client.local.processes import log_tail
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

T = TypeVar("T")
_PATIENCE = 10.0
_WIDTH = 140


@dataclass(frozen=True)
class Check:
    """A number, and what it must be."""

    what: str
    expected: str
    found: str
    ok: bool
    key: bool
    """Whether the summary shows it also when it is right."""


class Story:
    """Steps, remarks, checks, and the summary at the end."""

    def __init__(self, steps: int) -> None:
        self._console = Console(highlight=False)
        if not self._console.is_terminal:
            self._console = Console(highlight=False, width=_WIDTH)
        self._steps = steps
        self._step = 0
        self._begun = time.monotonic()
        self._checks: list[Check] = []
        self._status = self._console.status("")
        if self._console.is_terminal:
            self._status.start()

    def step(self, title: str) -> None:
        """The next step begins."""
        self._step += 1
        at = f"{time.monotonic() - self._begun:5.1f} s"
        self._console.print(
            Text(f"[{self._step}/{self._steps}] ", "bold blue") + Text(title, "bold") + Text(f"  {at}", "dim")
        )
        self._status.update(title)

    def say(self, text: str) -> None:
        """A remark within a step."""
        self._console.print(Text(f"      {text}"), soft_wrap=True)

    def event(self, response: deployment_service_pb2.WatchDeploymentResponse) -> None:
        """Something that happened to the deployment."""
        if deployment_view.is_step(response):
            self.say(deployment_view.event_line(response.event).strip())

    def show(self, what: RenderableType) -> None:
        """A table or a tree."""
        self._console.print(Padding(what, (0, 0, 0, 6)))

    def check(
        self, what: str, *, expected: object, found: object, ok: bool | None = None, key: bool = False
    ) -> None:
        """Compares a number with what it must be; equal unless `ok` says so by another rule."""
        right = str(expected) == str(found) if ok is None else ok
        self._checks.append(Check(what, str(expected), str(found), right, key))
        mark = Text("ok   ", "green") if right else Text("WRONG", "bold red")
        tail = "" if right else f", expected {expected}"
        self._console.print(Text("      ") + mark + Text(f" {what}: {found}{tail}"), soft_wrap=True)

    def wait_for(self, look: Callable[[], T | None], what: str) -> T:
        """What `look` finds, as soon as it is there; processes write their spans a moment later."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            found = look()
            if found:
                return found
            time.sleep(0.05)
        raise TimeoutError(f"{what} did not come within {_PATIENCE:g} s")

    def show_logs(self, folder: Path) -> None:
        """The ends of the services' logs, when something went wrong."""
        for path in sorted(folder.glob("*.log")):
            self.say(f"the end of {path.name}:")
            self.say(log_tail(path))

    def summary(self) -> int:
        """What was checked and how it came out; the exit code."""
        self._status.stop()
        wrong = [check for check in self._checks if not check.ok]
        grid = Table(box=None, pad_edge=False)
        for column in ("", "what was checked", "expected", "found"):
            grid.add_column(column, overflow="fold")
        for check in self._checks:
            if check.key or not check.ok:
                mark = Text("ok", "green") if check.ok else Text("WRONG", "bold red")
                grid.add_row(mark, check.what, check.expected, Text(check.found))
        self._console.print()
        self._console.print(grid)
        seconds = time.monotonic() - self._begun
        verdict = (
            f"{len(wrong)} of {len(self._checks)} checks failed"
            if wrong
            else f"all {len(self._checks)} checks hold"
        )
        self._console.print(Text(f"\n{verdict}, {seconds:.0f} s", "bold red" if wrong else "bold green"))
        return 1 if wrong else 0
