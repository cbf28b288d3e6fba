"""Fault points: where a test lets the process be killed, to show that it carries on after a restart."""

import os
import signal
from collections.abc import Callable, Mapping

VARIABLE = "DPLO_FAULT_POINT"


def fault_point(environ: Mapping[str, str]) -> Callable[[str], None]:
    """Kills this process, as `kill -9` would, the n-th time that a point is passed: `POINT` or `POINT:N`.

    Without the variable nothing happens. It is meant for tests only.
    """
    point, _, count = environ.get(VARIABLE, "").partition(":")
    left = int(count) if count.isdigit() else 1

    def pass_point(name: str) -> None:
        nonlocal left
        if point and name == point:
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return pass_point
