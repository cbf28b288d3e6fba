"""The `mds` command as a person or a supervisor runs it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from chassis.testing import service_process
from click.testing import Result
from inference import grpc_service_pb2 as pb
from inference import grpc_service_pb2_grpc
from mds.cli import app
from mds.packaging import read_manifest
from typer.testing import CliRunner


def mds(*arguments: str, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mds", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=60,
        check=False,
        env={**os.environ, "COLUMNS": "120", **environ},
    )


def run(*arguments: str) -> Result:
    """The command in this process: quicker where its process is not the point."""
    return CliRunner().invoke(app, [*arguments], env={"COLUMNS": "120"})


def test_build_and_inspect(linear_package: Path, tmp_path: Path) -> None:
    source = str(linear_package.parent / "source")
    built = run(
        "build", source, "--model", "linear", "--version", "3", "--label", "by=me", "-o", str(tmp_path)
    )
    assert built.exit_code == 0, built.stderr
    assert "linear-3.mdspkg" in built.stdout
    package = tmp_path / "linear-3.mdspkg"
    shown = run("inspect", str(package))
    assert "linear" in shown.stdout
    assert "[-1, 4]" in shown.stdout
    facts = json.loads(run("inspect", str(package), "-o", "json").stdout)
    assert facts["manifest"]["labels"] == {"by": "me"}
    assert facts["digest"] == read_manifest(package).digest
    as_json = run(
        "build",
        source,
        "--model",
        "linear",
        "--version",
        "3",
        "--label",
        "by=me",
        "-o",
        str(tmp_path),
        "--json",
    )
    assert json.loads(as_json.stdout)["digest"] == facts["digest"]


def test_build_from_a_class_in_the_working_folder(tmp_path: Path) -> None:
    (tmp_path / "twice.py").write_text(
        "from mds import TensorSpec, inference, serving\n\n"
        "@serving(model='twice', version='1', inputs=[TensorSpec('x', 'FP32', [-1])],\n"
        "         outputs=[TensorSpec('y', 'FP32', [-1])])\n"
        "class Twice:\n"
        "    @inference\n"
        "    def run(self, x):\n"
        "        return x * 2\n"
    )
    (tmp_path / "unrelated.py").write_text("raise SystemExit('not mine')\n")
    built = mds("build", "twice:Twice", cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    manifest = read_manifest(tmp_path / "twice-1.mdspkg").manifest
    assert [file.path for file in manifest.files] == ["code/twice.py"]


def test_a_wrong_declaration_names_file_line_and_field(linear_package: Path, tmp_path: Path) -> None:
    (tmp_path / "penstock.yaml").write_text("model: m\nversion: 1\nbatching:\n  max_item: 4\n")
    built = run("build", str(tmp_path))
    assert built.exit_code == 1
    assert "penstock.yaml:4: batching.max_item: unknown field; did you mean 'max_items'?" in built.stderr
    assert "Traceback" not in built.stderr


@pytest.mark.parametrize("case", ["corrupt", "missing", "other digest", "no package"])
def test_serve_says_why_it_cannot(
    case: str, linear_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, options, text = tmp_path / "p.mdspkg", [], ""
    data = bytearray(linear_package.read_bytes())
    if case == "corrupt":
        data[-1500] ^= 1
        text = "corrupt"
    elif case == "no package":
        data = bytearray(b"GIF89a" * 500)
        text = "not a Penstock package"
    elif case == "other digest":
        options, text = ["--digest", "sha256:" + "0" * 64], "expected was"
    if case == "missing":
        text = "there is no package"
    else:
        package.write_bytes(data)
    ports = ["--grpc-port", "0", "--rest-port", "0"]
    monkeypatch.setenv("MDS_CACHE", str(tmp_path / "cache"))
    served = run("serve", str(package), *ports, *options)
    assert served.exit_code == 2, served.stderr
    assert text in served.stderr
    assert "Traceback" not in served.stderr


async def test_what_is_under_way_is_finished_when_the_server_is_told_to_stop(
    moody_package: Path, tmp_path: Path
) -> None:
    request = pb.ModelInferRequest(model_name="demo/moody")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 1])
    request.raw_input_contents.append(np.full((1, 1), 99, np.float32).tobytes())
    environ = {"MDS_CACHE": str(tmp_path / "cache"), "MDS_PROJECT": "demo"}
    async with (
        service_process("mds", "serve", str(moody_package), environ=environ) as process,
        grpc.aio.insecure_channel(process.grpc_address) as channel,
    ):
        stub = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)
        # The first runs for 0.3 s, the others after it: they still wait when the faces close.
        calls = [asyncio.ensure_future(stub.ModelInfer(request)) for _ in range(4)]
        await stub.ServerLive(pb.ServerLiveRequest())  # on the same connection: the calls have arrived
        process.signal(signal.SIGTERM)
        answers = await asyncio.gather(*calls)
        assert await process.wait() == 0, process.log()
        assert "stopped" in process.log()
    assert [np.frombuffer(a.raw_output_contents[0], np.float32).item() for a in answers] == [198] * 4


async def test_a_server_registers_and_leaves(linear_package: Path, tmp_path: Path) -> None:
    """Against a gateway that only keeps the book: what matters is what the server says, and when."""
    from google.protobuf import empty_pb2
    from penstock.aigw.v1 import endpoint_service_pb2 as book
    from penstock.aigw.v1 import endpoint_service_pb2_grpc as book_grpc

    class Book(book_grpc.EndpointServiceServicer):
        def __init__(self) -> None:
            self.registered: asyncio.Queue[book.RegisterEndpointRequest] = asyncio.Queue()
            self.left: asyncio.Queue[str] = asyncio.Queue()

        async def RegisterEndpoint(
            self, request: book.RegisterEndpointRequest, context: object
        ) -> book.RegisterEndpointResponse:
            self.registered.put_nowait(request)
            answer = book.RegisterEndpointResponse(endpoint=request.endpoint)
            answer.lease.lease_id = "lease"
            answer.lease.ttl.FromSeconds(10)
            return answer

        async def DeregisterEndpoint(
            self, request: book.DeregisterEndpointRequest, context: object
        ) -> empty_pb2.Empty:
            self.left.put_nowait(request.lease_id)
            return empty_pb2.Empty()

    server = grpc.aio.server()
    kept = Book()
    book_grpc.add_EndpointServiceServicer_to_server(kept, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    environ = {
        "MDS_CACHE": str(tmp_path / "cache"),
        "MDS_PROJECT": "demo",
        "MDS_INSTANCE_ID": "one",
        "MDS_REGISTRY__ADDRESS": f"127.0.0.1:{port}",
        "MDS_REGISTRY__LABELS": '{"revision": "7"}',
    }
    try:
        async with service_process("mds", "serve", str(linear_package), environ=environ) as process:
            said = await asyncio.wait_for(kept.registered.get(), 10)
            assert said.parent == "projects/demo/models/linear"
            assert said.endpoint.grpc_address == process.grpc_address
            assert said.endpoint.digest == read_manifest(linear_package).digest
            assert dict(said.endpoint.labels) == {"revision": "7"}
            async with httpx.AsyncClient(trust_env=False) as client:
                unload = await client.post(f"{process.rest_url}/v2/repository/models/linear/unload")
                assert unload.status_code == 400
                assert "registered with a gateway" in unload.json()["error"]
            assert await process.stop() == 0
            assert kept.left.get_nowait() == "lease"
    finally:
        await server.stop(None)
