"""How values are sealed while they lie in Redis: AES-256-GCM, under keys that are told apart by their digests."""

from __future__ import annotations

import base64
import hashlib
import os
import struct
from collections.abc import Sequence
from typing import Final

from ...errors import ConfigurationError, MissingExtra
from ...secret import Secret
from ...tracebacks import sheltered
from ..base import Fence

KEY_FORM: Final = "32 random bytes in base64, as `openssl rand -base64 32` prints them"

_SETTING: Final = "encryption_keys (CTX_ENCRYPTION_KEYS)"
_KEY_BYTES: Final = 32
# Of 32 random bytes so few are different once in 10**25 keys: it is a placeholder that nobody has replaced.
_LEAST_DIFFERENT: Final = 12
_STANDARD: Final = str.maketrans("-_", "+/")

# The one byte that begins no msgpack: what is sealed is never taken for what is not, nor the other way round.
_MARK: Final = 0xC1
# The mark, the schema's version, the key's id, and how long the two generations are that follow.
_HEAD: Final = struct.Struct(">BB8sHH")
_LONGEST_GENERATION: Final = 0xFFFF
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16


class Seal:
    """Seals values for one place in Redis and one generation, and opens what was sealed for that place.

    A sealed value is a header in the clear, the nonce, the ciphertext and its tag. The header says by which version of
    the schema it was made, by which key and under which generations; header and Redis key are the associated data.

    Nonces are random, so that instances need not agree on them; one key must therefore seal no more than 2**32 values,
    by all instances together (NIST SP 800-38D, section 8.3): 497 days of 100 a second.

    Args:
        keys: the first one seals, each of them opens.

    Raises:
        ConfigurationError: a key is not one, or is there twice.
        MissingExtra: the library that seals is not installed.
    """

    @sheltered
    def __init__(self, keys: Sequence[Secret]) -> None:
        faults = key_faults(keys)
        if faults:
            raise ConfigurationError(*faults)
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise MissingExtra(f"sealing values in Redis, as {_SETTING} asks for,", "encryption") from error
        self._refused = InvalidTag
        self._ciphers = {_id(key): AESGCM(key) for key in map(_decoded, keys) if key is not None}
        self._first = next(iter(self._ciphers))

    def __repr__(self) -> str:
        return f"<Seal: keys {', '.join(each.hex() for each in self._ciphers)}>"

    def close(self, data: bytes, version: int, redis_key: str, fence: Fence) -> bytes | None:
        """Return the sealed form of a value, or None where a generation is longer than any of ours.

        Args:
            data: the value.
            version: the version of the schema it was made by, 255 at most.
            redis_key: the key it will be kept under.
            fence: the generations it was loaded under.
        """
        if max(map(len, fence)) > _LONGEST_GENERATION:
            return None
        head = _HEAD.pack(_MARK, version, self._first, *map(len, fence)) + fence.everyone + fence.name
        nonce = os.urandom(_NONCE_BYTES)
        return head + nonce + self._ciphers[self._first].encrypt(nonce, data, head + redis_key.encode())

    def open(self, sealed: bytes, version: int, redis_key: str) -> bytes | None:
        """Return the value, or None for whatever was not sealed by one of the keys for that Redis key.

        Which generations it belongs to cannot have been changed either; whether they are in force is not asked here.

        Args:
            sealed: what Redis held.
            version: the version of the schema that can be read.
            redis_key: the key it was found under.
        """
        if len(sealed) < _HEAD.size:
            return None
        mark, made_by, key_id, everyone, name = _HEAD.unpack_from(sealed)
        begins = _HEAD.size + everyone + name
        cipher = self._ciphers.get(key_id)
        if (mark, made_by) != (_MARK, version) or cipher is None or len(sealed) < begins + _NONCE_BYTES + _TAG_BYTES:
            return None
        ends = begins + _NONCE_BYTES
        try:
            return cipher.decrypt(sealed[begins:ends], sealed[ends:], sealed[:begins] + redis_key.encode())
        except self._refused:
            return None


def key_faults(keys: Sequence[object]) -> list[str]:
    """Return what is wrong with keys, by their places: nothing of a key is shown."""
    faults, places = [], dict[bytes, int]()
    for place, key in enumerate(keys, 1):
        decoded = _decoded(key)
        if decoded is None:
            faults.append(f"{_SETTING}: key {place} is not {KEY_FORM}")
        elif places.setdefault(decoded, place) != place:
            faults.append(f"{_SETTING}: key {place} is key {places[decoded]} again; each has to be another one")
    return faults


def _decoded(key: object) -> bytes | None:
    if not isinstance(key, Secret):
        return None
    text = key.reveal().translate(_STANDARD)
    try:
        decoded = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    # Bits that stand for nothing may be anything in base64: two spellings of one key would not be found the same.
    is_key = len(decoded) == _KEY_BYTES and base64.b64encode(decoded).decode() == text
    return decoded if is_key and len(set(decoded)) >= _LEAST_DIFFERENT else None


def _id(key: bytes) -> bytes:
    # Of a random key so short a digest tells nothing that helps to find it.
    return hashlib.blake2b(key, digest_size=8, person=b"ctxmiddleware id").digest()
