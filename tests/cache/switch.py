"""An address behind which the server changes, as it does at a failover."""

from __future__ import annotations

from examples.servers import TcpProxy, Valkey


class Switch(TcpProxy):
    """The address of whichever server is the master now."""

    def lead_to(self, server: Valkey) -> None:
        """Lead to another server, as a failover does: connections are lost."""
        self._target = (self._target[0], server.port)
        self.drop()

    @property
    def url(self) -> str:
        """Its address, as if it were Redis."""
        return f"redis://{self.host}:{self.port}/0"
