"""A server that accepts connections and answers whatever it was told, which is not Redis."""

from __future__ import annotations

import contextlib
import socketserver
import threading
from collections.abc import Iterator


class Babbler(socketserver.ThreadingTCPServer):
    """Answers everything it is sent with the same bytes."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, answer: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Babble)
        self.answer = answer

    @property
    def url(self) -> str:
        """Its address, as if it were Redis."""
        return f"redis://127.0.0.1:{self.server_address[1]}/0"


class _Babble(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Babbler)
        with contextlib.suppress(OSError):
            while self.request.recv(65_536):
                self.request.sendall(self.server.answer)


@contextlib.contextmanager
def babbling(answer: bytes) -> Iterator[Babbler]:
    """Serve until the block ends."""
    with Babbler(answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
