"""What MDS's use cases need from outside: runtimes that run models, and a store that keeps packages."""

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from mds.domain.execution import Execution
from mds.domain.packages import StoredPackage
from mds.domain.signature import Signature
from mds.domain.tensors import Array


class Session(Protocol):
    """A loaded model file. `run` may release the interpreter lock; it is called by one thread at a time
    unless the session is `concurrent`.
    """

    @property
    def concurrent(self) -> bool:
        """Whether several threads may run it at once, and it computes on the CPU without blocking."""
        ...

    @property
    def device(self) -> str:
        """Where it runs: `cpu` or `cuda:0`."""
        ...

    @property
    def providers(self) -> Sequence[str]:
        """The runtime's own names for what it really uses, best first."""
        ...

    @property
    def input_names(self) -> Sequence[str]:
        """Names of its inputs, in order."""
        ...

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """All outputs by name."""
        ...

    def close(self) -> None:
        """Frees what it holds."""
        ...


class Runtime(Protocol):
    """A framework that runs model files. Errors are `chassis.errors`; a missing library names the extra to
    install.
    """

    @property
    def name(self) -> str:
        """The `framework` of packages that it runs."""
        ...

    def version(self) -> str | None:
        """Version of the library; None if it is not installed."""
        ...

    def signature(self, model_file: Path) -> Signature:
        """Inputs and outputs of a model file."""
        ...

    def open(self, model_file: Path, execution: Execution, *, instance: int) -> Session:
        """Loads a model file. Raises FailedPrecondition if the accelerator it needs is not there."""
        ...


class PackageStore(Protocol):
    """Keeps packages. A package is there whole, or not at all, whatever crashes when."""

    async def create(self, package: StoredPackage, archive: BinaryIO) -> StoredPackage:
        """Stores a package. Raises AlreadyExists if the name is taken, ResourceExhausted if it is full."""
        ...

    async def get(self, name: str) -> StoredPackage:
        """Raises NotFound, and DataLoss if the record cannot be read."""
        ...

    async def list(self, project: str | None, model: str | None) -> Sequence[StoredPackage]:
        """All packages of a project and model, or of all, in no order."""
        ...

    def read(self, package: StoredPackage, offset: int) -> AsyncIterator[bytes]:
        """The archive from an offset on. Raises DataLoss if it is gone or shorter than it was."""
        ...

    async def delete(self, package: StoredPackage) -> None:
        """Removes the package; one that is gone is no error."""
        ...
