"""How a published key set is fetched: bounded in time and size, and from nowhere but where it is published."""

from __future__ import annotations

import json
import ssl
from typing import Final

import anyio
import anyio.to_thread
import httpx2

from ...bounded import read_limited

FETCH_SECONDS: Final = 5.0
MAX_BYTES: Final = 256 * 1024


class Document:
    """A document on the web.

    Args:
        url: where it is.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._tls: ssl.SSLContext | None = None

    def __repr__(self) -> str:
        return f"<Document: {self._url}>"

    async def fetch(self) -> object:
        """Return what it holds, as JSON.

        Raises:
            Exception: it cannot be had, or is none.
        """
        if self._tls is None:
            # Reading the certificates takes 20 ms of disk and parsing: not on the event loop.
            self._tls = await anyio.to_thread.run_sync(httpx2.create_ssl_context)
        with anyio.fail_after(FETCH_SECONDS):
            async with (
                httpx2.AsyncClient(verify=self._tls, timeout=FETCH_SECONDS, follow_redirects=False) as client,
                client.stream("GET", self._url, headers={"Accept": "application/json"}) as response,
            ):
                if response.status_code != 200:
                    raise ValueError(f"it was answered with {response.status_code}")
                body = await read_limited(response.aiter_bytes(), MAX_BYTES)
        if body is None:
            raise ValueError(f"it is larger than {MAX_BYTES} bytes")
        return json.loads(body.decode("utf-8"))
