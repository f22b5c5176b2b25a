"""How contexts of one type become bytes and come back, and whether they come back as they were."""

from __future__ import annotations

import logging
from pathlib import PurePath
from typing import Any, Final, Generic, TypeVar

import msgspec

from ..errors import ConfigurationError
from . import schema
from .difference import difference

logger = logging.getLogger("ctxmiddleware.context_types")

T = TypeVar("T")


class Serializer(Generic[T]):
    """Encodes and decodes contexts of one type with MessagePack, strictly.

    What a type does not show (validators, aliases, private attributes, classes derived from those of its fields) is
    found by comparing each value with what comes back of it.

    Args:
        kind: the type, decoded strictly.

    Raises:
        ConfigurationError: values of that type could come back as others; every field of which that is so is named.
    """

    def __init__(self, kind: Any) -> None:
        name = getattr(kind, "__qualname__", str(kind))
        try:
            parts = schema.parts_of(kind)
            faults = schema.faults_of(parts)
            self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(kind, dec_hook=_decode)
        except (TypeError, NameError) as error:
            raise ConfigurationError(f"context_type {name} cannot travel through Redis: {error}") from error
        if faults:
            raise ConfigurationError(*(f"context_type {name} cannot travel through Redis: {each}" for each in faults))
        self.described: Final = schema.description_of(parts).encode(errors="surrogatepass")
        self._encode = msgspec.msgpack.Encoder(enc_hook=_encode).encode
        self._has_times = schema.has_times(parts)
        self._told: set[str] = set()

    def encode(self, value: T) -> bytes | None:
        """Return the bytes of a value, None where it would not come back as it was."""
        try:
            data = self._encode(value)
        except Exception as error:  # noqa: BLE001 - a type of the user's own may raise anything, and is loaded again then
            self.warn_once(f"{_culprit(value)} cannot be encoded ({type(error).__name__})")
            return None
        fault = self._fault(value, data)
        if fault is not None:
            self.warn_once(fault)
            return None
        return data

    def decode(self, data: bytes) -> T:
        """Return the value that bytes stand for.

        Raises:
            Exception: they stand for none of this type.
        """
        return self._decoder.decode(data)

    def in_utc(self, value: T) -> T:
        """Return a value with its times in UTC, as they come back from Redis, so that each tier gives the same."""
        if not self._has_times:
            return value
        try:
            data = self._encode(value)
            return value if self._fault(value, data) else self.decode(data)
        except Exception:  # noqa: BLE001 - it is not stored then, and memory keeps it as it is
            return value

    def _fault(self, value: T, data: bytes) -> str | None:
        try:
            again = self.decode(data)
        except Exception as error:  # noqa: BLE001 - a validator of the user's own may raise anything
            return f"it cannot be decoded again ({type(error).__name__})"
        where = difference(value, again)
        return None if where is None else f"{where} comes back as another value or type"

    def warn_once(self, fault: str) -> None:
        """Log why values are not stored, once for each reason: every load could find it again."""
        if fault not in self._told:
            self._told.add(fault)
            logger.warning("a context is kept in memory only and not stored in Redis: %s", fault)


def _encode(value: Any) -> object:
    if schema.is_pydantic(type(value)):
        return value.model_dump_json(round_trip=True, by_alias=True)
    if isinstance(value, PurePath) or type(value) in schema.TEXTUAL:
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} has no fields that could be stored")


def _decode(kind: type, value: Any) -> object:
    if schema.is_pydantic(kind) and isinstance(value, str):
        return kind.model_validate_json(value)  # type: ignore[attr-defined]  # pydantic's own
    if kind in schema.TEXTUAL and isinstance(value, str):
        return kind(value)
    raise NotImplementedError(f"{kind.__name__} is no type of contexts")


def _culprit(value: Any) -> str:
    """Return the name of the field that cannot be encoded, as far as it can be told."""
    encode = msgspec.msgpack.Encoder(enc_hook=_encode).encode
    names: list[str] = [*getattr(value, "__struct_fields__", ()), *getattr(value, "__dict__", ())]
    for name in names:
        try:
            encode(getattr(value, name))
        except Exception:  # noqa: BLE001 - as in Serializer.encode
            return name
    return "it"
