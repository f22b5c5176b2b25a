"""Which names are held, by the digests under which news of them travel."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final

DIGEST_SIZE: Final = 16


class Names:
    """Names with their digests, counted, so that none outlives its use; whoever owns it locks it.

    Args:
        digest: what stands for a name in the shared tier and in its news, neither of which hold names.
    """

    def __init__(self, digest: Callable[[str], bytes]) -> None:
        self._digest = digest
        self._by_digest: dict[bytes, str] = {}
        self._held: dict[str, tuple[bytes, int]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, name: str) -> None:
        """Take note of one more use of a name."""
        held = self._held.get(name)
        if held is None:
            held = self._digest(name), 0
            self._by_digest[held[0]] = name
        self._held[name] = held[0], held[1] + 1

    def release(self, name: str) -> None:
        """Take note of one use less."""
        digest, count = self._held[name]
        if count > 1:
            self._held[name] = digest, count - 1
        else:
            del self._held[name], self._by_digest[digest]

    def clear(self) -> list[dict[Any, Any]]:
        """Forget all names, and return what held them."""
        former: list[dict[Any, Any]] = [self._held, self._by_digest]
        self._held, self._by_digest = {}, {}
        return former

    def of(self, digest: bytes) -> str | None:
        """Return the name a digest stands for, or None where it is not held."""
        return self._by_digest.get(digest)


def digest_of(name: str) -> bytes:
    """Return what stands for a name in keys and in news of it."""
    return digest(name).encode()


def digest(text: str) -> str:
    """Return what stands for a text in keys, which hold no names: its digest in hexadecimal digits."""
    data = text.encode(errors="surrogatepass")
    return hashlib.blake2b(data, digest_size=DIGEST_SIZE, person=b"ctxmiddleware").hexdigest()
