"""How a value travels through Redis: a versioned msgpack envelope bound to whom it was stored for."""

from __future__ import annotations

import hashlib
from enum import Enum
from typing import Final, Generic, TypeVar

import msgspec

from ...context_types.serializer import Serializer
from ..base import Fence, Key, Stored
from .seal import Seal

V = TypeVar("V")

VERSION: Final = 2
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
        label: where the values come from, and what else tells them apart; values under another label are misses.
        seal: seals the envelopes, and only what it has sealed is ours then; None leaves them open.

    Raises:
        ConfigurationError: values of that type could come back as others.
    """

    def __init__(self, kind: type[V], label: str = "", *, seal: Seal | None = None) -> None:
        self.values: Serializer[V] = Serializer(kind)
        self.shape = _shape(self.values.described, label)
        self._seal = seal
        self._encode = msgspec.msgpack.Encoder().encode
        self._envelope = msgspec.msgpack.Decoder(_Envelope)

    def pack(self, key: Key, fence: Fence, stored: Stored[V], kept_ms: int, *, redis_key: str) -> bytes | None:
        """Return the envelope of a value, or None where it would not come back as it was or is over `MAX_BYTES`.

        Args:
            key: whom it is stored for.
            fence: the generations it was loaded under.
            stored: the value, its origin and its time to live.
            kept_ms: milliseconds Redis keeps it, counted from when its source was asked.
            redis_key: the key it will be kept under.
        """
        payload = None if stored.value is None else self.values.encode(stored.value)
        if stored.value is not None and payload is None:
            return None
        lifetime_ms = int(stored.lifetime * 1000)
        try:
            data = self._encode(
                _Envelope(VERSION, self.shape, *key, *fence, stored.origin, lifetime_ms, kept_ms, payload)
            )
        except (TypeError, ValueError, OverflowError):
            return None
        return self._closed(data, fence, redis_key)

    def unpack(self, data: bytes, key: Key, fence: Fence, left_ms: int, *, redis_key: str) -> Stored[V] | NoValue:
        """Return the value of an envelope, or why there is none: it was overtaken, or is damaged, foreign or another's.

        With a seal it is opened first: what is overtaken is told from what is not ours as without one.

        Args:
            data: what Redis held.
            key: whom it is asked for.
            fence: the generations in force.
            left_ms: milliseconds Redis will still keep it, which tells its age without any wall clock.
            redis_key: the key it was found under.
        """
        opened = self._opened(data, redis_key)
        if opened is None:
            return NoValue.FOREIGN
        try:
            envelope = self._envelope.decode(opened)
            if (envelope.version, envelope.shape, envelope.partition, envelope.name) != (VERSION, self.shape, *key):
                return NoValue.FOREIGN
            if (envelope.everyone, envelope.generation) != fence:
                return NoValue.OVERTAKEN
            value = None if envelope.payload is None else self.values.decode(envelope.payload)
        except Exception:  # noqa: BLE001 - raised on, one user's value would fail all who are looked up with him
            return NoValue.FOREIGN
        # A value without an expiry, or with a longer one than it was stored with, was touched by somebody else.
        if not (0 <= left_ms <= envelope.kept_ms and 0 <= envelope.lifetime_ms <= envelope.kept_ms):
            return NoValue.FOREIGN
        return Stored(value, envelope.origin, envelope.lifetime_ms / 1000, (envelope.kept_ms - left_ms) / 1000)

    def owner(self, data: bytes, *, redis_key: str) -> Key | None:
        """Return whom an envelope says it was stored for, to be checked against its key; None where it is not ours."""
        opened = self._opened(data, redis_key)
        try:
            envelope = None if opened is None else self._envelope.decode(opened)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
            return None
        return None if envelope is None else (envelope.partition, envelope.name)

    def _closed(self, data: bytes, fence: Fence, redis_key: str) -> bytes | None:
        closed: bytes | None = data
        if self._seal is not None and len(data) <= MAX_BYTES:
            closed = self._seal.close(data, VERSION, redis_key, fence)
        if closed is not None and len(closed) > MAX_BYTES:
            self.values.warn_once(f"it is larger than {MAX_BYTES} bytes")
            return None
        return closed

    def _opened(self, data: bytes, redis_key: str) -> bytes | None:
        # Before it is copied, opened or decoded, which is what would make a huge value cost something.
        if len(data) > MAX_BYTES:
            return None
        return data if self._seal is None else self._seal.open(data, VERSION, redis_key)


def _shape(described: bytes, label: str) -> bytes:
    # With the version of the layout: values of a release with another one are under keys of their own.
    parts = (b"%d" % VERSION, described, label.encode())
    data = b"".join(b"%d:%s" % (len(part), part) for part in parts)
    return hashlib.blake2b(data, digest_size=8, person=b"ctxmiddleware").digest()
