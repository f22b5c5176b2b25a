"""Under which keys generations and values are in Redis: digests only, so that no key holds a name."""

from __future__ import annotations

from typing import Final, NamedTuple

from ..base import Key
from ..names import DIGEST_SIZE, digest

BUCKETS: Final = 256
# Of a name and of a partition with a name.
CALLED_SIZE: Final = 2 * DIGEST_SIZE


class RedisKeys(NamedTuple):
    """The keys of one user: the generations and marks of all names and of the name, the value, the holds, the lease."""

    everyone: str
    generation: str
    value: str
    everyone_mark: str
    mark: str
    holds: str
    lease: str


class ChannelKeys(NamedTuple):
    """The keys of the channel: its state, its stream, who listens, and what each listener's own stream begins with."""

    state: str
    stream: str
    listeners: str
    inbox: str


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
        return self._keys(digest(key[1]), _value_digest(key))

    def hot(self) -> str:
        """Return the key of those who were asked for last."""
        return f"ctx:{self._tag('00')}:w:{self._shape}"

    def called(self, key: Key) -> bytes:
        """Return what a user is called where it is told who was asked for."""
        return bytes.fromhex(digest(key[1]) + _value_digest(key))

    def of_called(self, called: bytes) -> RedisKeys:
        """Return the keys of a user by what he is called, which does not tell who he is."""
        return self._keys(called[:DIGEST_SIZE].hex(), called[DIGEST_SIZE:].hex())

    def _keys(self, name: str, value: str) -> RedisKeys:
        tag = self._tag(name[:2])
        return RedisKeys(
            f"ctx:{tag}:n",
            f"ctx:g:{tag}:{name}",
            f"ctx:{tag}:v:{self._shape}:{value}",
            f"ctx:{tag}:m",
            f"ctx:{tag}:m:{name}",
            f"ctx:{tag}:h:{name}",
            f"ctx:{tag}:l:{self._shape}:{value}",
        )

    def everyone(self) -> list[tuple[str, str]]:
        """Return the keys of everyone's generation and mark in each bucket."""
        tags = [self._tag(f"{bucket:02x}") for bucket in range(BUCKETS)]
        return [(f"ctx:{tag}:n", f"ctx:{tag}:m") for tag in tags]

    def incarnation(self, bucket: int = 0) -> tuple[str, str]:
        """Return the keys of the server's incarnation, and of the mark that says since when it is known by it.

        Args:
            bucket: of a cluster each bucket says which server it is from; elsewhere the first one speaks for all.
        """
        tag = self._tag(f"{bucket:02x}")
        return f"ctx:{tag}:i", f"ctx:{tag}:i:m"

    def channel(self, bucket: int = 0) -> ChannelKeys:
        """Return the keys of the channel, which is in the first bucket; of the others these are never written."""
        tag = self._tag(f"{bucket:02x}")
        return ChannelKeys(f"ctx:{tag}:c", f"ctx:{tag}:s", f"ctx:{tag}:p", f"ctx:{tag}:b:")

    @property
    def generations(self) -> str:
        """What the keys of all names' generations, and no others, begin with."""
        return f"ctx:g:{{{self._namespace}:"

    def _tag(self, bucket: str) -> str:
        return f"{{{self._namespace}:{bucket}}}"


def _value_digest(key: Key) -> str:
    # Divided by length: with a separator a partition that holds it could be another partition with another name.
    partition, name = key
    return digest(f"{len(partition)}:{partition}{name}")
