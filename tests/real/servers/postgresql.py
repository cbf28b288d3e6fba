"""PostgreSQL: Debian's server on a data folder of its own; each test gets a database."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from tests.real.servers.process import free_port, program, run, running

_OWNER = "postgres"


@dataclass(frozen=True)
class PostgreSQL:
    """A server as the libpq address of one of its databases; or what DATABASE_URL names."""

    url: str

    @property
    def environ(self) -> dict[str, str]:
        parts = urlsplit(self.url)
        return {"DATABASE_URL": self.url, "PGHOST": str(parts.hostname), "PGPORT": str(parts.port or 5432)}

    def of_database(self, name: str) -> str:
        """Return the address of another database of this server."""
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))


@contextmanager
def postgresql(folder: Path) -> Iterator[PostgreSQL]:
    """Make and start an empty server; it trusts whoever reaches it on loopback."""
    folder.mkdir(parents=True, exist_ok=True)
    user = _OWNER if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    if user:
        shutil.chown(folder, user, user)
    data = folder / "data"
    as_owner = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
    initdb = [program("postgresql", "initdb"), "--no-sync", "--auth=trust", "--username=penstock"]
    run([*as_owner, *initdb, "--encoding=UTF8", "--locale=C.UTF-8", f"--pgdata={data}"])
    port = free_port()
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": str(folder),
        "fsync": "off",
        "full_page_writes": "off",
        "synchronous_commit": "off",
        "max_connections": 200,
    }
    flags = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
    command = [program("postgresql", "postgres"), "-D", str(data), *flags]
    psql = [program("postgresql", "psql"), "-h", "127.0.0.1", "-p", str(port), "-U", "penstock"]
    # SIGINT is its "fast" shutdown: clients are disconnected instead of waited for.
    with running("postgresql", command, folder, user=user, stop_signal=signal.SIGINT) as server:
        server.wait_until_listening(port)
        server.wait_until("answering", lambda: bool(run([*psql, "-c", "SELECT 1", "postgres"])))
        yield PostgreSQL(f"postgresql://penstock@127.0.0.1:{port}/postgres")
