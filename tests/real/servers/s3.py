"""S3: versitygw over a folder; each test gets a bucket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.real.servers.process import free_port, program, running


@dataclass(frozen=True)
class S3:
    """A server and the account that owns it, or an existing one that AWS_ENDPOINT_URL names."""

    endpoint: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"

    @property
    def environ(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
        }


@contextmanager
def s3(folder: Path) -> Iterator[S3]:
    """Start a server without buckets."""
    content = folder / "buckets"
    content.mkdir(parents=True)
    port = free_port()
    found = S3(f"http://127.0.0.1:{port}", "penstock", "penstock-secret")
    account = ["--access", found.access_key, "--secret", found.secret_key, "--region", found.region]
    command = [program("versitygw"), "--port", f"127.0.0.1:{port}", *account, "posix", str(content)]
    with running("s3", command, folder) as server:
        server.wait_until_listening(port)
        yield found
