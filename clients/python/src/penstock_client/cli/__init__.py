"""The `penstock` command. Entry point: `main`."""

from __future__ import annotations

import os
import sys

from penstock_client.cli.failures import INTERRUPTED, show
from penstock_client.errors import PenstockError


def main() -> None:
    """Runs the command and ends the process with one of the documented exit codes; never with a traceback."""
    from penstock_client.cli.app import app

    try:
        app()
    except PenstockError as error:
        sys.exit(show(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output left, as `| head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if os.environ.get("PENSTOCK_DEBUG"):
            raise
        sys.exit(show(error))
