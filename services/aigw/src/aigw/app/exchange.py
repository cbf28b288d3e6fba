"""One call on its way through the gateway: what it asks for, and what became of it."""

from chassis.errors import Code
from chassis.transport.port import Metadata

from aigw.domain.health import Replica
from aigw.domain.table import Face, ModelEntry


class Exchange:
    """Filled by a face, completed by the forwarder, read by the access log and the counts. One per call.

    `version` is the one asked for, empty if the weights decide. `probe` marks calls beside inference, which
    must not shift the split of inference. `deadline` is on the monotonic clock, as are `started` and all
    deadlines.
    """

    __slots__ = (
        "attempts",
        "code",
        "deadline",
        "entry",
        "face",
        "identity",
        "metadata",
        "method",
        "model",
        "probe",
        "reason",
        "replica",
        "request_bytes",
        "response_bytes",
        "started",
        "trace_id",
        "version",
    )

    def __init__(
        self,
        face: Face,
        method: str,
        model: str,
        version: str,
        *,
        metadata: Metadata,
        deadline: float | None,
        identity: str,
        request_bytes: int,
        started: float,
        probe: bool = False,
    ) -> None:
        self.face = face
        self.method = method
        self.model = model
        self.version = version
        self.metadata = metadata
        self.deadline = deadline
        self.identity = identity
        self.request_bytes = request_bytes
        self.started = started
        self.probe = probe
        self.entry: ModelEntry | None = None
        self.replica: Replica | None = None
        self.attempts = 0
        self.code = Code.OK
        self.reason = ""
        self.response_bytes = 0
        self.trace_id = ""
