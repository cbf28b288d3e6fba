"""AIGW's hop against a bare grpc.aio byte proxy, both in front of the same fixed-answer backend."""

import sys
from pathlib import Path

import grpc
from google.protobuf import duration_pb2
from inference import grpc_service_pb2 as pb
from penstock.aigw.v1 import endpoint_service_pb2 as endpoints
from penstock.aigw.v1 import endpoint_service_pb2_grpc as endpoints_grpc
from penstock.aigw.v1 import route_pb2, route_service_pb2
from penstock.aigw.v1 import route_service_pb2_grpc as routes_grpc

from bench import load, model, report
from bench.ports import free_port
from bench.process import Server

METHOD = "/inference.GRPCInferenceService/ModelInfer"
MODEL = "bench/small"
BASELINES = Path(__file__).with_name("baselines")


def answers(address: str) -> bool:
    """Whether a call through `address` brings back the backend's answer."""
    with grpc.insecure_channel(address) as channel:
        infer = channel.unary_unary(METHOD, response_deserializer=pb.ModelInferResponse.FromString)
        return len(infer(model.request(MODEL).SerializeToString(), timeout=2).raw_output_contents[0]) == 40


def routed(address: str, backend: str) -> bool:
    """Registers the backend and its route at the gateway, then says whether a call is answered."""
    with grpc.insecure_channel(address) as channel:
        endpoints_grpc.EndpointServiceStub(channel).RegisterEndpoint(
            endpoints.RegisterEndpointRequest(
                parent="projects/bench/models/small",
                endpoint_id="backend",
                endpoint=endpoints.Endpoint(version="1", grpc_address=backend),
                ttl=duration_pb2.Duration(seconds=3600),
            ),
            timeout=2,
        )
        try:
            routes_grpc.RouteServiceStub(channel).CreateRoute(
                route_service_pb2.CreateRouteRequest(
                    parent="projects/bench",
                    route_id="small",
                    route=route_pb2.Route(targets=[route_pb2.Target(version="1", weight=1)]),
                ),
                timeout=2,
            )
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                raise
    return answers(address)


def gateway(folder: Path, port: int, backend: str, *, name: str, environment: dict[str, str]) -> Server:
    """A gateway on embedded defaults: metrics and access log on; tracing as `environment` says."""
    address = f"127.0.0.1:{port}"
    state = folder / name
    state.mkdir(exist_ok=True)
    return Server(
        name=name.replace(" ", "-"),
        command=[sys.executable, "-m", "aigw", "run"],
        environment={
            "AIGW_GRPC__PORT": str(port),
            "AIGW_REST__PORT": str(free_port()),
            "AIGW_STORE__PATH": str(state / "aigw.db"),
            "AIGW_ACCESS_LOG__PATH": str(state / "access.log"),
            **environment,
        },
        ready=lambda: routed(address, backend),
    )


async def run(folder: Path, *, concurrency: int, rounds: int, seconds: float) -> list[report.Row]:
    """CPU of the hop alone: neither the backend's nor the load generator's is counted."""
    message = model.request(MODEL).SerializeToString()
    backend_port, proxy_port, gateway_port = free_port(), free_port(), free_port()
    backend = f"127.0.0.1:{backend_port}"
    python = sys.executable
    answering = Server(
        "backend",
        [python, str(BASELINES / "fixed_answer.py"), str(backend_port)],
        ready=lambda: answers(backend),
    )
    bare = Server(
        "byte-proxy",
        [python, str(BASELINES / "byte_proxy.py"), str(proxy_port), backend],
        ready=lambda: answers(f"127.0.0.1:{proxy_port}"),
    )
    hop = gateway(folder, gateway_port, backend, name="aigw", environment={})

    def target(name: str, server: Server, port: int) -> report.Target:
        def send(requests: int) -> load.Load:
            return load.run(f"127.0.0.1:{port}", METHOD, message, concurrency=concurrency, requests=requests)

        return report.Target(name, server, send)

    with answering, bare, hop:
        targets = [target("bare byte proxy", bare, proxy_port), target("AIGW", hop, gateway_port)]
        return report.measure(targets, concurrency=concurrency, rounds=rounds, seconds=seconds)
