"""What a modeler says about a package before it is built."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mds.domain.execution import Batching, Execution
from mds.domain.signature import Signature


@dataclass(frozen=True, slots=True)
class Declaration:
    """What was said; None and empty mean not said.

    Paths and globs are relative to the source folder. `model_files` maps a path or glob to its name in the
    package, or to nothing, to keep its own.
    """

    model: str | None = None
    version: str | None = None
    description: str | None = None
    framework: str | None = None
    entry: str | None = None
    model_file: str | None = None
    code: tuple[str, ...] | None = None
    model_files: Mapping[str, str] | None = None
    requirements: tuple[str, ...] | None = None
    python: str | None = None
    base_image: str | None = None
    signature: Signature | None = None
    batching: Batching | None = None
    execution: Execution | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    allow_pickles: bool = False
