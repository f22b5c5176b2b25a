"""A cluster as those see it who share a connection."""

from __future__ import annotations

from collections.abc import Sequence

from .cluster import Cluster
from .connection import Server
from .driver import Call, Spread


class Gathered(Spread):
    """A cluster over the connections that many share, one a node.

    Args:
        cluster: whose.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    @property
    def is_down(self) -> bool:
        """Whether none of its nodes is asked."""
        return self._cluster.is_down

    async def run(self, calls: Sequence[Call]) -> list[object]:
        """Carry out scripts."""
        return await self._cluster.run(calls, gathered=True)

    async def owner(self, key: str) -> Server:
        """Return the client of the server that has a key now."""
        return await self._cluster.owner(key)

    async def look_over(self) -> None:
        """Look at all nodes."""
        await self._cluster.look_over(gathered=True)

    async def put_in_step(self) -> None:
        """Close all idle connections."""
        await self._cluster.put_in_step()

    async def mind(self) -> None:
        """Do nothing: the cluster looks after its nodes."""

    async def aclose(self) -> None:
        """Do nothing: the cluster closes its connections."""
