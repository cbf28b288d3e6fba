"""Slurm: jobs really run on a node, and a drained node takes no more of them."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.servers.slurm import Slurm
from tests.real.waiting import until


@pytest.fixture
def node(slurm: Slurm) -> Iterator[str]:
    """A node that a test may drain; it serves again afterwards."""
    name = slurm.run("sinfo", "--noheader", "--Node", "--states=idle", "--format=%N").split()[0]
    yield name
    if "DRAIN" in slurm.run("scontrol", "--oneliner", "show", "node", name):
        slurm.run("scontrol", "update", f"NodeName={name}", "State=RESUME")


def submit(slurm: Slurm, folder: Path, *options: str, script: str) -> str:
    """Submit a batch job and return its id."""
    file = folder / f"{uuid.uuid4().hex}.sh"
    file.write_text(f"#!/bin/sh\n{script}\n")
    return slurm.run(
        "sbatch", "--parsable", "--output=/dev/null", f"--chdir={folder}", *options, str(file)
    ).strip()


async def told(slurm: Slurm, job: str, key: str, wanted: str) -> dict[str, str]:
    """Return what the controller says of a job, once `key` holds `wanted`."""
    text = await asyncio.to_thread(slurm.run, "scontrol", "--oneliner", "show", "job", job)
    fields = dict(part.split("=", 1) for part in text.split() if "=" in part)
    return fields if wanted in fields[key] else {}


async def state(slurm: Slurm, job: str, wanted: str) -> dict[str, str]:
    """Wait until a job is in a state; return what the controller says of it."""
    return await until(lambda: told(slurm, job, "JobState", wanted))


def ended(number: str) -> bool:
    """Tell whether no process of this machine sleeps for that many seconds."""
    command = b"sleep\0" + number.encode() + b"\0"
    return not any(path.read_bytes() == command for path in Path("/proc").glob("[0-9]*/cmdline"))


async def test_a_job_runs_on_its_node_and_after_draining_the_next_one_waits(
    slurm: Slurm, node: str, tmp_path: Path
) -> None:
    wrote = tmp_path / "wrote"
    first = submit(slurm, tmp_path, f"--nodelist={node}", script=f'echo "$SLURMD_NODENAME" > {wrote}')
    assert (await state(slurm, first, "COMPLETED"))["NodeList"] == node
    assert wrote.read_text().strip() == node

    slurm.run("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=maintenance")
    assert "DRAIN" in slurm.run("scontrol", "--oneliner", "show", "node", node)
    second = submit(slurm, tmp_path, f"--nodelist={node}", script="true")
    waiting = await until(lambda: told(slurm, second, "Reason", f"UnavailableNodes:{node}"))
    assert waiting["JobState"] == "PENDING"
    slurm.run("scontrol", "update", f"NodeName={node}", "State=RESUME")
    await state(slurm, second, "COMPLETED")


async def test_a_job_that_is_cancelled_is_stopped_on_its_node(slurm: Slurm, tmp_path: Path) -> None:
    number = f"6{os.getpid()}"
    job = submit(slurm, tmp_path, script=f"exec sleep {number}")
    await until(lambda: asyncio.to_thread(lambda: not ended(number)))
    slurm.run("scancel", job)
    await state(slurm, job, "CANCELLED")
    await until(lambda: asyncio.to_thread(ended, number))
