"""Domain values as JSON columns, by their own field names."""

from pydantic import ConfigDict, TypeAdapter

from dplo.domain.deployment import Deployment, Revision
from dplo.domain.traffic import Shares

# Packed in tuples because pydantic takes a configuration only for types that are not dataclasses themselves.
_CONFIG = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
_DEPLOYMENT = TypeAdapter(tuple[Deployment], config=_CONFIG)
_REVISION = TypeAdapter(tuple[Revision], config=_CONFIG)
_SHARES = TypeAdapter(tuple[Shares], config=_CONFIG)


def write_deployment(value: Deployment) -> bytes:
    """A deployment as JSON."""
    return _DEPLOYMENT.dump_json((value,))


def read_deployment(data: bytes) -> Deployment:
    """The deployment that was written."""
    return _DEPLOYMENT.validate_json(data)[0]


def write_revision(value: Revision) -> bytes:
    """A revision as JSON."""
    return _REVISION.dump_json((value,))


def read_revision(data: bytes) -> Revision:
    """The revision that was written."""
    return _REVISION.validate_json(data)[0]


def write_shares(value: Shares) -> bytes:
    """Shares as JSON."""
    return _SHARES.dump_json((value,))


def read_shares(data: bytes) -> Shares:
    """The shares that were written."""
    return _SHARES.validate_json(data)[0]
