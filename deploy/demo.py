"""`make demo`: the main job on real input, from training to a routed prediction, with every number checked.

Two versions of a classifier are trained on scikit-learn's handwritten digits, built into packages and
pushed; three services run as separate processes on free ports and embedded defaults in a temporary folder;
version 1 is deployed with two replicas, version 2 is brought in beside it and promoted. Exits with 1 if any
number is off.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path

from penstock.dplo.v1 import deployment_pb2
from penstock_client import Address, AsyncClient, Client, Prediction, Settings
from penstock_client.cli.output import moment, word
from penstock_client.exporting import provider
from penstock_client.inference import Face
from penstock_client.local import processes, stack, traces
from penstock_client.local.state import StackState
from rich.table import Table

from deploy import digits as example
from deploy.digits import INPUT, NEW, OLD, OUTPUT, Digits
from deploy.story import Story

PROJECT = "digits"
MODEL = f"{PROJECT}/{example.MODEL}"
SPLIT_REQUESTS = 1_000
CONCURRENCY = 16
STEPS = 10


def main() -> int:
    """The whole demo; the exit code."""
    story = Story(STEPS)
    with tempfile.TemporaryDirectory(prefix="penstock-demo-") as name:
        folder = Path(name)
        options = stack.StackOptions(folder / "stack", first_port=0, traces="file", sample_ratio=0.0)
        running: StackState | None = None
        try:
            trained = train(story, folder)
            packages = build(story, trained)
            story.step("starting the three services, each a process of its own, on free ports")
            running = stack.start(options, lambda service, what: story.say(f"{service}: {what}"))
            drive(story, running, trained, packages)
        except KeyboardInterrupt:
            story.check("not interrupted", expected="yes", found="no", ok=False)
        except Exception as error:  # noqa: BLE001 - told in the summary, after everything is shut down
            story.check("no error", expected="none", found=f"{type(error).__name__}: {error}", ok=False)
            story.show_logs(options.folder / "logs")
        finally:
            shut_down(story, options.folder, running)
    return story.summary()


def drive(story: Story, running: StackState, trained: Digits, packages: dict[str, Path]) -> None:
    """All that happens between start and stop."""
    found = running.services
    settings = replace(
        Settings(timeout=30),
        **{name: Address(found[name].grpc, found[name].rest) for name in ("aigw", "dplo", "mds")},
    )
    spans = provider(f"file:{running.folder / 'traces'}")
    try:
        with Client(settings) as client, Client(settings, tracer_provider=spans) as traced:
            push(story, client, packages)
            deploy_first(story, traced, settings, trained)
            bring_in_second(story, traced, settings, trained)
            promote(story, traced, settings, trained)
            trace_request(story, traced, trained, running.folder / "traces")
            trace_rollout(story, client, running.folder / "traces")
    finally:
        if spans is not None:
            spans.shutdown()


def train(story: Story, folder: Path) -> Digits:
    """Trains both versions in a process of their own, as a modeler would."""
    story.step("training two versions on scikit-learn's handwritten digits")
    trained = example.train(folder / "trained")
    for version in (OLD, NEW):
        right = f"{trained.accuracy(version):.4f} of {len(trained.labels)} held-out images"
        story.say(f"version {version} gets {right} right offline")
    return trained


def build(story: Story, trained: Digits) -> dict[str, Path]:
    """Builds both packages, the first one twice: the same inputs must give the same package."""
    story.step("building the packages with mds build")
    packages = {version: example.build(trained, version) for version in (OLD, NEW)}
    for path in packages.values():
        story.say(f"{path.name}, {path.stat().st_size / 1000:.0f} kB")
    again = example.build(trained, OLD, trained.folder / "again.mdspkg")
    same = again.read_bytes() == packages[OLD].read_bytes()
    story.check("building again gives the same bytes", expected="yes", found="yes" if same else "no")
    return packages


def push(story: Story, client: Client, packages: dict[str, Path]) -> None:
    """Hands the packages to the package service and gets one back."""
    story.step("pushing the packages")
    for path in packages.values():
        stored = client.packages.upload(path, project=PROJECT)
        story.say(f"{stored.name}  {stored.digest[:19]}…")
    back = client.packages.download(f"{MODEL}:{OLD}", packages[OLD].with_suffix(".back"))
    same = back.read_bytes() == packages[OLD].read_bytes()
    story.check("a package comes back as it went", expected="yes", found="yes" if same else "no")


def deploy_first(story: Story, client: Client, settings: Settings, trained: Digits) -> None:
    """Version 1 with two replicas, asked over both faces."""
    story.step(f"deploying version {OLD} with two replicas")
    client.deployments.apply(
        example.declaration(PROJECT, OLD, replicas=2), message="first version", on_change=story.event
    )
    endpoints = client.endpoints.list(MODEL)
    story.check("replicas registered at the gateway", expected=2, found=len(endpoints), key=True)
    for face in ("grpc", "rest"):
        score(story, settings, trained, face, "answered", OLD)


def bring_in_second(story: Story, client: Client, settings: Settings, trained: Digits) -> None:
    """Version 2 at ten percent, until somebody promotes it."""
    story.step(f"bringing in version {NEW} at 10 %")
    declared = example.declaration(PROJECT, NEW, replicas=2, steps=[{"percent": 10, "manualPromotion": True}])
    found = client.deployments.apply(declared, message="second version", on_change=story.event)
    state = found.rollout_progress.state
    story.check(
        "the rollout waits for promotion",
        expected="awaiting promotion",
        found=word(deployment_pb2.RolloutState, state, "ROLLOUT_STATE"),
    )
    versions = asyncio.run(split(settings, trained))
    story.say(
        f"{SPLIT_REQUESTS} requests without a version: "
        + ", ".join(f"{v}: {n}" for v, n in sorted(versions.items()))
    )
    share = versions[NEW] / SPLIT_REQUESTS
    story.check("requests answered", expected=SPLIT_REQUESTS, found=sum(versions.values()), key=True)
    story.check(
        f"share of version {NEW} at 10 %",
        expected="10.0% ± 1",
        found=f"{share:.1%}",
        ok=abs(share - 0.10) <= 0.01,
        key=True,
    )
    score(story, settings, trained, "grpc", "asked for by version", NEW, ask_for=NEW)


def promote(story: Story, client: Client, settings: Settings, trained: Digits) -> None:
    """All traffic to version 2, and the history of it all."""
    story.step(f"promoting version {NEW}")
    found = client.deployments.promote(MODEL, on_change=story.event)
    complete = word(deployment_pb2.RolloutState, found.rollout_progress.state, "ROLLOUT_STATE")
    story.check("the rollout is complete", expected="complete", found=complete)
    versions = asyncio.run(split(settings, trained, requests=200))
    share = versions[NEW] / versions.total()
    story.check(f"share of version {NEW} after promotion", expected="100.0%", found=f"{share:.1%}", key=True)
    score(story, settings, trained, "grpc", "after promotion", NEW)
    revisions = client.deployments.history(MODEL)
    story.check("revisions in the history", expected=2, found=len(revisions))
    grid = Table("revision", "versions", "rollout", "author", "when", "message", box=None, pad_edge=False)
    for revision in revisions:
        grid.add_row(
            revision.name.rpartition("/")[2],
            ", ".join(v.version for v in revision.declaration.versions),
            word(deployment_pb2.RolloutState, revision.state, "ROLLOUT_STATE"),
            revision.author,
            moment(revision.create_time),
            revision.message,
        )
    story.show(grid)


def trace_request(story: Story, client: Client, trained: Digits, folder: Path) -> None:
    """One request through client, gateway and model server, as one trace out of three processes' files."""
    story.step("one request as one trace")
    before = {trace.trace_id for trace in traces.load(folder)}
    client.predict(MODEL, {INPUT: trained.images[:1]})
    trace = story.wait_for(
        lambda: next(
            (t for t in traces.load(folder) if t.trace_id not in before and t.find("inference", "mds")), None
        ),
        "the spans of the request",
    )
    story.show(trace.tree())
    services = sorted({span.service for span in trace.spans})
    story.check(
        "one root, in the client", expected="penstock-client", found=", ".join(s.service for s in trace.roots)
    )
    story.check("spans without their parent, request", expected=0, found=len(trace.orphans), key=True)
    story.check("processes in the trace", expected="aigw, mds, penstock-client", found=", ".join(services))
    for phase in ("queue", "preprocess", "inference", "postprocess"):
        spans = trace.find(phase, "mds")
        above = [span.service for span in trace.ancestors(spans[0])] if spans else []
        ordered = "aigw" in above and "penstock-client" in above
        story.check(f"{phase} below gateway and client", expected="yes", found="yes" if ordered else "no")


def trace_rollout(story: Story, client: Client, folder: Path) -> None:
    """The rollout of version 2 as one trace, begun by the client's call."""
    story.step("the deployment as one trace")
    newest = client.deployments.history(MODEL)[0]
    trace = story.wait_for(
        lambda: (t := traces.find(folder, newest.trace_id)) and t.find("shift", "dplo") and t,
        "the spans of the rollout",
    )
    story.show(trace.tree())
    story.check("spans without their parent, rollout", expected=0, found=len(trace.orphans), key=True)
    for phase in ("resolve", "place", "wait", "shift"):
        spans = trace.find(phase, "dplo")
        above = [span.service for span in trace.ancestors(spans[0])] if spans else []
        found = "yes" if "penstock-client" in above else "no"
        story.check(f"{phase} below the client's call", expected="yes", found=found)


def shut_down(story: Story, folder: Path, running: StackState | None) -> None:
    """Stops everything and looks for what is left."""
    story.step("shutting everything down")
    stack.stop(folder, lambda service, what: story.say(f"{service}: {what}"))
    if running is not None:
        left = processes.marked(running.id)
        story.check("processes left", expected=0, found=len(left), key=True)


def score(
    story: Story,
    settings: Settings,
    trained: Digits,
    face: Face,
    how: str,
    version: str,
    ask_for: str | None = None,
) -> None:
    """Classifies every held-out image, each in a request of its own, and compares with the score offline."""
    begun = time.monotonic()
    answers = asyncio.run(ask(settings, trained, face, ask_for, len(trained.labels)))
    seconds = time.monotonic() - begun
    digits = [int(answer[OUTPUT][0]) for answer in answers]
    right = sum(digit == label for digit, label in zip(digits, trained.labels, strict=True)) / len(digits)
    other = sum(a != b for a, b in zip(digits, trained.predictions[version], strict=True))
    story.say(f"{len(answers)} images over {face} in {seconds:.1f} s")
    story.check(
        f"accuracy of version {version} over {face}, {how}",
        expected=f"{trained.accuracy(version):.4f}",
        found=f"{right:.4f}",
        key=True,
    )
    story.check(f"answers unlike those offline, {face}, {how}", expected=0, found=other)
    wrong = Counter(a.version for a in answers if a.version != version)
    story.check(f"answers of another version, {face}, {how}", expected=0, found=wrong.total())


async def split(settings: Settings, trained: Digits, requests: int = SPLIT_REQUESTS) -> Counter[str]:
    """How often each version answers when none is asked for."""
    return Counter(a.version for a in await ask(settings, trained, "grpc", None, requests))


async def ask(
    settings: Settings, trained: Digits, face: Face, version: str | None, requests: int
) -> list[Prediction]:
    """Predictions of so many images, one a request, some at a time; the images begin again after the last."""
    async with AsyncClient(settings) as client:
        limit = asyncio.Semaphore(CONCURRENCY)

        async def one(index: int) -> Prediction:
            image = index % len(trained.images)
            async with limit:
                return await client.predict(
                    MODEL, {INPUT: trained.images[image : image + 1]}, version=version, face=face
                )

        calls: list[Awaitable[Prediction]] = [one(index) for index in range(requests)]
        return list(await asyncio.gather(*calls))


if __name__ == "__main__":
    sys.exit(main())
