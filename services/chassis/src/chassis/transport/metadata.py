"""Which metadata may travel past one hop: the rules the data path and REST share.

Dropped on the way upstream: HTTP/2 pseudo headers and connection headers, what gRPC itself sets (`grpc-*`,
`te`, `content-type`, `user-agent`), and, as they describe the caller's connection, `host` and `forwarded`
headers. `authorization` is dropped as well: a credential for this service is not one for the next; whoever
needs to forward an identity does so on purpose.
"""

from chassis.transport.port import Metadata

ONE_HOP = frozenset(
    {
        "authorization",
        "connection",
        "content-length",
        "forwarded",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""What belongs to one connection, or to the caller's relation with this service, over gRPC and HTTP alike."""

_DROPPED = ONE_HOP | {"accept-encoding", "content-type", "user-agent"}


def is_forwardable(key: str) -> bool:
    """Whether metadata of this (lower-case) key may be sent to the next hop."""
    return key not in _DROPPED and not key.startswith(("grpc-", ":"))


def forwardable(metadata: Metadata) -> Metadata:
    """The part of the metadata that may be sent to the next hop, in order."""
    return tuple([item for item in metadata if is_forwardable(item[0])])
