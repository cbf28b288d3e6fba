"""What all commands share: the client, opened with the options given before the command's name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock_client.client import Client


@dataclass
class Choice:
    """Options given before the command's name."""

    profile: str | None = None


CHOICE = Choice()


@contextlib.contextmanager
def client(step: str) -> Iterator[Client]:
    """A client whose calls are children of one span named `penstock STEP`, if spans are wanted."""
    from penstock_client.client import Client
    from penstock_client.exporting import provider
    from penstock_client.tracing import Spans

    traces = provider(os.environ.get("PENSTOCK_TRACES", "off"))
    try:
        with (
            Spans(traces).step(f"penstock {step}"),
            Client(profile=CHOICE.profile, tracer_provider=traces) as made,
        ):
            yield made
    finally:
        if traces is not None:
            traces.shutdown()
