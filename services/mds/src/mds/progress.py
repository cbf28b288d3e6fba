"""Shows how far a build is, on a terminal."""

import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn

from mds.app.build import BuildProgress
from mds.packaging import Quiet


class _Shown:
    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("starting", total=None)

    def step(self, text: str) -> None:
        """Something begins."""
        self._bar.reset(self._task, description=text, total=None)

    def bytes(self, path: str, count: int) -> None:
        """So many more bytes."""
        self._bar.update(self._task, advance=count)


@contextlib.contextmanager
def shown(*, enabled: bool) -> Iterator[BuildProgress]:
    """Progress on standard error, or none."""
    if not enabled:
        yield Quiet()
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Shown(bar)
