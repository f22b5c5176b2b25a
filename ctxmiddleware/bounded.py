"""Reading a body from the network up to a limit."""

from __future__ import annotations

from collections.abc import AsyncIterable

import anyio


async def read_limited(pieces: AsyncIterable[bytes], limit: int) -> bytes | None:
    """Return a whole body, or None where it is larger than a limit; the rest of it is not read then.

    Args:
        pieces: the body as it arrives.
        limit: bytes it may have.
    """
    body = bytearray()
    # Ended by cancelling: an exception that is raised here does not close the HTTP client's nested generators.
    with anyio.CancelScope() as scope:
        async for piece in pieces:
            body += piece
            if len(body) > limit:
                scope.cancel()
    return None if len(body) > limit else bytes(body)
