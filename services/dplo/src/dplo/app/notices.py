"""Tells watchers in this process that something about a deployment was written."""

import asyncio
from collections import defaultdict

from dplo.domain.names import DeploymentName


class Notices:
    """Counts writes per deployment; whoever has seen a count waits for the next."""

    def __init__(self) -> None:
        self._counts: defaultdict[DeploymentName, int] = defaultdict(int)
        self._changed = asyncio.Condition()

    def count(self, name: DeploymentName) -> int:
        """How many writes there have been."""
        return self._counts[name]

    async def tell(self, name: DeploymentName) -> None:
        """Wakes everybody who waits for that deployment."""
        async with self._changed:
            self._counts[name] += 1
            self._changed.notify_all()

    async def wait(self, name: DeploymentName, seen: int) -> int:
        """Waits until there are more writes than `seen`."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._counts[name] > seen)
            return self._counts[name]
