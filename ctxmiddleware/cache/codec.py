"""How a value travels through Redis: a versioned msgpack envelope bound to whom it was stored for."""

from __future__ import annotations

import hashlib
from enum import Enum
from typing import Final, Generic, TypeVar

import msgspec

from ..errors import ConfigurationError
from .base import Fence, Key, Stored

V = TypeVar("V")

VERSION: Final = 1
MAX_BYTES: Final = 4 * 1024 * 1024


class _Envelope(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    version: int
    shape: bytes
    partition: str
    name: str
    everyone: bytes
    generation: bytes
    origin: str
    lifetime_ms: int
    kept_ms: int
    payload: bytes | None


class NoValue(Enum):
    """Why an envelope gives no value; the counter's word for it."""

    OVERTAKEN = "overtaken"
    FOREIGN = "rejected"


class Codec(Generic[V]):
    """Turns values of one type into envelopes and back; whatever is not ours comes back as None, never as a value.

    Args:
        kind: the type of the values, decoded strictly.
        label: where the values come from; values of another source are not ours.

    Raises:
        ConfigurationError: msgspec cannot encode values of that type.
    """

    def __init__(self, kind: type[V], label: str = "") -> None:
        self.shape = _shape(kind, label)
        self._encode = msgspec.msgpack.Encoder().encode
        self._envelope = msgspec.msgpack.Decoder(_Envelope)
        try:
            self._payload = msgspec.msgpack.Decoder(kind)
        except TypeError as error:
            raise ConfigurationError(
                f"context_type {kind.__qualname__} cannot travel through Redis: {error}"
            ) from error

    def pack(self, key: Key, fence: Fence, stored: Stored[V], kept_ms: int) -> bytes | None:
        """Return the envelope of a value, or None where msgpack cannot hold it or it is larger than `MAX_BYTES`.

        Args:
            key: whom it is stored for.
            fence: the generations it was loaded under.
            stored: the value, its origin and its time to live.
            kept_ms: milliseconds Redis keeps it, counted from when its source was asked.
        """
        lifetime_ms = int(stored.lifetime * 1000)
        try:
            payload = None if stored.value is None else self._encode(stored.value)
            data = self._encode(
                _Envelope(VERSION, self.shape, *key, *fence, stored.origin, lifetime_ms, kept_ms, payload)
            )
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError):
            return None
        return data if len(data) <= MAX_BYTES else None

    def unpack(self, data: bytes, key: Key, fence: Fence, left_ms: int) -> Stored[V] | NoValue:
        """Return the value of an envelope, or why there is none: it was overtaken, or is damaged, foreign or another's.

        Args:
            data: what Redis held.
            key: whom it is asked for.
            fence: the generations in force.
            left_ms: milliseconds Redis will still keep it, which tells its age without any wall clock.
        """
        if len(data) > MAX_BYTES:
            return NoValue.FOREIGN
        try:
            envelope = self._envelope.decode(data)
            if (envelope.version, envelope.shape, envelope.partition, envelope.name) != (VERSION, self.shape, *key):
                return NoValue.FOREIGN
            if (envelope.everyone, envelope.generation) != fence:
                return NoValue.OVERTAKEN
            value = None if envelope.payload is None else self._payload.decode(envelope.payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
            return NoValue.FOREIGN
        # A value without an expiry, or with a longer one than it was stored with, was touched by somebody else.
        if not (0 <= left_ms <= envelope.kept_ms and 0 <= envelope.lifetime_ms <= envelope.kept_ms):
            return NoValue.FOREIGN
        return Stored(value, envelope.origin, envelope.lifetime_ms / 1000, (envelope.kept_ms - left_ms) / 1000)


def _shape(kind: type, label: str) -> bytes:
    try:
        described = msgspec.json.encode(msgspec.json.schema(kind), order="deterministic")
    except TypeError:
        described = f"{kind.__module__}.{kind.__qualname__}".encode()
    return hashlib.blake2b(described + b"\0" + label.encode(), digest_size=8, person=b"ctxmiddleware").digest()
