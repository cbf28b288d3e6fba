"""Domain values of packages to and from the messages of `penstock.mds.v1`."""

from datetime import datetime
from typing import Any

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp
from penstock.mds.v1 import package_pb2 as pb

from mds.domain import manifest_json
from mds.domain.execution import Batching
from mds.domain.manifest import Manifest
from mds.domain.packages import StoredPackage


def manifest_to_proto(manifest: Manifest) -> pb.PackageManifest:
    """The message whose JSON form the manifest's is."""
    message: pb.PackageManifest = json_format.ParseDict(manifest_json.to_json(manifest), pb.PackageManifest())
    return message


def package_to_proto(package: StoredPackage) -> pb.Package:
    """A stored package as its resource."""
    created = timestamp(package.create_time)
    return pb.Package(
        name=str(package.name),
        uid=package.uid,
        manifest=manifest_to_proto(package.manifest),
        digest=package.digest,
        size_bytes=package.size,
        archive_digest=package.archive_digest,
        state=pb.Package.STATE_READY,
        labels=dict(package.labels),
        etag=package.etag,
        create_time=created,
        update_time=created,
        creator=package.creator,
    )


def timestamp(time: datetime) -> Timestamp:
    """A UTC time as a message."""
    message = Timestamp()
    message.FromDatetime(time)
    return message


def batching_to_proto(batching: Batching) -> pb.Batching:
    """Batching settings as a message."""
    message = pb.Batching(max_items=batching.max_items, max_queue=batching.max_queue)
    if batching.max_delay:
        message.max_delay.FromNanoseconds(round(batching.max_delay * 1e9))
    return message


def batching_from_proto(message: Any) -> Batching:
    """Batching settings of a message. Raises ValueError."""
    return Batching(message.max_items, message.max_delay.ToNanoseconds() * 1e-9, message.max_queue)
