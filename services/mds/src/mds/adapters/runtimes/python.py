"""The runtime of packages that run their model in their own code: it has nothing to open."""

import platform
from pathlib import Path

from chassis import errors

from mds.app.ports import Session
from mds.domain.execution import Execution
from mds.domain.signature import Signature


class PythonRuntime:
    """Runs nothing itself: the package's class has an @inference method."""

    name = "python"

    def version(self) -> str | None:
        """Version of Python."""
        return platform.python_version()

    def signature(self, model_file: Path) -> Signature:
        """Raises InvalidArgument: only the package's code knows."""
        raise errors.InvalidArgument(
            f"{model_file.name} does not tell its inputs and outputs: declare them, with "
            "@serving(inputs=[…], "
            "outputs=[…]) or `signature:` in penstock.yaml",
            reason="SIGNATURE_MISSING",
        )

    def open(self, model_file: Path, execution: Execution, *, instance: int) -> Session:
        """Raises InvalidArgument: there is no framework to open it with."""
        raise errors.InvalidArgument(
            f"nothing runs {model_file.name}: the framework is python, so the package's class needs "
            "an @inference "
            "method",
            reason="INFERENCE_MISSING",
        )
