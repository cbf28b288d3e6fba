"""The client: `AsyncClient` for asyncio programs and `Client`, the same thing for all others."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from opentelemetry.trace import TracerProvider

from penstock_client import settings as settings_module
from penstock_client.deployments import AsyncDeployments
from penstock_client.inference import AsyncInference
from penstock_client.packages import AsyncPackages
from penstock_client.portal import Face, Portal, blocking, blocking_iterator
from penstock_client.retry import RetryPolicy
from penstock_client.routes import AsyncEndpoints, AsyncRoutes
from penstock_client.settings import Settings
from penstock_client.tracing import Spans
from penstock_client.transport import Remote


class AsyncClient:
    """All of Penstock for an asyncio program. Connects when first used.

    ```python
    async with AsyncClient() as client:
        prediction = await client.predict("digits/classifier", images)
    ```

    Without `settings` it reads the environment, the profile and the local stack (see
    `penstock_client.settings`). `tracer_provider` is the OpenTelemetry provider for its spans, by default
    the process's own.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        profile: str | None = None,
        retry: RetryPolicy | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        self.settings = settings or settings_module.load(profile=profile)
        given, policy = self.settings, retry or RetryPolicy()
        spans = Spans(tracer_provider)
        self._remotes = {
            title: Remote(title, address.grpc, given, spans, policy)
            for title, address in (("AIGW", given.aigw), ("DPLO", given.dplo), ("MDS", given.mds))
        }
        gateway = self._remotes["AIGW"]
        self.packages = AsyncPackages(self._remotes["MDS"], given.project, policy)
        self.deployments = AsyncDeployments(self._remotes["DPLO"], given.project, policy)
        self.routes = AsyncRoutes(gateway, given.project)
        self.endpoints = AsyncEndpoints(gateway, given.project)
        self.inference = AsyncInference(
            gateway, given.aigw.rest, given.project, spans, policy, given.timeout, given.tls
        )
        self.predict = self.inference.predict
        self.model = self.inference.model

    async def close(self) -> None:
        """Ends all connections."""
        await self.inference.close()
        for remote in self._remotes.values():
            await remote.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Packages(Face[AsyncPackages]):
    """`client.packages`, blocking."""

    upload = blocking(AsyncPackages.upload)
    get = blocking(AsyncPackages.get)
    list = blocking(AsyncPackages.list)
    download = blocking(AsyncPackages.download)
    delete = blocking(AsyncPackages.delete)


class Deployments(Face[AsyncDeployments]):
    """`client.deployments`, blocking."""

    plan = blocking(AsyncDeployments.plan)
    apply = blocking(AsyncDeployments.apply)
    rollback = blocking(AsyncDeployments.rollback)
    promote = blocking(AsyncDeployments.promote)
    delete = blocking(AsyncDeployments.delete)
    get = blocking(AsyncDeployments.get)
    list = blocking(AsyncDeployments.list)
    history = blocking(AsyncDeployments.history)
    drift = blocking(AsyncDeployments.drift)
    logs = blocking(AsyncDeployments.logs)
    watch = blocking_iterator(AsyncDeployments.watch)


class Routes(Face[AsyncRoutes]):
    """`client.routes`, blocking."""

    get = blocking(AsyncRoutes.get)
    list = blocking(AsyncRoutes.list)
    set_weights = blocking(AsyncRoutes.set_weights)
    put = blocking(AsyncRoutes.put)
    delete = blocking(AsyncRoutes.delete)
    history = blocking(AsyncRoutes.history)
    watch = blocking_iterator(AsyncRoutes.watch)


class Endpoints(Face[AsyncEndpoints]):
    """`client.endpoints`, blocking."""

    list = blocking(AsyncEndpoints.list)
    watch = blocking_iterator(AsyncEndpoints.watch)


class Inference(Face[AsyncInference]):
    """`client.inference`, blocking."""

    predict = blocking(AsyncInference.predict)
    model = blocking(AsyncInference.model)


class Client:
    """All of Penstock for a program without asyncio; threads may share one.

    ```python
    with Client() as client:
        prediction = client.predict("digits/classifier", images)
        print(prediction.version, prediction.output)
    ```
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        profile: str | None = None,
        retry: RetryPolicy | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        inner = AsyncClient(settings, profile=profile, retry=retry, tracer_provider=tracer_provider)
        self._inner = inner
        self._portal = portal = Portal()
        self.settings = inner.settings
        self.packages = Packages(inner.packages, portal)
        self.deployments = Deployments(inner.deployments, portal)
        self.routes = Routes(inner.routes, portal)
        self.endpoints = Endpoints(inner.endpoints, portal)
        self.inference = Inference(inner.inference, portal)
        self.predict = self.inference.predict
        self.model = self.inference.model

    def close(self) -> None:
        """Ends all connections and the client's thread; calling it again does nothing."""
        if not self._portal.closed:
            self._portal.run(self._inner.close())
            self._portal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
