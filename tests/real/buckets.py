"""Making and removing buckets, which obstore does not offer: signed by obstore, sent as plain HTTP."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import urlsplit

import aiohttp
import obstore
from obstore.store import S3Store

from tests.real.servers.s3 import S3


def store(server: S3, bucket: str) -> S3Store:
    """Return an obstore store on one bucket."""
    return S3Store(
        bucket,
        endpoint=server.endpoint,
        access_key_id=server.access_key,
        secret_access_key=server.secret_key,
        region=server.region,
        virtual_hosted_style_request=False,
        client_options={"allow_http": urlsplit(server.endpoint).scheme == "http"},
    )


async def make_bucket(server: S3, bucket: str) -> None:
    """Create an empty bucket."""
    await _send(server, bucket, "PUT", 200)


async def remove_bucket(server: S3, bucket: str) -> None:
    """Remove a bucket and what is in it."""
    content = store(server, bucket)
    async for batch in content.list():
        await content.delete_async([entry["path"] for entry in batch])
    await _send(server, bucket, "DELETE", 204)


async def _send(server: S3, bucket: str, method: str, expected: int) -> None:
    url = obstore.sign(store(server, bucket), method, "", timedelta(minutes=1))
    async with aiohttp.ClientSession() as session, session.request(method, url) as answer:
        if answer.status != expected:
            raise RuntimeError(f"{method} of bucket {bucket}: {answer.status} {await answer.text()}")
