"""Becomes a replica: takes its lock, clears what the last one left, writes down who it is, and turns into the
given command.

Run as a script, with no imports but the standard library's, by `LocalCluster`: `launch.py LOCK_FILE
PROCESS_FILE ADDRESSES_FILE COMMAND…`. The lock is inherited by the command and held as long as it lives, so
that a replica can never run twice, whoever starts it and whenever that one is killed. Exit code 75 says that
somebody else holds it.
"""

import contextlib
import fcntl
import json
import os
import sys
import time

HELD = 75
_TRIES = 40


def started(pid: int) -> str:
    """When a process began, as the kernel tells it; "" where that cannot be asked."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def main(lock_file: str, process_file: str, addresses_file: str, command: list[str]) -> None:
    """Never returns."""
    lock = os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o600)
    for _ in range(_TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            time.sleep(0.01)
    else:
        sys.exit(HELD)
    os.set_inheritable(lock, True)
    # Where the last one listened: with its process id used again it would be taken for ours. Only here is it
    # certain that nobody else runs whose it could be.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(addresses_file)
    part = f"{process_file}.{os.getpid()}"
    with open(part, "w", encoding="utf-8") as file:
        json.dump({"pid": os.getpid(), "started": started(os.getpid())}, file)
    os.replace(part, process_file)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr, flush=True)
        sys.exit(127)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
