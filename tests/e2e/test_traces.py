"""One trace from the caller to the model, and one through a rollout, across processes."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from penstock_client import Client
from penstock_client.exporting import provider
from penstock_client.inference import Face
from penstock_client.local import traces
from penstock_client.local.traces import Trace

from deploy.digits import INPUT, OLD, Digits
from tests.e2e.conftest import Stack


@pytest.fixture
def folder(penstock: Stack) -> Path:
    return penstock.options.folder / "traces"


@pytest.fixture
def traced(penstock: Stack, folder: Path) -> Iterator[Client]:
    spans = provider(f"file:{folder}")
    assert spans is not None
    with Client(penstock.settings, tracer_provider=spans) as client:
        yield client
    spans.shutdown()


def wait_for(folder: Path, wanted: Callable[[Trace], object]) -> Trace:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for trace in reversed(traces.load(folder)):
            if wanted(trace):
                return trace
        time.sleep(0.05)
    raise AssertionError(f"no such trace among {[(t.trace_id, len(t.spans)) for t in traces.load(folder)]}")


def path(trace: Trace, name: str, service: str) -> list[str]:
    """The services above a span, each once, from the span up."""
    (span,) = trace.find(name, service)
    above = [span.service, *(ancestor.service for ancestor in trace.ancestors(span))]
    return [name for index, name in enumerate(above) if index == 0 or above[index - 1] != name]


@pytest.mark.parametrize("face", ["grpc", "rest"])
def test_a_prediction_is_one_trace_from_the_client_to_the_model(
    traced: Client,
    folder: Path,
    digits: Digits,
    project: str,
    declare: Callable[..., dict[str, object]],
    face: Face,
) -> None:
    model = f"{project}/classifier"
    traced.deployments.apply(declare(OLD))
    known = {trace.trace_id for trace in traces.load(folder)}
    traced.predict(model, {INPUT: digits.images[:1]}, face=face)

    trace = wait_for(
        folder, lambda t: t.trace_id not in known and t.find("postprocess", "mds") and not t.orphans
    )

    assert [span.service for span in trace.roots] == ["penstock-client"]
    for phase in ("queue", "preprocess", "inference", "postprocess"):
        assert path(trace, phase, "mds") == ["mds", "aigw", "penstock-client"]
    (root,) = trace.roots
    assert all(
        root.start <= span.start and span.end <= root.end for span in trace.spans if span.service != "mds"
    )


def test_a_rollout_is_one_trace_from_the_clients_call_through_its_phases(
    traced: Client, folder: Path, project: str, declare: Callable[..., dict[str, object]]
) -> None:
    traced.deployments.apply(declare(OLD))
    revision = traced.deployments.history(f"{project}/classifier")[0]

    trace = wait_for(
        folder,
        lambda t: (
            t.trace_id == revision.trace_id
            and t.find("rollout", "dplo")
            and t.find("Route", "aigw")
            and not t.orphans
        ),
    )

    for phase in ("resolve", "place", "wait", "shift"):
        assert path(trace, phase, "dplo") == ["dplo", "penstock-client"]
    (shift,) = trace.find("shift", "dplo")
    assert all(shift in tuple(trace.ancestors(span)) for span in trace.find("Route", "aigw"))
