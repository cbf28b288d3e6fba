"""One run of real servers: a folder for all of them, and no trace of runs that were killed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.real.servers import process
from tests.real.servers.node import KERNEL_SETTINGS, remove_stale_groups, restore_kernel_settings

_PREFIX = "penstock-real-"


@contextmanager
def session() -> Iterator[Path]:
    """Give a folder that users other than root may pass through, and remove it at the end.

    Raises ServerError when a process outlived the servers of the block; it is killed first.
    """
    _clean_up_after_dead_runs()
    root = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{process.identity(os.getpid())}-"))
    root.chmod(0o711)
    try:
        yield root
    finally:
        left = process.reap()
        shutil.rmtree(root, ignore_errors=True)
    if left:
        raise process.ServerError(f"processes {left} outlived the servers that started them and were killed")


def _clean_up_after_dead_runs() -> None:
    """Clear what killed runs left: processes, folders, control groups, changed settings of the kernel."""
    process.reap(of_dead_owners=True)
    remove_stale_groups()
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*-*"):
        owner = "-".join(folder.name.removeprefix(_PREFIX).split("-")[:2])
        if not process.is_alive(owner):
            for saved in folder.rglob(KERNEL_SETTINGS):
                restore_kernel_settings(saved)
            shutil.rmtree(folder, ignore_errors=True)
