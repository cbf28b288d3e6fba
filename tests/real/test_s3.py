"""S3: conditional writes, on which package publication relies so that no version is ever overwritten."""

from __future__ import annotations

import asyncio

import pytest
from obstore.exceptions import AlreadyExistsError, PreconditionError

from tests.real.buckets import store
from tests.real.servers.s3 import S3


async def test_of_many_that_create_an_object_one_wins_and_the_others_are_told(s3: S3, s3_bucket: str) -> None:
    bucket = store(s3, s3_bucket)
    outcomes = await asyncio.gather(
        *(bucket.put_async("digits/1.0.0/package.json", bytes([n]), mode="create") for n in range(8)),
        return_exceptions=True,
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert all(isinstance(refusal, AlreadyExistsError) for refusal in refused), outcomes
    (winner,) = [number for number, outcome in enumerate(outcomes) if not isinstance(outcome, BaseException)]
    found = await bucket.get_async("digits/1.0.0/package.json")
    assert bytes(await found.bytes_async()) == bytes([winner])


async def test_a_write_against_an_older_version_of_an_object_is_refused(s3: S3, s3_bucket: str) -> None:
    bucket = store(s3, s3_bucket)
    first = await bucket.put_async("index.json", b"1")
    await bucket.put_async("index.json", b"2", mode={"e_tag": first["e_tag"]})
    with pytest.raises(PreconditionError):
        await bucket.put_async("index.json", b"3", mode={"e_tag": first["e_tag"]})
    found = await bucket.get_async("index.json")
    assert bytes(await found.bytes_async()) == b"2"
