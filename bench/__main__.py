"""Runs the benchmarks and prints their tables: `python -m bench [mds] [aigw] [--rounds N] [--seconds S]`."""

import argparse
import asyncio
import os
import platform
import sys
import tempfile
from pathlib import Path

from bench import gateway, model_server, report

BENCHMARKS = {"mds": model_server.run, "aigw": gateway.run}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which: {', '.join(BENCHMARKS)} (default: all)"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="interleaved rounds; medians are reported (default 5)"
    )
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="length of one run of one target (default 2)"
    )
    parser.add_argument(
        "--concurrency", default="1,32", help="requests in flight, comma-separated (default 1,32)"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(BENCHMARKS):
        parser.error(f"no benchmark named {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(
        f"{arguments.rounds} rounds of {arguments.seconds} s each, targets interleaved, medians\n", flush=True
    )
    for name in arguments.names or BENCHMARKS:
        with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
            for concurrency in map(int, arguments.concurrency.split(",")):
                rows = asyncio.run(
                    BENCHMARKS[name](
                        Path(folder),
                        concurrency=concurrency,
                        rounds=arguments.rounds,
                        seconds=arguments.seconds,
                    )
                )
                print(f"{name}, concurrency {concurrency}\n{report.table(rows)}\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
