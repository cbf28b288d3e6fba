"""`python -m deploy.tools [NAME ...]`: bring tools, one progress line each; seconds when all are here."""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Sequence

from deploy.tools.cache import Cache
from deploy.tools.catalogue import program, select
from deploy.tools.tool import Tool, ToolError

_QUIET_SECONDS = 20.0
"""How often a step that is still running says so where the output is not a terminal."""


class Progress:
    """The line of one tool: rewritten in place on a terminal, repeated now and then elsewhere."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._live = sys.stdout.isatty()
        self._started = self._said = time.monotonic()
        self._used = _processor_seconds()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    @property
    def cost(self) -> str:
        """Tell how long it took, and how much processor time: the latter hardly depends on other load."""
        return f"{self.seconds:.0f} s ({_processor_seconds() - self._used:.0f} s of processor time)"

    def step(self, text: str) -> None:
        """Tell what runs now."""
        now = time.monotonic()
        if self._live:
            print(f"\r\033[K{self._prefix} {text}", end="", flush=True)
        elif now - self._said >= _QUIET_SECONDS:
            print(f"{self._prefix} {text} ({self.seconds:.0f} s)", flush=True)
            self._said = now

    def end(self, text: str) -> None:
        """Write the final line."""
        print(("\r\033[K" if self._live else "") + f"{self._prefix} {text}", flush=True)


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def bring(tools: Sequence[Tool], cache: Cache, *, quiet: bool = False) -> list[str]:
    """Install what is missing, in order, going on after a failure; return the failures.

    `quiet` leaves out the lines of tools that are here already.
    """
    failures = []
    for number, tool in enumerate(tools, 1):
        progress = Progress(f"[{number:2}/{len(tools)}] {tool.name + ' ' + tool.version:20}")
        try:
            with cache.lock(tool.name):
                if tool.present(cache):
                    if not quiet:
                        progress.end(f"present    {tool.summary}")
                    continue
                tool.install(cache, progress.step)
            progress.end(f"installed in {progress.cost}")
        except (ToolError, OSError) as error:
            progress.end("FAILED")
            failures.append(f"{tool.name}: {error}")
    return failures


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.tools", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these tools; all when none is named")
    parser.add_argument("--list", action="store_true", help="tell what there is and is here; install nothing")
    parser.add_argument(
        "--where", action="store_true", help="print the path of the program of each tool named"
    )
    parser.add_argument("--quiet", action="store_true", help="say nothing of tools that are here already")
    options = parser.parse_args(arguments)
    cache = Cache.of_user()
    try:
        tools = select(options.names)
        if options.where:
            print(*(program(tool.name) for tool in tools), sep="\n")
            return 0
    except ToolError as error:
        print(error, file=sys.stderr)
        return 2
    if options.list:
        for tool in tools:
            here = "here" if tool.present(cache) else "-"
            print(f"{tool.name:12} {tool.version:10} {here:5} {tool.summary}")
        return 0
    failures = bring(tools, cache, quiet=options.quiet)
    for failure in failures:
        print(f"\n{failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
