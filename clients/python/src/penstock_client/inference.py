"""Predictions through the gateway, over gRPC or REST."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from inference import grpc_service_pb2 as oip

from penstock_client import names, prediction, status
from penstock_client.errors import DeadlineExceeded, PenstockError, Unavailable
from penstock_client.prediction import InferRequest, ModelInfo, Parameter, Prediction
from penstock_client.retry import RetryPolicy, draw_jitter
from penstock_client.settings import Tls
from penstock_client.tracing import Spans
from penstock_client.transport import Remote, tls_context

if TYPE_CHECKING:
    import aiohttp

    from penstock_client.prediction import Inputs

_OIP = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"]
_HEADER_LENGTH = "Inference-Header-Content-Length"

Face = Literal["grpc", "rest"]


class AsyncInference:
    """Calls models. A prediction changes nothing, so it is repeated when a server could not be reached."""

    def __init__(
        self,
        gateway: Remote,
        rest_url: str,
        project: str | None,
        spans: Spans,
        retry: RetryPolicy,
        timeout: float,
        tls: Tls,
    ) -> None:
        self._gateway = gateway
        self._rest_url = rest_url.rstrip("/")
        self._project = project
        self._spans = spans
        self._retry = retry
        self._timeout = timeout
        self._tls = tls
        self._known: dict[tuple[str, str], ModelInfo] = {}
        self._session: aiohttp.ClientSession | None = None

    async def model(
        self, model: str, *, version: str | None = None, timeout: float | None = None
    ) -> ModelInfo:
        """Inputs, outputs and versions of a model, asked once and kept."""
        name = str(names.parse_model(model, project=self._project))
        key = (name, version or "")
        if key not in self._known:
            response = await self._gateway.unary(
                "ModelMetadata",
                oip.ModelMetadataRequest(name=name, version=version or ""),
                oip.ModelMetadataResponse,
                service=_OIP,
                timeout=timeout,
                safe=True,
            )
            self._known[key] = prediction.model_info(response)
        return self._known[key]

    async def predict(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: str | None = None,
        outputs: Sequence[str] = (),
        parameters: Mapping[str, Parameter] | None = None,
        request_id: str = "",
        timeout: float | None = None,
        face: Face = "grpc",
    ) -> Prediction:
        """Runs `model` (`project/model`) on `inputs`.

        `inputs` is a mapping of input names to arrays, or one array for a model with one input. numpy
        arrays are sent as they are; lists are given the element types that the model asks for. Without a
        `version` the route's weights choose one. `outputs` limits the answer to the outputs named.
        """
        name = str(names.parse_model(model, project=self._project))
        info = None
        if prediction.needs_model_info(inputs):
            info = await self.model(name, version=version, timeout=timeout)
        request = InferRequest(
            name,
            version or "",
            prediction.bind(inputs, info),
            tuple(outputs),
            request_id,
            dict(parameters or {}),
        )
        if face == "rest":
            return await self._over_rest(request, self._timeout if timeout is None else timeout)
        response = await self._gateway.unary(
            "ModelInfer", request.to_proto(), oip.ModelInferResponse, service=_OIP, timeout=timeout, safe=True
        )
        return prediction.from_proto(response)

    async def close(self) -> None:
        """Ends the REST connections; the gRPC channel belongs to the client."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _over_rest(self, request: InferRequest, timeout: float) -> Prediction:
        version = f"/versions/{request.version}" if request.version else ""
        url = f"{self._rest_url}/v2/models/{request.model}{version}/infer"
        body, header_length = request.to_http()
        origin = f"AIGW at {self._rest_url}"
        deadline = time.monotonic() + timeout
        attempt = 0
        address = self._rest_url.rpartition("//")[2]
        with self._spans.call(_OIP.full_name, "ModelInfer", address, system="http") as span:
            while True:
                attempt += 1
                remaining = max(deadline - time.monotonic(), 0.001)
                headers = {
                    **self._gateway.headers(),
                    **span.headers(),
                    _HEADER_LENGTH: str(header_length),
                    "Content-Type": "application/octet-stream",
                    "Grpc-Timeout": f"{max(1, int(remaining * 1000))}m",
                }
                try:
                    return await self._post(url, body, headers, remaining, origin)
                except PenstockError as error:
                    pause = self._retry.delay(error, attempt, jitter=draw_jitter())
                    if pause is None or time.monotonic() + pause >= deadline:
                        span.fail(error)
                        raise
                    span.retried(attempt, error)
                    await asyncio.sleep(pause)

    async def _post(
        self, url: str, body: bytes, headers: Mapping[str, str], timeout: float, origin: str
    ) -> Prediction:
        import aiohttp

        if self._session is None:
            verify = tls_context(self._tls) if self._rest_url.startswith("https:") else True
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=verify))
        try:
            async with self._session.post(
                url, data=body, headers=headers, timeout=aiohttp.ClientTimeout(total=timeout)
            ) as response:
                content = await response.read()
                if response.status != 200:
                    raise status.from_http(response.status, content, origin=origin)
                length = response.headers.get(_HEADER_LENGTH)
                return prediction.from_http(content, int(length) if length else None)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"no answer from {origin} within the time allowed", origin=origin
            ) from error
        except aiohttp.ClientError as error:
            raise Unavailable(
                f"cannot reach {origin}: {error}", reason="SERVER_UNREACHABLE", origin=origin
            ) from error

    async def stream(
        self, requests: AsyncIterable[InferRequest], *, timeout: float | None = None
    ) -> AsyncIterator[Prediction]:
        """Predictions of a stream of requests, in their order (`ModelStreamInfer`). The first request that
        fails ends it with its error.
        """

        async def messages() -> AsyncIterator[oip.ModelInferRequest]:
            async for request in requests:
                yield request.to_proto()

        async for response in self._gateway.bidirectional(
            "ModelStreamInfer", messages(), oip.ModelStreamInferResponse, service=_OIP, timeout=timeout
        ):
            if response.error_message:
                raise PenstockError(response.error_message, reason="STREAM_REQUEST_FAILED")
            yield prediction.from_proto(response.infer_response)
