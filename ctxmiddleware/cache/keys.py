"""Under which keys generations and values are in Redis: digests only, so that no key holds a name."""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from .base import Key

BUCKETS: Final = 256


class RedisKeys(NamedTuple):
    """The keys of one user: generations of everyone and of the name, the value, and the marks of invalidations."""

    everyone: str
    generation: str
    value: str
    everyone_mark: str
    mark: str


class KeySpace:
    """The keys of one namespace.

    Names fall into `BUCKETS` buckets by digest. A bucket is the hash tag of its keys and holds its own copy of the
    generation of everyone, so every script stays in one slot of a Redis Cluster, and forgetting everyone costs
    `BUCKETS` writes whatever the number of users.

    Args:
        namespace: what keeps two applications on one Redis apart.
        shape: what keeps values of different types and sources apart.
    """

    def __init__(self, namespace: str, shape: bytes) -> None:
        self._namespace = namespace
        self._shape = shape.hex()

    def of(self, key: Key) -> RedisKeys:
        """Return the keys of a user."""
        name = _digest(key[1])
        tag = self._tag(name[:2])
        value = _digest(f"{key[0]}\0{key[1]}")
        return RedisKeys(f"{tag}:n", f"{tag}:g:{name}", f"{tag}:v:{self._shape}:{value}", f"{tag}:m", f"{tag}:m:{name}")

    def everyone(self) -> list[tuple[str, str]]:
        """Return the keys of everyone's generation and mark in each bucket."""
        tags = [self._tag(f"{bucket:02x}") for bucket in range(BUCKETS)]
        return [(f"{tag}:n", f"{tag}:m") for tag in tags]

    def incarnation(self, bucket: int = 0) -> tuple[str, str]:
        """Return the keys of the server's incarnation, and of the mark that says since when it is known by it.

        Args:
            bucket: of a cluster each bucket says which server it is from; elsewhere the first one speaks for all.
        """
        tag = self._tag(f"{bucket:02x}")
        return f"{tag}:i", f"{tag}:i:m"

    def _tag(self, bucket: str) -> str:
        return f"ctx:{{{self._namespace}:{bucket}}}"


def _digest(name: str) -> str:
    return hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=16, person=b"ctxmiddleware").hexdigest()
