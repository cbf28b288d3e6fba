"""Who is calling: the result of authentication, the same for gRPC, the data path and REST. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Identity:
    """An authenticated caller.

    `name` is what may be logged and used in policies (token name, certificate's common name or URI, key
    name); `method` says how it was proven: `token`, `mtls`, or what a service's own verifier calls itself.
    `attributes` carries whatever else the verifier knows (project, scopes), never a secret.
    """

    name: str
    method: str
    attributes: Mapping[str, str] = field(default_factory=dict)
