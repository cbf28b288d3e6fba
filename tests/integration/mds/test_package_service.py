"""The package service over gRPC and REST, on a real folder."""

# ruff: noqa: ASYNC240 - reading small files of the test itself may block

import asyncio
import contextlib
import hashlib
import signal
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from chassis.testing import RunningService, running, service_process
from google.rpc import error_details_pb2, status_pb2
from mds.bootstrap import build_package_service
from mds.domain.declaration import Declaration
from mds.packaging import build_package
from mds.settings import PackageServiceSettings
from penstock.mds.v1 import package_service_pb2 as pb
from penstock.mds.v1 import package_service_pb2_grpc

NAME = "projects/demo/models/linear/packages/1"
Service = RunningService


@contextlib.asynccontextmanager
async def package_service(folder: Path, **settings: Any) -> AsyncIterator[RunningService]:
    values = PackageServiceSettings.model_validate({"store": {"url": str(folder)}, **settings})
    async with running(values, build_package_service, name="mds-packages") as service:
        yield service


def stub(service: RunningService) -> Any:
    return package_service_pb2_grpc.PackageServiceStub(service.channel)


def parts(
    data: bytes, name: str = NAME, size: int = 30_000, **start: Any
) -> Iterable[pb.UploadPackageRequest]:
    yield pb.UploadPackageRequest(start=pb.UploadStart(name=name, **start))
    for at in range(0, len(data), 1000):
        yield pb.UploadPackageRequest(chunk=data[at : at + 1000])


async def download(service: RunningService, name: str = NAME, **request: Any) -> bytes:
    call = stub(service).DownloadPackage(pb.DownloadPackageRequest(name=name, **request))
    return b"".join([message.data async for message in call])


def failure(error: grpc.aio.AioRpcError) -> tuple[str, str]:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            info = error_details_pb2.ErrorInfo()
            status_pb2.Status.FromString(value).details[0].Unpack(info)
            return error.code().name, info.reason
    return error.code().name, ""


def stored_files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.fixture(scope="module")
def other_package(linear_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model and version with another content."""
    said = Declaration(model="linear", version="1", labels={"trained": "again"})
    return build_package(linear_package.parent / "source", tmp_path_factory.mktemp("other"), said)[1]


async def test_a_package_goes_in_and_comes_out_the_same(linear_package: Path, tmp_path: Path) -> None:
    data = linear_package.read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    async with package_service(tmp_path) as service:
        api = stub(service)
        package = await api.UploadPackage(
            parts(data, archive_digest=digest, size_bytes=len(data), labels={"team": "a"})
        )
        assert package.name == NAME
        assert (package.size_bytes, package.archive_digest) == (len(data), digest)
        assert package.manifest.signature.inputs[0].name == "x"
        assert dict(package.labels) == {"team": "a"}
        assert await api.GetPackage(pb.GetPackageRequest(name=NAME)) == package
        assert await download(service) == data
        assert await download(service, offset=100, digest=package.digest) == data[100:]
        listed = await api.ListPackages(pb.ListPackagesRequest(parent="projects/demo/models/linear"))
        assert list(listed.packages) == [package]
        models = await api.ListModels(pb.ListModelsRequest(parent="projects/-"))
        assert [m.name for m in models.models] == ["projects/demo/models/linear"]


async def test_it_is_still_there_after_a_restart(linear_package: Path, tmp_path: Path) -> None:
    async with package_service(tmp_path) as service:
        stored = await stub(service).UploadPackage(parts(linear_package.read_bytes()))
    async with package_service(tmp_path) as service:
        assert await stub(service).GetPackage(pb.GetPackageRequest(name=NAME)) == stored
        assert await download(service) == linear_package.read_bytes()


async def test_the_same_content_again_is_answered_with_what_is_stored(
    linear_package: Path, tmp_path: Path
) -> None:
    async with package_service(tmp_path) as service:
        first = await stub(service).UploadPackage(parts(linear_package.read_bytes()))
        before = stored_files(tmp_path)
        assert await stub(service).UploadPackage(parts(linear_package.read_bytes())) == first
        assert stored_files(tmp_path) == before


async def test_another_content_under_the_same_version_is_refused(
    linear_package: Path, other_package: Path, tmp_path: Path
) -> None:
    async with package_service(tmp_path) as service:
        first = await stub(service).UploadPackage(parts(linear_package.read_bytes()))
        with pytest.raises(grpc.aio.AioRpcError, match="Packages never change") as caught:
            await stub(service).UploadPackage(parts(other_package.read_bytes()))
        assert failure(caught.value) == ("ALREADY_EXISTS", "PACKAGE_EXISTS")
        assert await download(service) == linear_package.read_bytes()
        assert (await stub(service).GetPackage(pb.GetPackageRequest(name=NAME))).digest == first.digest


async def test_of_two_uploads_at_once_one_wins(
    linear_package: Path, other_package: Path, tmp_path: Path
) -> None:
    async with package_service(tmp_path) as service:
        calls = [stub(service).UploadPackage(parts(p.read_bytes())) for p in (linear_package, other_package)]
        calls += [stub(service).UploadPackage(parts(p.read_bytes())) for p in (linear_package, other_package)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        won = await stub(service).GetPackage(pb.GetPackageRequest(name=NAME))
    good = [r for r in results if not isinstance(r, BaseException)]
    bad = [r for r in results if isinstance(r, grpc.aio.AioRpcError)]
    assert {r.digest for r in good} == {won.digest}
    assert [failure(r)[0] for r in bad] == ["ALREADY_EXISTS", "ALREADY_EXISTS"]
    assert len(stored_files(tmp_path)) == 2


async def test_uploads_that_are_not_whole_leave_nothing(linear_package: Path, tmp_path: Path) -> None:
    data = linear_package.read_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    cases: dict[str, tuple[Any, tuple[str, str]]] = {
        "truncated": (parts(data[:2000]), ("DATA_LOSS", "PACKAGE_CORRUPT")),
        "flipped": (parts(bytes(flipped)), ("DATA_LOSS", "PACKAGE_CORRUPT")),
        "announced larger": (parts(data, size_bytes=len(data) + 1), ("DATA_LOSS", "UPLOAD_INCOMPLETE")),
        "other digest": (parts(data, archive_digest="sha256:" + "0" * 64), ("DATA_LOSS", "UPLOAD_CORRUPT")),
        "no package": (parts(b"hello " * 1000), ("INVALID_ARGUMENT", "PACKAGE_MALFORMED")),
        "nothing": (parts(b""), ("DATA_LOSS", "PACKAGE_CORRUPT")),
        "too large": (parts(data, size_bytes=2**40), ("RESOURCE_EXHAUSTED", "PACKAGE_TOO_LARGE")),
        "other version": (
            parts(data, NAME.replace("/1", "/2")), ("INVALID_ARGUMENT", "PACKAGE_NAME_MISMATCH")
        ),
        "no start": ([pb.UploadPackageRequest(chunk=b"x")], ("INVALID_ARGUMENT", "UPLOAD_WITHOUT_START")),
        "two starts": ([*parts(data)] * 2, ("INVALID_ARGUMENT", "UPLOAD_RESTARTED")),
    }  # fmt: skip
    async with package_service(tmp_path) as service:
        for name, (messages, expected) in cases.items():
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub(service).UploadPackage(iter(messages))
            assert failure(caught.value) == expected, name
            assert stored_files(tmp_path) == [], name


async def test_a_full_disk_is_told_and_leaves_nothing(linear_package: Path, tmp_path: Path) -> None:
    """The kernel refuses to let files grow, as a full disk does, which no test can count on making."""
    environ = {"MDS_STORE__URL": str(tmp_path / "store")}
    limited = ["bash", "-c", 'ulimit -f 2; trap "" XFSZ; exec "$0" -m mds run', sys.executable]
    async with (
        service_process("mds", environ=environ, command=limited) as process,
        grpc.aio.insecure_channel(process.grpc_address) as channel,
    ):
        api = package_service_pb2_grpc.PackageServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await api.UploadPackage(parts(linear_package.read_bytes()))
        assert failure(caught.value) == ("RESOURCE_EXHAUSTED", "STORE_FULL")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await api.GetPackage(pb.GetPackageRequest(name=NAME))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert stored_files(tmp_path / "store") == []


async def test_a_crash_in_the_middle_of_an_upload_leaves_nothing_visible(
    linear_package: Path, tmp_path: Path
) -> None:
    environ = {"MDS_STORE__URL": str(tmp_path / "store")}
    async with (
        service_process("mds", environ=environ) as process,
        grpc.aio.insecure_channel(process.grpc_address) as channel,
    ):
        call = package_service_pb2_grpc.PackageServiceStub(channel).UploadPackage()
        await call.write(pb.UploadPackageRequest(start=pb.UploadStart(name=NAME)))
        await call.write(pb.UploadPackageRequest(chunk=linear_package.read_bytes()[:1000]))
        process.signal(signal.SIGKILL)
        await process.wait()
        with pytest.raises(grpc.aio.AioRpcError):
            await call
    assert stored_files(tmp_path / "store") == []
    async with package_service(tmp_path / "store") as service:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(service).GetPackage(pb.GetPackageRequest(name=NAME))
        assert failure(caught.value) == ("NOT_FOUND", "PACKAGE_UNKNOWN")
        await stub(service).UploadPackage(parts(linear_package.read_bytes()))


async def test_content_that_was_damaged_in_the_store_is_told(linear_package: Path, tmp_path: Path) -> None:
    async with package_service(tmp_path) as service:
        await stub(service).UploadPackage(parts(linear_package.read_bytes()))
        (content,) = (tmp_path / "content").iterdir()
        content.write_bytes(content.read_bytes()[:-512])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await download(service)
        assert failure(caught.value) == ("DATA_LOSS", "PACKAGE_CONTENT_LOST")


async def test_deleting(linear_package: Path, tmp_path: Path) -> None:
    async with package_service(tmp_path) as service:
        api = stub(service)
        package = await api.UploadPackage(parts(linear_package.read_bytes()))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await api.DeletePackage(pb.DeletePackageRequest(name=NAME, etag="other"))
        assert failure(caught.value) == ("ABORTED", "ETAG_MISMATCH")
        await api.DeletePackage(pb.DeletePackageRequest(name=NAME, etag=package.etag))
        assert stored_files(tmp_path) == []
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await api.DeletePackage(pb.DeletePackageRequest(name=NAME))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        await api.DeletePackage(pb.DeletePackageRequest(name=NAME, allow_missing=True))


async def test_pages_newest_first(linear_package: Path, tmp_path: Path) -> None:
    source, models = linear_package.parent / "source", ["a", "b", "c"]
    async with package_service(tmp_path / "store") as service:
        api = stub(service)
        for model in models:
            _, path = build_package(source, tmp_path, Declaration(model=model, version="1"))
            await api.UploadPackage(parts(path.read_bytes(), f"projects/p/models/{model}/packages/1"))
        seen, token = [], ""
        for _ in range(3):
            page = await api.ListPackages(
                pb.ListPackagesRequest(parent="projects/p/models/-", page_size=1, page_token=token)
            )
            seen += [p.name.split("/")[3] for p in page.packages]
            token = page.next_page_token
        assert seen == ["c", "b", "a"]
        assert token == ""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await api.ListPackages(pb.ListPackagesRequest(parent="projects/p/models/-", page_token="x"))
        assert failure(caught.value)[1] == "PAGE_TOKEN_INVALID"


async def test_what_is_wrong_or_not_there_says_so(tmp_path: Path) -> None:
    async with package_service(tmp_path) as service:
        api = stub(service)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await api.GetPackage(pb.GetPackageRequest(name="projects/A/models/b/packages/1"))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError, match="not available") as caught:
            await api.ImportPackage(pb.ImportPackageRequest(name=NAME, uri="https://example.com/p"))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_the_rest_face_puts_gets_downloads_and_deletes(linear_package: Path, tmp_path: Path) -> None:
    data = linear_package.read_bytes()
    async with (
        package_service(tmp_path) as service,
        httpx.AsyncClient(base_url=service.rest_url, trust_env=False) as client,
    ):
        put = await client.put(
            f"/v1/{NAME}:content", content=data, headers={"content-type": "application/octet-stream"}
        )
        assert put.status_code == 200, put.text
        digest = put.json()["digest"]
        assert (await client.get(f"/v1/{NAME}")).json()["digest"] == digest
        listed = await client.get("/v1/projects/demo/models/linear/packages")
        assert listed.json()["packages"][0]["name"] == NAME
        got = await client.get(f"/v1/{NAME}:download")
        assert got.content == data
        assert (await client.delete(f"/v1/{NAME}")).status_code == 200
        assert (await client.get(f"/v1/{NAME}")).status_code == 404
