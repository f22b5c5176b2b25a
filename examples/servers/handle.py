"""What every running server lets its owner do with it."""

from __future__ import annotations

from .process import ServerProcess


class Server:
    """A running server: where it listens, and how it is disturbed.

    Args:
        process: its process, started and ended by whoever made it.
    """

    def __init__(self, process: ServerProcess) -> None:
        self._process = process
        self.pause = process.pause
        self.resume = process.resume
        self.kill = process.kill
        self.restart = process.restart

    def __repr__(self) -> str:
        return repr(self._process)

    @property
    def running(self) -> bool:
        """Whether its process is there, paused or not."""
        return self._process.running

    @property
    def port(self) -> int:
        """Its TCP port on 127.0.0.1."""
        return self._process.port

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid
