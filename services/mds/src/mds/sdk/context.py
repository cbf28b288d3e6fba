"""What a model's own code is given by the server, and what it may raise."""

from dataclasses import dataclass
from pathlib import Path

from mds.domain.signature import Signature


@dataclass(frozen=True, slots=True)
class LoadContext:
    """Given to the `@load` method.

    `model_dir` is the folder of the package's model files, `model_file` the main one (None if the package
    names none), `code_dir` the folder of its code. `device` is `cpu` or `cuda:0`…; `instance` counts from 0;
    `threads` is how many threads one run should use.
    """

    model_dir: Path
    model_file: Path | None
    code_dir: Path
    device: str
    instance: int
    threads: int
    signature: Signature


class BadInput(ValueError):
    """Raise it in a step when the caller's data cannot be used: the caller gets INVALID_ARGUMENT with your
    text.

    Any other exception is INTERNAL with a general text for the caller, and its details in the server's log.
    """
