"""`python -m tests.real NAME ...`: run real servers by hand, and print the variables that name them."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Protocol

from deploy.tools.tool import ToolError
from tests.real.servers import consul, jaeger, kubernetes, postgresql, process, redis, registry, s3, slurm
from tests.real.servers.session import session


class Running(Protocol):
    """What every server here tells about itself."""

    @property
    def environ(self) -> Mapping[str, str]: ...


SERVERS: dict[str, Callable[[Path], AbstractContextManager[Running]]] = {
    "consul": consul.consul,
    "jaeger": jaeger.jaeger,
    "kubernetes": kubernetes.kubernetes,
    "postgresql": postgresql.postgresql,
    "redis": redis.redis,
    "registry": registry.registry,
    "s3": s3.s3,
    "slurm": slurm.slurm,
}


def serve(names: list[str], root: Path) -> None:
    """Start the servers, print their variables, and wait for an interrupt."""
    with ExitStack() as stack:
        for name in names:
            server = stack.enter_context(SERVERS[name](root / name))
            for variable, value in server.environ.items():
                print(f"export {variable}={shlex.quote(value)}", flush=True)
        print(f"# serving until Ctrl-C; logs are under {root}", flush=True)
        signal.pause()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.real", description=__doc__)
    parser.add_argument("names", nargs="+", choices=SERVERS, metavar="NAME", help=", ".join(SERVERS))
    names = parser.parse_args().names
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: all is stopped in order
    try:
        with session() as root:
            serve(names, root)
    except (process.ServerError, ToolError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("# stopped", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
