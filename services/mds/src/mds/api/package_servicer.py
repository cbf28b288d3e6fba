"""`penstock.mds.v1.PackageService`."""

from collections.abc import AsyncIterator
from typing import Any

from chassis import errors
from chassis.auth import current_identity
from google.api import httpbody_pb2
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2
from penstock.mds.v1 import package_pb2 as pb
from penstock.mds.v1 import package_service_pb2 as service_pb
from penstock.mds.v1 import package_service_pb2_grpc as pb_grpc

from mds.api.convert import package_to_proto, timestamp
from mds.api.model_servicer import unavailable
from mds.app.packages import ModelSummary, Packages, UploadRequest
from mds.domain.names import PackageName, parse_model_parent, parse_project_parent

CONTENT_TYPE = "application/vnd.penstock.package.v1+tar"


class PackageServicer(pb_grpc.PackageServiceServicer):
    """Converts, calls the use cases, converts back."""

    def __init__(self, packages: Packages) -> None:
        self._packages = packages

    async def UploadPackage(
        self, request_iterator: AsyncIterator[service_pb.UploadPackageRequest], context: Any
    ) -> pb.Package:
        """An upload in parts."""
        first = await anext(aiter(request_iterator), None)
        if first is None or first.WhichOneof("part") != "start":
            raise errors.InvalidArgument(
                "the first message of an upload must have `start`, with the name of the package",
                reason="UPLOAD_WITHOUT_START",
                violations=[errors.FieldViolation("start", "must come first")],
            )
        start = first.start
        request = UploadRequest(
            PackageName.parse(start.name),
            start.archive_digest,
            start.size_bytes,
            dict(start.labels),
            _caller(),
        )
        return package_to_proto(await self._packages.upload(request, _chunks(request_iterator)))

    async def PutPackage(self, request: service_pb.PutPackageRequest, context: Any) -> pb.Package:
        """An upload in one message."""
        upload = UploadRequest(
            PackageName.parse(request.name),
            request.archive_digest,
            len(request.content.data),
            creator=_caller(),
        )
        return package_to_proto(await self._packages.upload(upload, _once(request.content.data)))

    async def GetPackage(self, request: service_pb.GetPackageRequest, context: Any) -> pb.Package:
        """One package."""
        return package_to_proto(await self._packages.get(PackageName.parse(request.name)))

    async def ListPackages(
        self, request: service_pb.ListPackagesRequest, context: Any
    ) -> service_pb.ListPackagesResponse:
        """A page of packages."""
        if request.filter:
            raise errors.Unimplemented(
                "filters are not available in this version of Penstock: leave `filter` empty",
                reason="FILTER_UNAVAILABLE",
            )
        project, model = parse_model_parent(request.parent)
        page, token = await self._packages.list(
            project, model, page_size=request.page_size, page_token=request.page_token
        )
        return service_pb.ListPackagesResponse(
            packages=[package_to_proto(package) for package in page], next_page_token=token
        )

    async def DownloadPackage(
        self, request: service_pb.DownloadPackageRequest, context: Any
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        """The archive in parts."""
        name = PackageName.parse(request.name)
        chunks = await self._packages.download(name, offset=request.offset, digest=request.digest)
        async for chunk in chunks:
            yield httpbody_pb2.HttpBody(content_type=CONTENT_TYPE, data=chunk)

    async def DeletePackage(self, request: service_pb.DeletePackageRequest, context: Any) -> empty_pb2.Empty:
        """Deletes a package."""
        await self._packages.delete(
            PackageName.parse(request.name), etag=request.etag, allow_missing=request.allow_missing
        )
        return empty_pb2.Empty()

    async def ListModels(
        self, request: service_pb.ListModelsRequest, context: Any
    ) -> service_pb.ListModelsResponse:
        """A page of models."""
        page, token = await self._packages.models(
            parse_project_parent(request.parent), page_size=request.page_size, page_token=request.page_token
        )
        return service_pb.ListModelsResponse(models=[_model(one) for one in page], next_page_token=token)

    async def UpdatePackage(self, request: service_pb.UpdatePackageRequest, context: Any) -> pb.Package:
        """Not yet."""
        raise unavailable("UpdatePackage")

    async def CopyPackage(self, request: service_pb.CopyPackageRequest, context: Any) -> pb.Package:
        """Not yet."""
        raise unavailable("CopyPackage")

    async def ImportPackage(
        self, request: service_pb.ImportPackageRequest, context: Any
    ) -> operations_pb2.Operation:
        """Not yet."""
        raise unavailable("ImportPackage")

    async def ExportPackage(
        self, request: service_pb.ExportPackageRequest, context: Any
    ) -> operations_pb2.Operation:
        """Not yet."""
        raise unavailable("ExportPackage")

    async def VerifyPackage(
        self, request: service_pb.VerifyPackageRequest, context: Any
    ) -> operations_pb2.Operation:
        """Not yet."""
        raise unavailable("VerifyPackage")


async def _chunks(messages: AsyncIterator[service_pb.UploadPackageRequest]) -> AsyncIterator[bytes]:
    async for message in messages:
        if message.WhichOneof("part") != "chunk":
            raise errors.InvalidArgument(
                "only the first message of an upload may have `start`", reason="UPLOAD_RESTARTED"
            )
        yield message.chunk


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _caller() -> str:
    identity = current_identity()
    return identity.name if identity is not None else ""


def _model(summary: ModelSummary) -> pb.Model:
    return pb.Model(
        name=f"projects/{summary.project}/models/{summary.model}",
        package_count=summary.package_count,
        latest_package=str(summary.latest.name),
        create_time=timestamp(summary.first_time),
        update_time=timestamp(summary.latest.create_time),
    )
