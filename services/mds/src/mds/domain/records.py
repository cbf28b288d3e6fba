"""The stored form of a package's record, as JSON bytes."""

import json
from datetime import UTC, datetime

from mds.domain import manifest_json
from mds.domain.names import PackageName
from mds.domain.packages import StoredPackage


def write_record(package: StoredPackage) -> bytes:
    """A record. The manifest is kept in its canonical form, so that its digest can be checked when it is
    read.
    """
    tree = {
        "name": str(package.name),
        "uid": package.uid,
        "manifest": manifest_json.canonical(package.manifest).decode(),
        "digest": package.digest,
        "size": package.size,
        "archive_digest": package.archive_digest,
        "create_time": package.create_time.astimezone(UTC).isoformat(),
        "creator": package.creator,
        "labels": dict(package.labels),
    }
    return json.dumps(tree, sort_keys=True).encode()


def read_record(data: bytes) -> StoredPackage:
    """Reads a record. Raises ValueError if it is damaged."""
    try:
        tree = json.loads(data)
        manifest = manifest_json.parse(tree["manifest"].encode())
        package = StoredPackage(
            name=PackageName(*tree["name"].split("/")[1::2]),
            uid=tree["uid"],
            manifest=manifest,
            digest=tree["digest"],
            size=tree["size"],
            archive_digest=tree["archive_digest"],
            create_time=datetime.fromisoformat(tree["create_time"]),
            creator=tree["creator"],
            labels=tree["labels"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the record is incomplete: {error!r}") from error
    if manifest_json.digest(manifest) != package.digest:
        raise ValueError("the record's manifest does not match its digest")
    return package
